"""`search`: the stored images nearest to an image, a file or a vector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from embedkit.analysis.frame import check_rows, whole
from embedkit.analysis.pair_distances import Metric
from embedkit.errors import InputError, did_you_mean
from embedkit.networks.network import Network
from embedkit.retrieval.columns import ID, check_columns, column_names, values_at
from embedkit.retrieval.embed import embedder_of
from embedkit.retrieval.indexed import Fitted, Given, fitted
from embedkit.retrieval.query import Queries, queries_of
from embedkit.retrieval.scan import nearest
from embedkit.retrieval.where import Where, mask_of
from embedkit.store.store import Store, open_store

if TYPE_CHECKING:
    from torch import nn

_USUAL = ("label", "uri")


def search(  # noqa: PLR0913 - one for each choice
    store: Store | str | os.PathLike[str],
    query: Any,
    *,
    layer: str | None = None,
    n_neighbors: int = 10,
    where: Where | None = None,
    metric: Metric | None = None,
    index: Given | None = None,
    columns: Sequence[str] | None = None,
    network: Network | str | nn.Module | None = None,
) -> pd.DataFrame:
    """Find the stored images nearest to an image: exactly, or as an index finds them.

    Parameters
    ----------
    store : Store or path
        Where to search. Images that are not extracted yet are not found.
    query : str, path, image, array, or a list of these
        ===================== ========================================================
        query                 what is searched for
        ===================== ========================================================
        id of a stored image  its stored row; the image itself is not among its hits
        path of an image      what the store's network gives for it: same weights, same
        file, URL             transform, layer and pool, rounded to the layer's dtype.
                              An id goes before a path of the same name
        PIL image, uint8      the same for these pixels
        array (H, W, 3)
        vector (F,)           itself, as in a row of ``store[layer]``; (Q, F) for Q
        ===================== ========================================================
    layer : str, optional
        A layer of the store with one vector per image. By default the last.
    n_neighbors : int, default 10
        Hits per query, at most: fewer where fewer images can be found.
    where : str, array_like of bool (N,), or callable, optional
        Which images are searched; the hits are the nearest of these. A condition on the
        columns of ``store.images``, as pandas reads it: ``"label == 'dog' and width >
        100"``, with backticks around names that are no Python names, and ``image`` for
        the id. Or a mask, or a function from the table to a mask.
    metric : {"euclidean", "cosine", "inner_product"}, optional
        As for `embedkit.neighbors`. By default ``"euclidean"``, or that of the `index`.
    index : Index, path or "auto", optional
        Answers instead of a look at all rows: what `embedkit.build_index` made of this
        layer of this store, the folder where it was saved, or ``"auto"`` for the one
        beside the store, ``photos.index/<layer>`` beside ``photos.zarr``. Under a `where`
        it is checked and not asked: the images that pass are searched exactly.
    columns : sequence of str, optional
        Columns of the image table to add; by default ``label`` and ``uri``, where there
        are any.
    network : Network, str or nn.Module, optional
        The network that the store was made with, for images. By default the one that the
        store names is loaded again; a module of your own has to be given.

    Returns
    -------
    DataFrame
        One row per hit, indexed by ``rank`` from 1: ``query`` (only for a list: the id or
        path, or its kind and number), ``id``, ``distance`` (float64, ascending; equal ones
        in the order of the store), then `columns`. Its ``attrs`` say ``layer``,
        ``metric`` and ``searched``, the number of images that passed `where`; with an
        `index` also ``index``, its kind, and ``recall``, ``recall_low``, ``recall_high``
        and ``n_truth`` as measured when it was built, and ``searched`` is how many images
        it holds. ``index`` is None where a `where` was searched exactly.

    Raises
    ------
    InputError
        For what is no query, layer of maps, condition or metric, or a network that is
        needed and not known; for an index of another metric, layer or images, of rows
        that have changed since, or one that finds fewer images than were asked for.
    StoreError
        When no index was saved there.
    SourceError
        When an image that is searched for cannot be read.
    NotInStore
        When there is no such layer, with the nearest names.
    IdentityMismatch
        When the network is not the one that the store was made with.

    Notes
    -----
    Chunks of the layer are searched one by one, as Dask tasks of one chunk's memory each,
    on the active client or else on Dask's configured scheduler. The result does not
    depend on the chunks.

    An index measures the distances of what it finds in float64 and gives them in float32.
    That it belongs to the layer is told by features, ids, status and the content that the
    store states; where that has changed since the index was built, because images were
    added or extracted anew, all rows are compared once, and an index of which any has
    changed is refused. A path is opened, every byte of it checked, at each call: for many
    searches give what `embedkit.open_index` returns.

    See Also
    --------
    embedkit.neighbors : The neighbors of every stored image.
    embedkit.build_index : An index with a recall that is measured.
    """
    opened = store if isinstance(store, Store) else open_store(store)
    x = opened[list(opened)[-1] if layer is None else layer]
    check_rows(x, asked="search", dims=("feature",))
    n_neighbors = _check_numbers(n_neighbors, metric)
    known = None if index is None else fitted(opened, x, index)
    metric = _metric(metric, known)
    shown = _columns(x, columns)
    mask = mask_of(x, where)
    name = str(x.name)
    asked = queries_of(
        opened, x, query, embedder=lambda: embedder_of(opened, name, network=network)
    )
    about: dict[Any, Any] = {"layer": name, "metric": metric}
    if known is not None and mask is None:
        distances, rows = known.nearest(asked, k=n_neighbors)
        about |= {"searched": len(known.index), **known.about()}
    else:
        distances, rows = nearest(
            x, asked.vectors, own=asked.rows, k=n_neighbors, metric=metric, mask=mask
        )
        about["searched"] = x.sizes["image"] if mask is None else int(mask.sum())
        about |= {} if known is None else {"index": None}
    found = _table(x, asked, distances=distances, rows=rows, columns=shown)
    found.attrs = about
    return found


def _check_numbers(n_neighbors: Any, metric: str | None) -> int:
    count = whole(n_neighbors, asked="search", name="n_neighbors")
    if count < 1:
        raise InputError(f"search got n_neighbors={count}; choose 1 or more.")
    if metric is not None and metric not in get_args(Metric):
        nearest_names = did_you_mean(str(metric), get_args(Metric))
        raise InputError(f"search got metric={metric!r}. {nearest_names}")
    return count


def _metric(metric: Metric | None, known: Fitted | None) -> Metric:
    """Return the metric asked for, which has to be that of the index."""
    if known is None:
        return metric or "euclidean"
    if metric is not None and metric != known.index.metric:
        raise InputError(
            f"search got metric={metric!r} and {known.name} orders by "
            f"{known.index.metric!r}; leave the metric out, or build an index with it."
        )
    return known.index.metric


def _columns(x: xr.DataArray, columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        known = column_names(x)
        return [name for name in _USUAL if name in known]
    asked = [columns] if isinstance(columns, str) else list(columns)
    check_columns(x, asked, asked="search")
    return asked


def _table(
    x: xr.DataArray,
    asked: Queries,
    *,
    distances: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    columns: Sequence[str],
) -> pd.DataFrame:
    """Lay the hits of all queries out below each other."""
    query, place = np.nonzero(rows >= 0)  # by query, then by rank
    hits = rows[query, place]
    found: dict[str, Any] = {}
    if asked.several:
        found["query"] = np.array(asked.names, dtype=object)[query]
    found["id"] = values_at(x, ID, hits)
    found["distance"] = distances[query, place]
    found |= {name: values_at(x, name, hits) for name in columns if name not in found}
    return pd.DataFrame(found, index=pd.Index(place + 1, name="rank"))
