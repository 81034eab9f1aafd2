"""`duplicates`: images that are one picture, which to keep, and which leak."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute

from embedkit.analysis.duplicate_groups import groups_within, keep_one, leaking
from embedkit.analysis.frame import (
    check_same_images,
    check_variables,
    labelled,
    provenance,
)
from embedkit.analysis.planned import planned
from embedkit.errors import InputError, did_you_mean
from embedkit.networks.network import Network
from embedkit.planning.analysis_models import DUPLICATES
from embedkit.planning.analysis_plan import AnalysisPlan
from embedkit.retrieval.control import DuplicateThreshold, duplicate_threshold
from embedkit.store import arrays, blocks
from embedkit.store.store import Store

if TYPE_CHECKING:
    from torch import nn

PerImage: TypeAlias = str | xr.DataArray | npt.ArrayLike


@overload
def duplicates(
    nn: xr.Dataset,
    *,
    threshold: float | Literal["auto"] | DuplicateThreshold,
    store: Store | None = None,
    exact: npt.ArrayLike | None = None,
    split: PerImage | None = None,
    prefer: PerImage | None = None,
    network: Network | str | nn.Module | None = None,
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> xr.Dataset: ...


@overload
def duplicates(
    nn: xr.Dataset,
    *,
    threshold: float | Literal["auto"] | DuplicateThreshold,
    store: Store | None = None,
    exact: npt.ArrayLike | None = None,
    split: PerImage | None = None,
    prefer: PerImage | None = None,
    network: Network | str | nn.Module | None = None,
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> AnalysisPlan: ...


def duplicates(  # noqa: PLR0913 - one for each choice
    nn: xr.Dataset,
    *,
    threshold: float | Literal["auto"] | DuplicateThreshold,
    store: Store | None = None,
    exact: npt.ArrayLike | None = None,
    split: PerImage | None = None,
    prefer: PerImage | None = None,
    network: Network | str | nn.Module | None = None,
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> xr.Dataset | AnalysisPlan:
    """Group the images that are one picture.

    Two images are duplicates where their distance is at most `threshold`, or where their
    files have the same bytes; and so are all images that a chain of these connects.

    Parameters
    ----------
    nn : Dataset, dims (image, neighbor)
        What `neighbors` returned, by Euclidean distance or cosine; computed here.
    threshold : float, "auto", or what `duplicate_threshold` returned
        The largest distance of two duplicates, compared in float32. ``"auto"`` calls
        `duplicate_threshold` for the layer and metric of `nn`, which needs `store`; where
        the pixels of the store were in memory, call that with its ``images=``.
    store : Store, optional
        The store that `nn` is of. It knows which files have the same bytes, also of those
        that cannot be decoded.
    exact : array_like of uint64, shape (N,), optional
        Numbers that are equal where images are, 0 for unknown, instead of the store's.
    split : str, DataArray or array_like, shape (N,), optional
        A coordinate of `nn` by name, or one value per image: which part of the data the
        image is in, missing ones in none.
    prefer : str, DataArray or array_like of numbers, shape (N,), optional
        The image with the largest value is kept, for instance ``"width"``.
    network : Network, str or nn.Module, optional
        For ``"auto"``, as for `duplicate_threshold`.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    Dataset, dims (image)
        ``group`` int64: 0 is the largest; equally large ones in the order of their first
        image; -1 for images without a duplicate. ``keep`` bool: one image of each group,
        and all without one, so that ``x[dup["keep"]]`` has each picture once; it is the
        first readable one, or the first with the largest `prefer`. ``distance`` float32
        to the nearest other member, NaN for none. With `split` also ``leak`` bool: images
        whose group reaches another split.

        Attributes: ``threshold``, ``n_groups``, ``n_duplicates`` (images not kept), and
        ``n_saturated``, the images whose whole list of neighbors is within the threshold:
        where it is not 0, more neighbors may connect more images. ``control``, where the
        threshold was measured, is what `DuplicateThreshold` holds; ``leaks`` lists pairs
        of splits with the groups that reach both and the images of those in them. With
        `plan_only` an `AnalysisPlan` instead: all lists are held at once.

    Raises
    ------
    InputError
        For a threshold that is no distance, neighbors by inner product, arrays of another
        length, an unknown coordinate, or ``"auto"`` without a store.
    PlanError
        When it cannot be done within `memory_limit`, before anything is computed.

    Examples
    --------
    ::

        nn = ek.neighbors(store["fc"], n_neighbors=10, metric="cosine")
        dup = ek.duplicates(nn, threshold="auto", store=store, split="split")
        once = store["fc"][dup["keep"].values]
    """
    check_variables(nn, asked="duplicates", names=("indices", "distances"))
    metric = nn.attrs.get("metric")
    if metric == "inner_product":
        raise InputError(
            "duplicates got neighbors by inner product, which is no distance; find them "
            "with metric='euclidean' or 'cosine'"
        )
    n_images, width = nn["indices"].shape
    plan = planned(
        DUPLICATES, n_images=n_images, width=width, memory_limit=memory_limit
    )
    if plan_only:
        return plan
    measured = _measured(nn, threshold, store=store, network=network)
    limit = _checked(threshold if measured is None else measured.threshold)
    same = _exact(nn, exact, store=store)
    parts = None if split is None else _per_image(nn, split, name="split")
    wanted = None if prefer is None else _numbers(_per_image(nn, prefer, name="prefer"))
    indices, distances = compute(nn["indices"].data, nn["distances"].data)
    found = groups_within(indices, distances, threshold=limit, exact=same)
    keep = keep_one(found.group, usable=(indices >= 0).any(axis=1), prefer=wanted)
    variables: dict[str, Any] = {
        "group": found.group,
        "keep": keep,
        "distance": found.nearest,
    }
    about: dict[str, Any] = {
        "threshold": limit,
        "n_groups": int(found.group.max(initial=-1)) + 1,
        "n_duplicates": int((~keep).sum()),
        "n_saturated": found.n_saturated,
    }
    if measured is not None:
        about["control"] = measured.to_json()
    if parts is not None:
        variables["leak"], about["leaks"] = leaking(found.group, parts)
    return labelled(
        nn,
        {name: (("image",), values) for name, values in variables.items()},
        attrs=provenance(nn, **about),
    )


def _measured(
    nn: xr.Dataset, threshold: Any, *, store: Store | None, network: Any
) -> DuplicateThreshold | None:
    """Return the measured threshold that was given or asked for; None for a number."""
    layer, metric = _layer_of(nn), nn.attrs.get("metric")
    if isinstance(threshold, DuplicateThreshold):
        of = (threshold.layer, threshold.metric)
        if None not in (layer, metric) and of != (layer, metric):
            raise InputError(
                f"duplicates got a threshold for {of[1]} distances in {of[0]} and "
                f"neighbors by {metric} in {layer}; measure it there with "
                "duplicate_threshold(store, layer=…, metric=…)"
            )
        return threshold
    if not isinstance(threshold, str):
        return None
    if threshold != "auto":
        raise InputError(
            f"duplicates got threshold={threshold!r}; give a distance or 'auto'"
        )
    if store is None or layer is None or metric not in ("euclidean", "cosine"):
        raise InputError(
            f"duplicates got threshold='auto' for {metric} neighbors in layer {layer} and "
            f"store={store!r}; pass what neighbors returned for a layer of a store, and "
            "the store, or give a distance"
        )
    return duplicate_threshold(store, layer=layer, metric=metric, network=network)


def _layer_of(nn: xr.Dataset) -> str | None:
    """Return the layer that neighbors are of, where they know it."""
    name = nn.attrs.get("layer", nn.attrs.get("source"))
    return None if name is None else str(name)


def _checked(threshold: Any) -> float:
    """Return a threshold as a number that distances can be compared with."""
    number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold < math.inf:
        raise InputError(
            f"duplicates got threshold={threshold!r}; give a distance of 0 or more, 'auto', "
            "or what duplicate_threshold returned"
        )
    return float(threshold)


def _exact(
    nn: xr.Dataset, exact: npt.ArrayLike | None, *, store: Store | None
) -> npt.NDArray[np.uint64] | None:
    """Return what is equal for images of the same bytes."""
    if exact is not None:
        found = np.asarray(exact)
        if found.shape != (nn.sizes["image"],) or found.dtype.kind not in "iu":
            raise InputError(
                f"duplicates needs one whole number in exact for each of "
                f"{nn.sizes['image']} images and got {found.dtype} of shape {found.shape}"
            )
        return found.astype(np.uint64)
    if store is None:
        return None
    if not isinstance(store, Store):
        raise InputError(
            f"duplicates got store of type {type(store).__name__}; give what open_store "
            "returned."
        )
    images = store.schema.n_images
    if images != nn.sizes["image"]:
        raise InputError(
            f"duplicates got neighbors of {nn.sizes['image']} images and a store of "
            f"{images}; give the store that they are of, or exact="
        )
    check_same_images(nn, store.columns()["image"], asked="duplicates")
    layer = _layer_of(nn)
    known = layer is not None and layer in list(store)
    one = store.schema.pass_of(str(layer)) if known else store.schema.passes[0]
    return arrays.read(store.files, blocks.content_array(one))[:images]


def _per_image(nn: xr.Dataset, given: PerImage, *, name: str) -> npt.NDArray[Any]:
    """Return one value per image, from a coordinate or as given."""
    if isinstance(given, str):
        known = [str(key) for key, each in nn.coords.items() if each.dims == ("image",)]
        if given not in known:
            raise InputError(
                f"duplicates found no column {given!r} for {name}. "
                f"{did_you_mean(given, known)}"
            )
        return np.asarray(nn.coords[given].values)
    check_same_images(nn, given, asked="duplicates")
    values = np.asarray(given)
    if values.shape != (nn.sizes["image"],):
        raise InputError(
            f"duplicates got {name} of shape {values.shape} for {nn.sizes['image']} "
            "images; give one value for each"
        )
    return values


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"duplicates got prefer of {values.dtype}; give numbers, such as a width"
        )
    return values.astype(np.float64)
