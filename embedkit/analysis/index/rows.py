"""The rows behind a search index: files of rows, one after the other."""

from __future__ import annotations

import mmap

import numpy as np

from embedkit.analysis.merge import Ids
from embedkit.analysis.pair_distances import Floats
from embedkit.analysis.spool import Spool
from embedkit.planning.index import MAPPED


class Rows:
    """Rows numbered through several files, whose memory maps it keeps open.

    Parameters
    ----------
    files : tuple of Spool
        At least one; all have the same features.
    """

    def __init__(self, files: tuple[Spool, ...]) -> None:
        self.files = files
        opened = [each.rows for each in files]
        self._files = [_file_of(each) for each in opened]
        self._maps = [np.asarray(each) for each in opened]
        self._ends = np.cumsum([each.shape[0] for each in files])

    def __reduce__(self) -> tuple[type[Rows], tuple[tuple[Spool, ...]]]:
        return Rows, (self.files,)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, ids: Ids) -> Floats:
        """Return rows by number, in any order, shape (M, F)."""
        if len(self.files) == 1:
            return np.asarray(np.take(self._maps[0], ids, axis=0))
        where = np.searchsorted(self._ends, ids, side="right")
        dtype = np.result_type(*[each.dtype for each in self._maps])
        out = np.empty((len(ids), self.files[0].shape[1]), dtype)
        for number, rows in enumerate(self._maps):
            here = where == number
            out[here] = rows[ids[here] - (self._ends[number] - len(rows))]
        return out

    def let_go(self) -> None:
        """Unmap the pages that were read, where all of them would be too many.

        They count as memory of this process, and a nanny ends a worker for them. The
        system still has them, so reading them again costs little.
        """
        if sum(each.nbytes for each in self._maps) <= MAPPED:
            return
        for file in self._files:
            if file is not None and hasattr(file, "madvise"):  # Windows has none
                file.madvise(mmap.MADV_DONTNEED)


def _file_of(rows: Floats) -> mmap.mmap | None:
    """Return what maps the file of some rows; rows that there are none of have no file."""
    return getattr(rows, "_mmap", None)
