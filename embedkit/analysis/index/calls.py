"""Search indexes: nearest images of any vector, with a recall that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

import psutil
import xarray as xr

from embedkit.analysis.frame import check_rows, whole
from embedkit.analysis.index.build import make
from embedkit.analysis.index.change import Home
from embedkit.analysis.index.choice import choose
from embedkit.analysis.index.files import load, place_of
from embedkit.analysis.index.given import (
    asked_bytes,
    check_build,
    check_options,
    content_of,
    ids_of,
)
from embedkit.analysis.index.object import Index
from embedkit.analysis.index.plan import planned
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.spool import spool
from embedkit.planning.index import IndexPlan


@overload
def build_index(
    x: xr.DataArray,
    *,
    recall: float = 0.95,
    n_neighbors: int = 10,
    memory_limit: int | str | None = None,
    metric: Metric = "euclidean",
    sharded: Literal["auto"] | bool = "auto",
    seed: int = 0,
    plan_only: Literal[False] = False,
) -> Index: ...


@overload
def build_index(
    x: xr.DataArray,
    *,
    recall: float = 0.95,
    n_neighbors: int = 10,
    memory_limit: int | str | None = None,
    metric: Metric = "euclidean",
    sharded: Literal["auto"] | bool = "auto",
    seed: int = 0,
    plan_only: Literal[True],
) -> IndexPlan: ...


def build_index(
    x: xr.DataArray,
    *,
    recall: float = 0.95,
    n_neighbors: int = 10,
    memory_limit: int | str | None = None,
    metric: Metric = "euclidean",
    sharded: Literal["auto"] | bool = "auto",
    seed: int = 0,
    plan_only: bool = False,
) -> Index | IndexPlan:
    """Build a search index that finds at least a given share of the nearest images.

    The kind follows from the number of rows and features and the memory: all rows
    compared exactly up to a few thousand; a navigable graph where it fits; inverted lists
    of whole rows, of bytes, or of product codes where memory is short; lists on disk where
    nothing fits. How hard a search tries is tuned against exact truth on rows that are
    left out of the index until then, and the recall is measured on more of them; once with
    fewer rows in the index and once with more, which tells what it is with all of them.
    Graphs of 128 features or more hold bytes, where these are fine enough; distances are
    measured from the rows.

    Parameters
    ----------
    x : DataArray, dims (image, feature), floating
        One row per image, in memory or lazy. The rows are copied to a temporary file, from
        which all final distances are measured in float64. A row with a NaN or an infinity
        is never found.
    recall : float, default 0.95
        Share of the exact neighbors to find, above 0 and below 1. Equal distances count as
        equally good.
    n_neighbors : int, default 10
        How many neighbors the recall is about. Searches may ask for another number.
    memory_limit : int or str, optional
        Bytes that the index may take, like ``"2 GiB"``; by default half of this machine's
        memory.
    metric : {"euclidean", "cosine", "inner_product"}, default "euclidean"
        As in `neighbors`.
    sharded : {"auto"} or bool, default "auto"
        Whether the index lies in several files that are made by tasks and searched on
        disk: where nothing else fits, always, or never.
    seed : int, default 0
        Of all samples.
    plan_only : bool, default False
        Return the plan and compute nothing.

    Returns
    -------
    Index
        With `plan_only` an `IndexPlan`: kind, bytes, rows per task, threads, memory.

    Raises
    ------
    InputError
        For wrong dimensions, a recall outside of (0, 1), or ids that repeat.
    PlanError
        When nothing fits into `memory_limit` and `sharded` is False.
    RecallNotReached
        When the lower end of the interval stays below `recall`.

    See Also
    --------
    embedkit.neighbors : Neighbors of every image, exact by default.
    embedkit.open_index : An index that was saved.

    Notes
    -----
    Lists are the same for the same rows and seed. A graph (``hnsw``) is not: FAISS adds
    rows to it with all threads, in whatever order they get to it, so two builds may
    differ in links, and with them in single answers. With ``OMP_NUM_THREADS=1`` the order
    is fixed, and building takes up to as many times longer as there are cores.

    References
    ----------
    Malkov, Yashunin (2018), Efficient and robust approximate nearest neighbor search
    using hierarchical navigable small world graphs.
    Jégou, Douze, Schmid (2011), Product quantization for nearest neighbor search.
    Clopper, Pearson (1934), The use of confidence or fiducial limits.
    """
    check_rows(x, asked="build_index", dims=("feature", "axis"))
    k = whole(n_neighbors, asked="build_index", name="n_neighbors")
    check_build(recall, k, metric=metric, n_images=x.sizes["image"])
    check_options(sharded=sharded, seed=seed)
    if memory_limit is None:
        memory_limit = psutil.virtual_memory().total // 2
    limit, shape = asked_bytes(memory_limit), (x.shape[0], x.shape[1])
    choice = choose(*shape, memory_limit=limit, sharded=sharded)
    if plan_only:
        size = x.dtype.itemsize
        return planned(choice, shape, itemsize=size, k=k, recall=recall)
    images = ids_of(x, first=0)
    home = Home()
    made = make(
        spool(x, home.path),
        choice,
        metric=metric,
        k=k,
        recall=float(recall),
        seed=seed,
        folder=home.path,
    )
    return Index(
        made,
        images=images,
        n_neighbors=k,
        home=home,
        content=content_of(x),
    )


def open_index(folder: str | Path) -> Index:
    """Open a search index that was saved.

    Parameters
    ----------
    folder : str or Path
        Where `Index.save` put it. It is not changed: what is added later stays in memory
        or a temporary folder until it is saved.

    Returns
    -------
    Index

    Raises
    ------
    InputError
        For a URL.
    StoreError
        When there is no index, or one of a newer format.
    CorruptStore
        When a file is not what was saved.
    """
    saved = load(place_of(folder, asked="open_index"))
    home = Home()
    return Index(
        saved.made,
        images=saved.images,
        n_neighbors=saved.n_neighbors,
        home=home,
        template=saved.template,
        content=saved.content,
    )
