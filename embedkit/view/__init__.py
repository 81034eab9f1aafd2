"""Pictures of results: ``ek.pl.map`` and its kin."""

from __future__ import annotations

from embedkit.view.picture import save_map
from embedkit.view.scatter import map

__all__ = ["map", "save_map"]
