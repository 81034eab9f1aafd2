"""Datasets in the manner of torchvision: objects with a length and numbered items."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cloudpickle
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from embedkit.errors import InputError, SourceError, StoreError
from embedkit.files.files import Files, files_at
from embedkit.images.decode import to_rgb
from embedkit.images.imageset import ImageSet
from embedkit.images.paths import absolute, image_files, image_table, relative_ids
from embedkit.images.pixels import PixelSource

# Loaders of PyTorch ask a dataset from one thread of a process, and datasets rely on it.
_one_at_a_time: Final = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False)
class DatasetSource(PixelSource):
    """Items of a dataset in memory; the uri of item 3 is ``dataset:3``.

    Attributes
    ----------
    dataset : object
        What ``__getitem__`` is asked of, by one thread at a time.
    """

    dataset: Any

    def row(self, uri: str) -> npt.NDArray[np.uint8]:
        """Return item `uri` of the dataset. Raises `SourceError` if there is none."""
        return _pixels(_item(self.dataset, _row(uri)))

    def spooled(self, files: Files) -> SpooledDatasetSource:
        """Write the dataset into `files`, once, and return a source that loads it.

        Raises
        ------
        InputError
            If the dataset cannot be pickled.
        """
        try:
            data = cloudpickle.dumps(self.dataset)
        except Exception as error:  # a dataset may raise anything
            raise InputError(
                f"dataset {type(self.dataset).__name__} cannot be sent to workers: "
                f"{_one_line(error)}; give it without open files, locks and connections"
            ) from error
        name = f"dataset-{hashlib.sha256(data).hexdigest()[:16]}.pkl"
        if not files.exists(name):
            files.create(name, data)
        return SpooledDatasetSource(files.url, name)


@dataclass(frozen=True, slots=True)
class SpooledDatasetSource(PixelSource):
    """A dataset in a file, loaded when an item of it is first read in a process.

    Attributes
    ----------
    url : str
        Where the file is, for `files_at`.
    name : str
        What it is called there. The name holds its digest.
    """

    url: str
    name: str

    def row(self, uri: str) -> npt.NDArray[np.uint8]:
        """Return item `uri` of the dataset. Raises `SourceError` if there is none."""
        return _pixels(_item(_unpickled(self.url, self.name), _row(uri)))


def is_dataset(source: object) -> bool:
    """Tell whether something has a length and numbered items, and is no array."""
    needed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    other = isinstance(source, Mapping | str | bytes) or hasattr(source, "shape")
    return needed and not other and not isinstance(source, type)


def from_dataset(dataset: Any) -> ImageSet:
    """Return the items of a dataset, in their order.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        An item is an image or a tuple that begins with one: a PIL image, an array of
        uint8 (H, W, 3), (H, W, 1) or (H, W), or a tensor of uint8 (3, H, W), (1, H, W)
        or (H, W). Where it has ``samples`` or ``imgs``, pairs of path and class, these
        files are opened instead. Pixels are taken as they come: the orientation in the
        metadata of a PIL image is not applied.

    Returns
    -------
    ImageSet
        Ids are row numbers, ``"0000"``, or paths for files. ``label`` comes from
        ``targets`` (or ``labels``), through ``classes`` where there are any.

    Raises
    ------
    InputError
        If the dataset is empty, or its first item is no image of 8 bits.
    SourceError
        If none of its files exists.
    """
    n = len(dataset)
    if n == 0:
        raise InputError(f"dataset {type(dataset).__name__} is empty")
    pairs = _samples(dataset, n)
    if pairs is not None:
        return _from_samples(dataset, pairs)
    _check_first(dataset)
    width = max(4, len(str(n - 1)))
    labels = _labels(dataset, n)
    columns = pd.DataFrame({} if labels is None else {"label": labels}, index=range(n))
    ids = [f"{row:0{width}d}" for row in range(n)]
    uris = [f"dataset:{row}" for row in range(n)]
    unknown = np.full(n, -1, np.int64)
    return ImageSet(
        image_table(ids, uris, columns=columns), DatasetSource(dataset), unknown
    )


def _samples(dataset: Any, n: int) -> list[tuple[Path, Any]] | None:
    """Return the files and classes that a dataset lists; None if it lists none."""
    pairs: Any = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
    if not isinstance(pairs, list | tuple) or len(pairs) != n:
        return None
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            return None
        if not isinstance(pair[0], str | os.PathLike):
            return None
    return [(absolute(path), target) for path, target in pairs]


def _from_samples(dataset: Any, pairs: Sequence[tuple[Path, Any]]) -> ImageSet:
    """Open the files that a dataset lists."""
    files = [path for path, _ in pairs]
    root = getattr(dataset, "root", None)
    base = absolute(root) if isinstance(root, str | os.PathLike) else None
    inside = base is not None and all(file.is_relative_to(base) for file in files)
    ids = relative_ids(files, root=base if inside else None)
    labels = _named([target for _, target in pairs], dataset)
    return image_files(ids, files, columns=pd.DataFrame({"label": labels}))


def _labels(dataset: Any, n: int) -> list[str] | None:
    """Return a label for each item without reading any; None where none are known."""
    for name in ("targets", "labels"):
        found: Any = getattr(dataset, name, None)
        targets = np.asarray(found)
        if targets.shape == (n,):
            return _named(targets.tolist(), dataset)
    return None


def _named(targets: Sequence[Any], dataset: Any) -> list[str]:
    """Return the names of classes given by number; other targets as text."""
    classes: Any = getattr(dataset, "classes", None)
    if isinstance(classes, list | tuple) and all(
        isinstance(target, int) and 0 <= target < len(classes) for target in targets
    ):
        return [str(classes[target]) for target in targets]
    return [str(target) for target in targets]


def _check_first(dataset: Any) -> None:
    """Refuse a dataset whose items are no pixels; one that fails is another matter."""
    try:
        item = _item(dataset, 0)
    except SourceError:
        return
    try:
        _pixels(item)
    except SourceError as error:
        raise InputError(f"dataset {type(dataset).__name__}: {error}") from error


def _item(dataset: Any, row: int) -> Any:
    """Return an item's image, without what else comes with it."""
    try:
        with _one_at_a_time:
            item = dataset[row]
    except Exception as error:  # a dataset may raise anything
        said = f"{type(error).__name__}: {_one_line(error)}"
        raise SourceError(
            f"item {row} of the dataset cannot be read ({said})"
        ) from error
    return item[0] if isinstance(item, tuple | list) and item else item


