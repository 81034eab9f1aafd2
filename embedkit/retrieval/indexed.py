"""Search of a store by an index: which one, whether it fits, and its answers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import xarray as xr

from embedkit.analysis.index.calls import open_index
from embedkit.analysis.index.contents import Contents, contents_of
from embedkit.analysis.index.object import Index
from embedkit.analysis.merge import nothing_found
from embedkit.errors import InputError, StoreError
from embedkit.retrieval.columns import ID, plain
from embedkit.retrieval.fresh import changed_rows
from embedkit.retrieval.query import Queries
from embedkit.retrieval.scan import Ranked
from embedkit.store.store import Store

Given: TypeAlias = Index | str | os.PathLike[str]

AUTO = "auto"
"""Stands for the index that lies beside a store."""

_FITTED: WeakKeyDictionary[Index, tuple[Any, ...]] = WeakKeyDictionary()
"""What each index was last compared with, so that many searches compare once."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """An index that was built from the layer that is searched.

    Attributes
    ----------
    index : Index
    name : str
        What it is called in messages.
    """

    index: Index
    name: str

    def nearest(self, asked: Queries, *, k: int) -> Ranked:
        """Find the `k` nearest rows of each query, itself left out.

        Parameters
        ----------
        asked : Queries
            Q vectors.
        k : int
            Rows per vector.

        Returns
        -------
        distances : ndarray of float64, shape (Q, k)
            Ascending, rounded to float32; NaN where there are fewer.
        rows : ndarray of int64, shape (Q, k)
            -1 where `distances` is NaN.

        Raises
        ------
        InputError
            When the index finds fewer rows than it holds and were asked for.
        """
        alive = contents_of(self.index).alive
        stored = (asked.rows >= 0) & alive[asked.rows]  # an image that was removed
        distances, rows = nothing_found(len(asked.vectors), k)  # is but a vector
        by_id, by_vector = np.flatnonzero(stored), np.flatnonzero(~stored)
        for places, given in (
            (by_id, [asked.names[place] for place in by_id]),
            (by_vector, asked.vectors[by_vector]),
        ):
            if len(places):
                found = self.index.search(given, k)
                distances[places] = found["distances"].values
                rows[places] = found["indices"].values
        self._check_found(asked, rows, there=len(self.index) - stored)
        return distances, rows

    def about(self) -> dict[str, Any]:
        """Return its kind and recall, for the attributes of a result."""
        return {"index": self.index.kind, **self.index.recall.attrs()}

    def _check_found(self, asked: Queries, rows: Any, *, there: Any) -> None:
        """Refuse answers that end where the lists that were looked at end."""
        k, found = rows.shape[1], (rows >= 0).sum(axis=1)
        short = np.flatnonzero(found < np.minimum(k, there))
        if len(short):
            first = short[0]
            raise InputError(
                f"search asked for n_neighbors={k} and {self.name} finds only "
                f"{found[first]} of its {len(self.index)} images for "
                f"{asked.names[first]!r}; ask for fewer, or search without an index."
            )


def index_folder(store: Store, layer: str) -> Path:
    """Return where the index of a layer lies by convention, whether there is one or not.

    ``photos.index/<layer>`` beside ``photos.zarr``: the store's own folder holds nothing
    that is not the store's.

    Parameters
    ----------
    store : Store
        A store of this machine.
    layer : str
        The store's name of the layer.

    Raises
    ------
    InputError
        For a store in an object store, beside which nothing is opened.
    """
    try:
        path = store.path
    except StoreError as error:
        raise InputError(
            f"an index lies on this machine and {store.url} does not; name its folder."
        ) from error
    return path.with_name(f"{path.name.removesuffix('.zarr')}.index") / layer


def fitted(store: Store, x: xr.DataArray, given: Given) -> Fitted:
    """Return an index of a layer, opened and compared with that layer.

    Parameters
    ----------
    store : Store
        The store.
    x : DataArray, dims (image, feature)
        The layer.
    given : Index or path
        As for `embedkit.search`.

    Raises
    ------
    InputError
        When it is no index, or one of other features, images or rows.
    StoreError
        When no index lies there.
    """
    if isinstance(given, Index):
        found = Fitted(given, "the index")
    elif isinstance(given, str | os.PathLike):
        folder = _folder(store, x, os.fspath(given))
        found = Fitted(open_index(folder), f"the index at {folder}")
    else:
        raise InputError(
            f"search got index of type {type(given).__name__}; give what build_index or "
            f"open_index returned, the folder of a saved one, or {AUTO!r}."
        )
    _check(found, x, f"layer {x.name} of {store.url}")
    return found


def _folder(store: Store, x: xr.DataArray, given: str) -> Path:
    if given != AUTO:
        return Path(given)
    folder = index_folder(store, str(x.name))
    if not folder.is_dir():
        raise InputError(
            f"search got index={AUTO!r} and there is none of layer {x.name} at {folder}; "
            "build one with the command embedkit index, or save one there."
        )
    return folder


def _check(found: Fitted, x: xr.DataArray, layer: str) -> None:
    """Compare an index with a layer, once for what they hold."""
    held = contents_of(found.index)
    now = (layer, x.attrs["content"], x.shape, len(held.images), len(found.index))
    if _FITTED.get(found.index) == now:
        return
    if held.n_features != x.sizes["feature"]:
        raise InputError(
            f"{found.name} has {held.n_features} features and {layer} has "
            f"{x.sizes['feature']}; give an index that was built from that layer."
        )
    _check_images(found.name, held, x, layer)
    _check_rows(found.name, held, x, layer)
    if held.content != x.attrs["content"]:
        _check_changes(found.name, held, x, layer)
    _FITTED[found.index] = now


def _check_images(name: str, held: Contents, x: xr.DataArray, layer: str) -> None:
    """Refuse another set or order of images, and such as are in the store no more."""
    ids = plain(x[ID].values).astype(np.str_)
    both = min(len(ids), len(held.images))
    other = np.flatnonzero(ids[:both] != held.images[:both])
    if len(other):
        row = other[0]
        raise InputError(
            f"{name} has image {str(held.images[row])!r} in row {row} and {layer} has "
            f"{str(ids[row])!r}; build an index from that layer."
        )
    if len(ids) != len(held.images):
        remedy = "build it anew"
        if len(ids) > both:
            remedy = (
                f"add the others with index.add(x[{both}:]), x that layer, or {remedy}"
            )
        raise InputError(
            f"{name} knows {len(held.images)} images and {layer} has {len(ids)}; {remedy}."
        )
    gone = np.flatnonzero(held.alive & (plain(x["status"].values) != "ok"))
    if len(gone):
        row = gone[0]
        raise InputError(
            f"{name} finds image {str(ids[row])!r}, which is "
            f"{x['status'].values[row]} in {layer}; build the index anew."
        )


def _check_rows(name: str, held: Contents, x: xr.DataArray, layer: str) -> None:
    """Compare the first and the last row: rows that were changed keep their labels."""
    alive = np.flatnonzero(held.alive)
    some = np.unique(alive[[0, -1]] if len(alive) else alive)
    same = (held.rows.take(some) == x.isel(image=some).values).all(axis=1)
    if not same.all():
        row = some[np.flatnonzero(~same)[0]]
        raise InputError(
            f"{name} holds another row for image {str(held.images[row])!r} than {layer}: "
            "it was built from another layer, or before images changed; build it anew."
        )


def _check_changes(name: str, held: Contents, x: xr.DataArray, layer: str) -> None:
    """Compare all rows with a layer that is not, by its own account, what it was."""
    changed = changed_rows(held, x)
    if len(changed):
        raise InputError(
            f"{name} is stale: {len(changed)} of its {len(held.images)} images have "
            f"another row in {layer} since it was built, {str(held.images[changed[0]])!r} "
            "the first; build it anew."
        )
