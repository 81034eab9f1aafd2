"""The rows behind a search index: files of rows, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedkit.analysis.merge import Ids
from embedkit.analysis.pair_distances import Floats
from embedkit.analysis.spool import Spool


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows numbered through several files.

    Attributes
    ----------
    files : tuple of Spool
        At least one; all have the same features.
    """

    files: tuple[Spool, ...]

    def __len__(self) -> int:
        return sum(each.shape[0] for each in self.files)

    def take(self, ids: Ids) -> Floats:
        """Return rows by number, in any order, shape (M, F)."""
        if len(self.files) == 1:
            return np.asarray(self.files[0].rows[ids])
        ends = np.cumsum([each.shape[0] for each in self.files])
        where = np.searchsorted(ends, ids, side="right")
        dtype = np.result_type(*[each.dtype for each in self.files])
        out = np.empty((len(ids), self.files[0].shape[1]), dtype)
        for number, each in enumerate(self.files):
            here = where == number
            out[here] = each.rows[ids[here] - (ends[number] - each.shape[0])]
        return out