def _row(uri: str) -> int:
    """Return the row number in a uri such as ``dataset:3``, or raise `SourceError`."""
    kind, _, row = uri.partition(":")
    if kind != "dataset" or not row.isdecimal():
        raise SourceError(f"no item of a dataset is called {uri!r}")
    return int(row)


def _pixels(image: Any) -> npt.NDArray[np.uint8]:
    """Return an image as (H, W, 3), uint8; `SourceError` if it is none."""
    if isinstance(image, Image.Image):
        return np.array(to_rgb(image))
    is_tensor = hasattr(image, "detach") and hasattr(image, "numpy")
    found = image.detach().cpu().numpy() if is_tensor else image
    if not isinstance(found, np.ndarray):
        raise SourceError(
            f"an item is {type(image).__name__}, not a PIL image, array or tensor; give a "
            "dataset whose items begin with one"
        )
    if found.dtype != np.uint8:
        raise SourceError(
            f"an item is {found.dtype} of shape {found.shape}, but pixels are uint8; set "
            "transform=None, the network brings its own"
        )
    if is_tensor and found.ndim == 3:
        found = found.transpose(1, 2, 0)  # H W C
    if found.ndim == 2:
        found = found[..., np.newaxis]  # H W 1
    if found.ndim != 3 or found.shape[-1] not in (1, 3) or 0 in found.shape:
        order = "(3, H, W)" if is_tensor else "(H, W, 3)"
        raise SourceError(
            f"an item has shape {tuple(image.shape)}; it must be {order} or (H, W)"
        )
    return np.ascontiguousarray(np.broadcast_to(found, (*found.shape[:2], 3)))


@functools.lru_cache(maxsize=2)
def _unpickled(url: str, name: str) -> Any:
    """Load a spooled dataset, once per process; its name holds its digest."""
    try:
        return pickle.loads(files_at(url).read(name))
    except Exception as error:
        # Not a SourceError, which would pass for so many unreadable images.
        raise StoreError(
            f"the dataset that was spooled to {url}/{name} cannot be loaded "
            f"({_one_line(error)}); the worker needs the packages that the dataset needs"
        ) from error


def _one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())[:200]
