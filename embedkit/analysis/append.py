"""New rows in a stored neighbor graph, exactly, without searching the old pairs again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.frame import (
    check_rows,
    check_same_images,
    check_variables,
    labelled,
    provenance,
)
from embedkit.analysis.ivf_space import Space, parts
from embedkit.analysis.ivf_survey import survey
from embedkit.analysis.merge import Float64s, Ids, merge_nearest, nothing_found
from embedkit.analysis.pair_distances import Floats, Metric
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool, spool
from embedkit.analysis.subset_search import ranked, search_subset
from embedkit.analysis.truth import true_neighbors
from embedkit.errors import InputError

_NEW = 4096  # new rows searched for together
_TASK = 2**23  # entries of old rows per task


def append_neighbors(
    nn: xr.Dataset,
    x: xr.DataArray,
    *,
    new: xr.DataArray,
    scratch: str | Path | None = None,
) -> xr.Dataset:
    """Add images to exact neighbors: the answer of a new search, for less work.

    The new rows are searched for among all rows, and the old rows among the new ones
    only: for N old and m new rows m times N + m pairs twice, instead of their square.

    Parameters
    ----------
    nn : Dataset
        What `neighbors` returned for `x`, exactly.
    x : DataArray, dims (image, feature), floating
        The old rows, in memory or lazy.
    new : DataArray, dims (image, feature), floating
        The new rows, under ids that `x` does not have.
    scratch : str or Path, optional
        A folder that all workers reach, with room for all rows. By default a temporary
        folder of this machine.

    Returns
    -------
    Dataset, dims (image, neighbor)
        ``indices`` and ``distances`` byte for byte as `neighbors` finds them for the old
        rows followed by the new ones, in memory. ``certified`` bool (image) is False
        where an image has no neighbors.

    Raises
    ------
    InputError
        When `nn` is not exact or not of `x`, as its ids or its distances tell, or
        features or ids do not fit.

    See Also
    --------
    embedkit.neighbors : The search that this goes on with.
    """
    k, both = _checked(nn, x, new)
    metric = nn.attrs["metric"]
    first = x.sizes["image"]
    with tempfile.TemporaryDirectory(prefix="embedkit-", dir=_made(scratch)) as place:
        folder = Path(place)
        rows = spool(both, folder / "rows")
        usable, _, space = survey(rows, metric=metric)
        stored = np.asarray(nn["indices"].values)
        lonely = np.flatnonzero(usable[:first] & (stored < 0).all(axis=1))
        if _has_neighbors(lonely[:1], np.flatnonzero(usable[:first])[:2], rows, metric):
            raise _stale(both, int(lonely[0]))
        np.save(folder / "stored.npy", stored)
        np.save(folder / "stored_near.npy", np.asarray(nn["distances"].values))
        near, ids = nothing_found(rows.shape[0], k)
        for start in range(first, rows.shape[0], _NEW):
            stop = min(start + _NEW, rows.shape[0])
            near[start:stop], ids[start:stop] = true_neighbors(
                rows.block(start, stop),
                rows,
                query_ids=np.arange(start, stop),
                k=k,
                space=space,
                folder=folder,
            )
        tasks = [
            (rows, space, folder, part.start, part.stop, first)
            for part in parts(first, rows.shape[1], entries=_TASK)
        ]
        for task, (found, stale) in run_shared(
            _updated, tasks, name="append neighbors"
        ):
            part = slice(task[3], task[4])
            near[part], ids[part] = found
            if stale is not None:
                raise _stale(both, stale)
    with np.errstate(over="ignore"):  # beyond 3e38 a float32 distance is infinite
        distances = near.astype(np.float32)
    dims = ("image", "neighbor")
    return labelled(
        both,
        {
            "indices": (dims, ids),
            "distances": (dims, distances),
            "certified": (("image",), (ids >= 0).any(axis=1)),
        },
        attrs=provenance(nn, n_appended=new.sizes["image"]),
    )


def _updated(
    rows: Spool, space: Space, folder: Path, start: int, stop: int, first: int
) -> tuple[tuple[Float64s, Ids], int | None]:
    """Join the stored neighbors of old rows with their nearest new rows, a task.

    Also returns a row whose stored distances are not those of the rows, where there is
    one: then `nn` is of other rows.
    """
    old = rows.block(start, stop)
    stored = np.array(np.load(folder / "stored.npy", mmap_mode="r")[start:stop])
    stored[~np.isfinite(old).all(axis=1)] = -1
    k = stored.shape[1]
    best = ranked(old, _taker(rows, stored), stored, k=k, metric=space.metric)
    known = np.load(folder / "stored_near.npy", mmap_mode="r")[start:stop]
    other = _other_distances(best[0], np.asarray(known))
    for at in range(first, rows.shape[0], _NEW):
        near, places = search_subset(
            old,
            rows.block(at, min(at + _NEW, rows.shape[0])),
            query_places=np.full(len(old), -1),
            k=k,
            space=space,
        )
        best = merge_nearest(best, (near, np.where(places >= 0, places + at, -1)), k=k)
    return best, start + int(other.argmax()) if other.any() else None


def _has_neighbors(row: Ids, others: Ids, rows: Spool, metric: Metric) -> bool:
    """Tell whether a row, if any, has a distance to one of some others."""
    others = np.setdiff1d(others, row)
    if not len(row) or not len(others):
        return False
    near, _ = ranked(
        rows.take(row), _taker(rows, others), others[None], k=1, metric=metric
    )
    return bool(np.isfinite(near[0, 0]))


def _other_distances(
    measured: Float64s, stored: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.bool_]:
    """Tell which rows (n, k) of stored distances cannot be those that were measured."""
    with np.errstate(over="ignore"):  # beyond 3e38 a float32 distance is infinite
        now = measured.astype(np.float32)
    scale = np.abs(now[np.isfinite(now)]).max(initial=0)
    same = np.isclose(now, stored, rtol=1e-6, atol=1e-12 * scale, equal_nan=True)
    return np.asarray(~same.all(axis=1))


def _stale(both: xr.DataArray, row: int) -> InputError:
    name = str(both["image"].values[row]) if "image" in both.coords else str(row)
    return InputError(
        f"append_neighbors got neighbors whose distances are not those of the old rows "
        f"(image {name!r} is the first found): rows have changed since they were found; "
        "run neighbors again."
    )


def _taker(rows: Spool, wanted: Ids) -> Callable[[Ids], Floats]:
    """Return a function that takes rows by number, each read once."""
    distinct = np.unique(np.maximum(wanted, 0))
    read = rows.take(distinct)
    return lambda ids: read[np.searchsorted(distinct, ids)]


def _made(scratch: str | Path | None) -> Path | None:
    if scratch is None:
        return None
    Path(scratch).mkdir(parents=True, exist_ok=True)
    return Path(scratch)


def _checked(
    nn: xr.Dataset, x: xr.DataArray, new: xr.DataArray
) -> tuple[int, xr.DataArray]:
    """Return how many neighbors there are, and all rows."""
    check_variables(nn, asked="append_neighbors", names=["indices", "distances"])
    for rows in (x, new):
        check_rows(rows, asked="append_neighbors", dims=("feature", "axis"))
    check_same_images(nn, x, asked="append_neighbors")
    if nn.sizes["image"] != x.sizes["image"]:
        raise InputError(
            f"append_neighbors got neighbors of {nn.sizes['image']} images and "
            f"{x.sizes['image']} old rows; pass the rows that the neighbors are of."
        )
    if not nn.attrs.get("exact") or "metric" not in nn.attrs:
        raise InputError(
            "append_neighbors needs exact neighbors with their metric in attrs, and got "
            f"exact={nn.attrs.get('exact')}; run neighbors with recall=1.0."
        )
    if x.shape[1] != new.shape[1] or x.dims != new.dims or x.dtype != new.dtype:
        raise InputError(
            f"append_neighbors got old rows {x.dims} of {x.shape[1]} features, {x.dtype}, "
            f"and new ones {new.dims} of {new.shape[1]}, {new.dtype}; give rows of one "
            "layer."
        )
    _check_distinct(x, new)
    both = xr.concat(
        [x, new], dim="image", join="override", coords="minimal", compat="override"
    )
    return int(nn.sizes["neighbor"]), both.rename(x.name)


def _check_distinct(x: xr.DataArray, new: xr.DataArray) -> None:
    if "image" not in x.coords or "image" not in new.coords:
        return
    twice = np.intersect1d(x["image"].values, new["image"].values)
    if len(twice):
        raise InputError(
            f"append_neighbors got {str(twice[0])!r} among the old rows and the new ones; "
            "give every image once."
        )
