"""What was asked for, as vectors: images, files, ids of stored images, or vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.rows import usable_rows
from embedkit.errors import InputError, NotInStore, SourceError, did_you_mean
from embedkit.images.draft import decoded_by
from embedkit.images.given import image_given
from embedkit.images.open import open_images
from embedkit.retrieval.columns import plain
from embedkit.retrieval.embed import Embedder
from embedkit.store.store import Store

if TYPE_CHECKING:
    from PIL import Image

_NEAR_IDS = 10_000
"""How many ids are compared with one that is not there (chosen: well under a second)."""

_FORMS = (
    "the id of a stored image, an image file or URL, a PIL image, a uint8 array (H, W, 3), "
    "a vector, or a list of these"
)


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """What is searched for.

    Attributes
    ----------
    names : tuple of str
        What each is called: the id, path or URL, or its kind and number.
    vectors : ndarray, shape (Q, F), floating
        One row each, all finite.
    rows : ndarray of int64, shape (Q,)
        The row of a stored image that was asked for by id, else -1.
    several : bool
        Whether a list was given.
    """

    names: tuple[str, ...]
    vectors: npt.NDArray[np.floating[Any]]
    rows: npt.NDArray[np.int64]
    several: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One query: a row of the store, or an image, or a vector."""

    name: str
    row: int = -1
    image: Image.Image | None = None
    vector: npt.NDArray[np.floating[Any]] | None = None


_Maker: TypeAlias = Callable[[], Embedder]


def queries_of(
    store: Store, x: xr.DataArray, query: Any, *, embedder: _Maker
) -> Queries:
    """Return what was asked for as vectors of a layer.

    Parameters
    ----------
    store : Store
        The store.
    x : DataArray, dims (image, feature)
        The layer.
    query : str, path, image, array or list of these
        As for `embedkit.search`.
    embedder : callable
        Returns what computes the layer; called only where an image is among the queries.

    Raises
    ------
    InputError
        For what is no query, a vector of another length or with a NaN, or the id of an
        image that could not be read.
    SourceError
        When an image cannot be read.
    """
    several, items = _several(query)
    policy = store.schema.pass_of(str(x.name)).parts["decode"]
    asked = [_asked(store, each, place, policy) for place, each in enumerate(items)]
    vectors = np.zeros((len(asked), x.sizes["feature"]), np.float64)
    seen = [place for place, each in enumerate(asked) if each.image is not None]
    if seen:
        names = [asked[place].name for place in seen]
        pictures = [each.image for each in asked if each.image is not None]
        vectors[seen] = embedder().rows(pictures, names=names)
    for place, each in enumerate(asked):
        if each.vector is not None:
            vectors[place] = _fitting(each.vector, x)
    rows = np.array([each.row for each in asked], np.int64)
    stored = rows >= 0
    wanted, back = np.unique(rows[stored], return_inverse=True)
    vectors[stored] = x.isel(image=wanted).values[back]  # each chunk is read once
    _check_finite(x, asked, vectors)
    return Queries(
        names=tuple(each.name for each in asked),
        vectors=vectors,
        rows=rows,
        several=several,
    )


def _several(query: Any) -> tuple[bool, list[Any]]:
    """Return whether more than one thing is asked for, and these things."""
    given = query.values if isinstance(query, xr.DataArray) else query
    stacked = isinstance(given, np.ndarray) and given.ndim in (2, 4)
    if not isinstance(given, list | tuple) and not stacked:
        return False, [given]
    if not len(given):
        raise InputError(f"search got an empty list of queries; give {_FORMS}")
    return True, list(given)


def _asked(store: Store, given: Any, place: int, policy: str) -> _Asked:
    image = image_given(given)
    if image is not None:
        return _Asked(f"image {place}", image=image)
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "fiu":
        return _Asked(f"vector {place}", vector=given)
    if isinstance(given, os.PathLike):
        return _from_file(os.fspath(given), policy)
    if isinstance(given, str):
        return _from_name(store, given, policy)
    kind = type(given).__name__
    if isinstance(given, np.ndarray):
        kind = f"array of {given.dtype} and shape {given.shape}"
    raise InputError(f"search got a query of type {kind}; give {_FORMS}")


def _from_name(store: Store, name: str, policy: str) -> _Asked:
    """Return a stored image where there is one of that id, else a file or URL."""
    try:
        return _Asked(name, row=int(store.locate(name)[0]))
    except NotInStore:
        if "://" in name or (name and Path(name).exists()):
            return _from_file(name, policy)
    ids = [str(each) for each in store.columns()["image"][:_NEAR_IDS].values]
    raise InputError(
        f"search found neither an image {name!r} in {store.url} nor a file of that name. "
        f"{did_you_mean(name, ids)}"
    )


def _from_file(name: str, policy: str) -> _Asked:
    """Read an image as those of the layer were."""
    found = open_images([name])
    if len(found) != 1:
        raise InputError(
            f"search got {name!r}, which holds {len(found)} images; give {_FORMS}"
        )
    try:
        source = decoded_by(found.source, policy)
        return _Asked(name, image=source.read(found.table["uri"].iloc[0]))
    except SourceError as error:
        raise SourceError(f"the query {name!r} cannot be read: {error}") from error


def _fitting(vector: npt.NDArray[Any], x: xr.DataArray) -> npt.NDArray[Any]:
    if len(vector) != x.sizes["feature"]:
        raise InputError(
            f"search got a vector of {len(vector)} numbers and layer {x.name} has "
            f"{x.sizes['feature']} features; give one row of that layer"
        )
    return vector


def _check_finite(
    x: xr.DataArray, asked: list[_Asked], vectors: npt.NDArray[np.float64]
) -> None:
    """Refuse what is at no distance from anything."""
    lost = np.flatnonzero(~usable_rows(vectors))
    if not len(lost):
        return
    first = asked[lost[0]]
    why = "it has a NaN or an infinity"
    if first.row >= 0:
        status, error = (
            str(plain(x.coords[name][first.row : first.row + 1].values)[0])
            for name in ("status", "error")
        )
        why = f"it is {status}{f' ({error})' if error else ''}"
    raise InputError(
        f"search cannot use {first.name!r}, which has no row of finite numbers in layer "
        f"{x.name}: {why}; ask for another image"
    )
