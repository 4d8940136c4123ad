"""Names of folders that say a view, and no patient."""

from __future__ import annotations

PEDIATRIC_FOLDERS = ("A4C", "PSAX")
"""The two halves of EchoNet-Pediatric."""
