from __future__ import annotations

import subprocess
import sys

import panecho_embed


def test_every_public_name_is_there():
    for name in panecho_embed.__all__:
        assert getattr(panecho_embed, name) is not None


def test_functions_stay_functions_once_their_modules_are_loaded():
    import panecho_embed.extraction.reclipping
    import panecho_embed.extraction.run

    for name in ("extract", "reclip", "pool", "load_backbone", "PanEcho", "EmbeddingFile"):
        assert callable(getattr(panecho_embed, name))


def test_importing_the_package_costs_nothing():
    code = "import sys, panecho_embed; print([m for m in ('torch', 'numpy', 'h5py') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
