"""What a search index is asked for and given: ids, vectors and rows, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.utils import parse_bytes

from embedkit.analysis.frame import check_rows, whole
from embedkit.analysis.ivf_space import Floats, Space
from embedkit.analysis.merge import Ids
from embedkit.errors import InputError, did_you_mean

Queries: TypeAlias = "str | Sequence[str] | Floats | xr.DataArray"


def asked_ids(q: Queries) -> list[str] | None:
    """Return the ids of a question, None where it has vectors.

    Parameters
    ----------
    q : str, sequence of str, ndarray or DataArray

    Returns
    -------
    list of str or None
    """
    if isinstance(q, xr.DataArray):
        return None
    given: Any = [q] if isinstance(q, str) else q
    if not isinstance(given, Collection):
        return None
    if isinstance(given, list | tuple) and not given:
        raise InputError(
            "search got an empty list of queries; give vectors, or ids of images."
        )
    if len(given) and all(isinstance(each, str) for each in given):
        return [str(each) for each in given]
    return None


def asked_vectors(q: Queries, *, features: int) -> tuple[Floats, Any]:
    """Return the vectors of a question, and the names that they have.

    Parameters
    ----------
    q : ndarray, shape (F,) or (n, F), or DataArray, dims (image, feature)
    features : int
        F of the index.

    Returns
    -------
    rows : ndarray, shape (n, F), floating
    names : ndarray of str, shape (n,), or None

    Raises
    ------
    InputError
        For what is no array of numbers, or has another number of features.
    """
    if isinstance(q, xr.DataArray):
        check_rows(q, asked="search", dims=("feature", "axis"))
        check_width(q.shape[1], features=features, asked="search")
        names = q["image"].values if "image" in q.coords else None
        return np.asarray(q.values), names
    rows = np.atleast_2d(np.asarray(q))
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise InputError(
            f"search got an array of shape {np.shape(q)} and {rows.dtype}; give one "
            "vector (F,), several (n, F), a DataArray, or ids of images."
        )
    check_width(rows.shape[1], features=features, asked="search")
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64), None


def numbers_of(ids: Sequence[str], known: Mapping[str, int]) -> Ids:
    """Return the row numbers of ids, shape (n,).

    Parameters
    ----------
    ids : sequence of str
    known : mapping
        Row number of every id that can be found.

    Raises
    ------
    InputError
        For an id that is not known.
    """
    missing = [each for each in ids if str(each) not in known]
    if missing:
        raise InputError(
            f"the index has no image {str(missing[0])!r} that can be found. "
            f"{did_you_mean(str(missing[0]), known)}"
        )
    return np.array([known[str(each)] for each in ids], np.int64)


def ids_of(x: xr.DataArray, *, first: int) -> npt.NDArray[np.str_]:
    """Return the ids of the images, their row numbers where they have none.

    Parameters
    ----------
    x : DataArray, dims (image, feature)
    first : int
        Number of its first row in the index.

    Returns
    -------
    ndarray of str, shape (N,)

    Raises
    ------
    InputError
        For an id that is there twice.
    """
    if "image" not in x.coords:
        return np.arange(first, first + x.sizes["image"]).astype(np.str_)
    # By way of objects: NumPy does not turn ids of a store (StringDType) into str_.
    images = np.asarray(x["image"].values, dtype=object).astype(np.str_)
    names, counts = np.unique(images, return_counts=True)
    if len(names) < len(images):
        twice = str(names[counts > 1][0])
        raise InputError(
            f"an index needs distinct image ids and {twice!r} is there "
            f"{counts.max()} times; give each image its own."
        )
    return images


def content_of(x: xr.DataArray) -> str | None:
    """Return what a store says of the numbers of a layer, None for other rows."""
    content = x.attrs.get("content")
    return None if content is None else str(content)


def check_new(images: npt.NDArray[np.str_], there: npt.NDArray[np.str_]) -> None:
    """Raise an InputError for an id that is in the index already."""
    taken = np.flatnonzero(np.isin(images, there))
    if len(taken):
        raise InputError(
            f"Index.add got the id {str(images[taken[0]])!r}, which is in the index; "
            "remove it first, or give the image another id."
        )


def check_width(width: int, *, features: int, asked: str) -> None:
    """Raise an InputError for rows of another number of features."""
    if width != features:
        raise InputError(
            f"{asked} got rows of {width} features and the index has {features}; "
            "give rows of the layer that it was built from."
        )


def check_reach(rows: Floats, space: Space) -> None:
    """Raise an InputError for rows (n, F) too long for the space of inner products."""
    if space.metric != "inner_product" or not len(rows):
        return
    gap = space.raw(rows) - space.center
    length = float(np.sqrt(np.einsum("nf,nf->n", gap, gap).max()))
    if length > space.reach:
        raise InputError(
            f"Index.add got a row {length / space.reach:.2f} times as long as this index "
            "of inner products can order; build it anew with all rows."
        )


def asked_bytes(limit: int | str) -> int:
    """Return a memory limit in bytes.

    Parameters
    ----------
    limit : int or str
        Such as ``"2 GiB"``.

    Returns
    -------
    int

    Raises
    ------
    InputError
        For what is no size above 0.
    """
    try:
        if isinstance(limit, str) or whole(limit, asked="", name="") > 0:
            return int(parse_bytes(limit))
    except (ValueError, InputError):
        pass
    raise InputError(
        f"build_index got memory_limit={limit!r}; give bytes, or a size like '2 GiB'."
    )


def check_options(*, sharded: Any, seed: Any) -> None:
    """Raise an InputError for what `sharded` and `seed` cannot be."""
    if not isinstance(sharded, bool) and sharded != "auto":
        raise InputError(
            f"build_index got sharded={sharded!r}; choose 'auto', True or False."
        )
    if whole(seed, asked="build_index", name="seed") < 0:
        raise InputError(f"build_index got seed={seed}; choose 0 or more.")


def check_build(recall: Any, k: int, *, metric: str, n_images: int) -> None:
    """Raise an InputError for what no index can be built with."""
    number = isinstance(recall, int | float | np.floating)
    if not number or not 0 < recall < 1:
        raise InputError(
            f"build_index got recall={recall}; choose one between 0 and 1, or use "
            "neighbors, which is exact."
        )
    if n_images < 2:
        raise InputError(
            f"build_index got {n_images} images; give two or more, or none has a neighbor."
        )
    if not 1 <= k < n_images:
        raise InputError(
            f"build_index got n_neighbors={k} for {n_images} images; "
            f"choose 1 to {n_images - 1}."
        )
    known = ("euclidean", "cosine", "inner_product")
    if metric not in known:
        raise InputError(f"build_index got metric={metric!r}; choose one of {known}.")
