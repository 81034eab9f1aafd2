"""The rows behind a search index: files of rows, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.pair_distances import Floats, Metric, lift, pair_distances
from embedkit.analysis.spool import Spool

_BLOCK = 2**18  # float64 entries measured together, so that they stay in the cache


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


def measure(queries: Floats, rows: Rows, candidates: Ids, metric: Metric) -> Float64s:
    """Measure each query against its candidates in float64, each pair by itself.

    Parameters
    ----------
    queries : ndarray, shape (Q, F), floating
    rows : Rows
    candidates : ndarray of int64, shape (Q, C)
        Row numbers, -1 for none.
    metric : {"euclidean", "cosine", "inner_product"}

    Returns
    -------
    ndarray of float64, shape (Q, C)
        NaN for none.
    """
    out = np.full(candidates.shape, np.nan)
    height = max(1, _BLOCK // max(1, candidates.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), height):
        part = slice(start, start + height)
        found = candidates[part]
        near = lift(rows.take(np.maximum(found, 0).ravel()), metric)
        asked = np.repeat(lift(queries[part], metric), found.shape[1], axis=0)
        out[part] = pair_distances(asked, near, metric).reshape(found.shape)
    return np.where(candidates >= 0, out, np.nan)
