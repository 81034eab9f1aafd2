"""What is asked of inverted lists: queries, the list of each, which have an answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.merge import Ids
from embedkit.analysis.near.ivf_lists import Lists, kinds_of
from embedkit.analysis.spool import Spool, spool


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The rows to search for: their list, and which of them have an answer or need none.

    Attributes
    ----------
    rows : Spool
        Shape (Q, F).
    itself : bool
        Whether they are the rows of the database, each excluded from its own answer.
    of_query : ndarray of int64, shape (Q,)
        The nearest list of each, -1 for none.
    usable : ndarray of int64
        Those that are finite, ascending.
    alike : ndarray of bool, shape (Q,)
        Those at one distance of everything.
    """

    rows: Spool
    itself: bool
    of_query: Ids
    usable: Ids
    alike: npt.NDArray[np.bool_]


def asked_of(
    database: Spool, queries: xr.DataArray | None, *, lists: Lists, folder: Path
) -> Asked:
    """Find the list of each query; the rows themselves know it, except products.

    Parameters
    ----------
    database : Spool
        Rows to search among, shape (N, F).
    queries : DataArray, dims (image, feature), optional
        Rows to search for; by default those of the database.
    lists : Lists
        Of the database.
    folder : Path
        Where the queries are written.

    Returns
    -------
    Asked
    """
    metric = lists.space.metric
    rows = database if queries is None else spool(queries, folder / "queries")
    itself = queries is None
    if itself and metric != "inner_product":
        alike = np.zeros(database.shape[0], bool)
        alike[lists.zeros] = True
        of_query = lists.of_row.astype(np.int64)
        return Asked(rows, itself, of_query, lists.usable, alike)
    of_query, usable, null = kinds_of(rows, lists.space, folder=folder)
    alike = null & usable & (metric != "euclidean")
    return Asked(rows, itself, of_query, np.flatnonzero(usable), alike)
