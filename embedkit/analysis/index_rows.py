"""The rows behind a search index: files of rows, one after the other."""

from __future__ import annotations

import numpy as np

from embedkit.analysis.merge import Ids
from embedkit.analysis.pair_distances import Floats
from embedkit.analysis.spool import Spool


class Rows:
    """Rows numbered through several files, whose memory maps it keeps open.

    Parameters
    ----------
    files : tuple of Spool
        At least one; all have the same features.
    """

    def __init__(self, files: tuple[Spool, ...]) -> None:
        self.files = files
        self._maps = [np.asarray(each.rows) for each in files]
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
