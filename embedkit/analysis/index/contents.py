"""What a search index was built from, to compare with what it is asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.index.object import Index
from embedkit.analysis.index.rows import Rows


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The images of an index, in the order of their row numbers.

    Attributes
    ----------
    images : ndarray of str, shape (N,)
        Ids, those of removed images too.
    alive : ndarray of bool, shape (N,)
        Which can be found.
    n_features : int
        Numbers per row.
    rows : Rows
        The rows themselves, on disk.
    content : str or None
        What the store said of them when they were copied.
    """

    images: npt.NDArray[np.str_]
    alive: npt.NDArray[np.bool_]
    n_features: int
    rows: Rows
    content: str | None


def contents_of(index: Index) -> Contents:
    """Return what an index holds; nothing is copied."""
    searcher = index._made.searcher
    return Contents(
        images=index._images,
        alive=searcher.alive,
        n_features=len(searcher.space.center),
        rows=searcher.rows,
        content=index._content,
    )
