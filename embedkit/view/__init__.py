"""Pictures of results: ``ek.pl.map`` and its kin."""

from __future__ import annotations

from embedkit.view.picture import save_map, save_neighbors
from embedkit.view.scatter import map
from embedkit.view.sheet import neighbors

__all__ = ["map", "neighbors", "save_map", "save_neighbors"]
