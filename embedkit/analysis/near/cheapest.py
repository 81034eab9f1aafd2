"""Nearly all neighbors, by the cheapest way, with a measured recall."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from embedkit.analysis.frame import labelled, provenance
from embedkit.analysis.near.begin import begin
from embedkit.analysis.near.found import Aim, Found
from embedkit.analysis.near.graph_search import by_graph
from embedkit.analysis.near.ivf_search import tune_lists
from embedkit.analysis.near.look import tiles_ahead
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.spool import Spool, spool
from embedkit.planning.near import NearPlan, Way


def approximate(
    x: xr.DataArray,
    *,
    queries: xr.DataArray | None = None,
    n_neighbors: int,
    metric: Metric,
    recall: float,
    way: NearPlan | Way = "lists",
    scratch: str | Path | None = None,
    seed: int = 0,
) -> xr.Dataset | None:
    """Find near neighbors of every image with a measured recall.

    Rows are sorted into inverted lists around centroids, and how many of them a query has
    to search is tuned on sampled rows with exact truth. Where a few coarse lists of few
    rows, or else the tuned ones, say that this takes longer than a graph of neighbors of
    neighbors, that one is grown. The recall is measured on other rows.

    Parameters
    ----------
    x : DataArray, dims (image, feature), floating
        One row per image, in memory or lazy.
    queries : DataArray, dims (image, feature), floating, optional
        Rows to search for; by default those of `x`, each excluded from its own answer.
    n_neighbors : int
        Neighbors per image.
    metric : {"euclidean", "cosine", "inner_product"}
    recall : float
        Share of the exact neighbors to find, below 1.
    way : NearPlan or {"lists", "graph"}, default "lists"
        What to do, or a plan that decides it by what each way takes.
    scratch : str or Path, optional
        A folder that all workers reach, with room for the rows. By default a temporary
        folder of this machine.
    seed : int, default 0
        Of the samples.

    Returns
    -------
    Dataset, dims (image, neighbor), or None
        ``indices`` int64 and ``distances`` float32 as of the exact search, and
        ``certified`` bool (image): no row that was not looked at can be nearer.
        Attributes: ``recall`` with its 95 % interval ``recall_low`` to ``recall_high``
        over ``n_truth`` rows, and ``nprobe`` of ``nlist`` lists, or ``graph_width``.
        None where the plan says that an exact search takes less.

    Raises
    ------
    RecallNotReached
        When the lower end of the interval stays below `recall`.

    References
    ----------
    Jégou, Douze, Schmid (2011), Product quantization for nearest neighbor search.
    Dong, Moses, Li (2011), Efficient k-nearest neighbor graph construction for generic
    similarity measures.
    Clopper, Pearson (1934), The use of confidence or fiducial limits.
    """
    if scratch is not None:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="embedkit-", dir=scratch) as place:
        folder = Path(place)
        found = _found(
            spool(x, folder / "rows"),
            queries,
            Aim(k=n_neighbors, metric=metric, recall=recall, seed=seed),
            way=way,
            folder=folder,
        )
    if found is None:
        return None
    attrs = provenance(
        x,
        n_neighbors=n_neighbors,
        metric=metric,
        exact=False,
        recall_asked=recall,
        **found.recall.attrs(),
        **found.how,
        seed=seed,
    )
    return _as_dataset(x if queries is None else queries, found, attrs)


def _found(
    database: Spool,
    queries: xr.DataArray | None,
    aim: Aim,
    *,
    way: NearPlan | Way,
    folder: Path,
) -> Found | None:
    begun = None
    if way == "graph" or (isinstance(way, NearPlan) and way.graph):
        begun = begin(database, aim, folder=folder)
    chosen: Way = "lists" if isinstance(way, NearPlan) else way
    if isinstance(way, NearPlan) and begun is not None:
        chosen = way.ahead(tiles_ahead(database, begun, aim))
    if chosen == "lists":
        tuned = tune_lists(database, queries, aim, begun=begun, folder=folder)
        if isinstance(way, NearPlan):
            chosen = way.cheapest(tuned.tiles)
        if chosen == "lists":
            return tuned.found(aim.recall)
    if chosen == "exact" or begun is None:
        return None
    threads = way.threads if isinstance(way, NearPlan) else 1
    return by_graph(database, aim, begun=begun, threads=threads, folder=folder)


def _as_dataset(
    like: xr.DataArray, found: Found, attrs: dict[str, object]
) -> xr.Dataset:
    with np.errstate(over="ignore"):  # beyond 3e38 a float32 distance is infinite
        distances = found.near.astype(np.float32)
    return labelled(
        like,
        {
            "indices": (("image", "neighbor"), found.ids),
            "distances": (("image", "neighbor"), distances),
            "certified": (("image",), found.certified),
        },
        attrs=attrs,
    )
