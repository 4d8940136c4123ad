"""Synthetic echocardiogram studies with a known ejection fraction, for demonstrations and tests.

A left ventricle of known volume beats in a sector. Its cavity is a solid of revolution, so the volume curve fixes every
outline; the wall keeps its own volume and so thickens in systole. The image is formed as a scanner forms it: random
scatterers that move with the tissue, weighted by its echogenicity, blurred by the beam on its polar grid, their
envelope log-compressed (fully developed, Rayleigh speckle: Burckhardt, IEEE Trans. Sonics Ultrason. 25(1), 1978) and
scan-converted. Nothing but geometry and motion carries the ejection fraction. Lengths are centimetres, volumes
millilitres.
"""

from __future__ import annotations

from panecho_embed.phantoms.filming import render
from panecho_embed.phantoms.patients import PhantomPatient, View, make_patients
from panecho_embed.phantoms.studies import LAYOUTS, extract_input, write_studies

__all__ = ["LAYOUTS", "PhantomPatient", "View", "extract_input", "make_patients", "render", "write_studies"]
