"""What a search index becomes when images are added or removed, and where its files go."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.analysis import faiss_adapter
from embedkit.analysis.index.build import add_rows, write_shard
from embedkit.analysis.index.given import check_reach
from embedkit.analysis.index.rows import Rows
from embedkit.analysis.index.search import Searcher
from embedkit.analysis.merge import Ids
from embedkit.analysis.rows import usable_rows
from embedkit.analysis.spool import Spool


class Home:
    """A temporary folder that lives as long as this object.

    Attributes
    ----------
    path : Path
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="embedkit-index-"))
        self._files = 0
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def fresh(self, stem: str) -> str:
        """Return a name that no file had: files are remembered by name once opened."""
        self._files += 1
        return f"{stem}-{self._files}"


def grown(
    searcher: Searcher, more: Spool, *, home: Home, template: Path | None
) -> Searcher:
    """Add the rows of a file behind those that are there.

    Parameters
    ----------
    searcher : Searcher
        Its FAISS index in memory is changed, files are not.
    more : Spool
        Rows, shape (M, F).
    home : Home
        Where a new file goes.
    template : Path or None
        The trained, empty index where it lies in several files; None where it does not.

    Returns
    -------
    Searcher

    Raises
    ------
    InputError
        For rows too long for an index of inner products.
    """
    rows, first, space = more.rows, len(searcher.rows), searcher.space
    usable = usable_rows(rows)
    null = usable & ~rows.any(axis=1) & (space.metric == "cosine")
    listed = np.flatnonzero(usable & ~null)
    check_reach(rows[listed], space)
    parts = searcher.parts
    if template is not None:
        name = home.fresh("added")
        path = write_shard(
            home.path, more, space, listed, name=name, first=first, template=template
        )
        parts = (*parts, path)
    elif parts:
        add_rows(parts[0], more, space, listed, first=first)
    return replace(
        searcher,
        parts=parts,
        rows=Rows((*searcher.rows.files, more)),
        alive=np.concatenate([searcher.alive, usable]),
        zeros=np.concatenate([searcher.zeros, first + np.flatnonzero(null)]),
    )


def shrunk(searcher: Searcher, rows: Ids, *, home: Home) -> Searcher:
    """Take rows out; the numbers of others stay.

    Parameters
    ----------
    searcher : Searcher
        Its FAISS index in memory is changed; files are replaced by new ones.
    rows : ndarray of int64
        Row numbers.
    home : Home
        Where new files go.

    Returns
    -------
    Searcher
    """
    alive = searcher.alive.copy()
    alive[rows] = False
    return replace(
        searcher,
        alive=alive,
        zeros=np.setdiff1d(searcher.zeros, rows),
        parts=tuple(_without(part, rows, home) for part in searcher.parts),
    )


def _without(part: Any, rows: Ids, home: Home) -> Any:
    if not isinstance(part, Path):
        faiss_adapter.remove(part, rows)
        return part
    index = faiss_adapter.read(part)
    if not faiss_adapter.remove(index, rows):
        return part
    path = home.path / f"{home.fresh('shard-left')}.faiss"
    faiss_adapter.write(index, path)
    return path
