"""`open_images`: one front door for every way to say which images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedkit.errors import InputError, SourceError
from embedkit.files.files import is_url
from embedkit.images.arrays import ArraySource
from embedkit.images.dataset import from_dataset, is_dataset
from embedkit.images.decode import image_extensions
from embedkit.images.folder import from_folder, from_glob, has_wildcard, nearest
from embedkit.images.imageset import ImageSet
from embedkit.images.packed import open_packed
from embedkit.images.paths import absolute, from_paths
from embedkit.images.shards import from_shards, is_shards
from embedkit.images.table import TABLE_EXTENSIONS, from_table, from_table_file
from embedkit.images.url_lists import from_urls
from embedkit.images.url_prefixes import from_url

_FORMS = (
    "a folder, a glob, a list of paths, a table (DataFrame, .csv, .tsv or .parquet file), "
    "the same with URLs of images, tar files, a dataset, or a uint8 array (N, H, W, 3)"
)


def open_images(
    source: Any,
    *,
    path_column: str | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    root: str | Path | None = None,
) -> ImageSet:
    """List images, wherever they are said to be, without decoding any.

    Parameters
    ----------
    source : str, Path, list of paths, DataFrame, array or dataset
        ======================== =====================================================
        source                   images, and their ids
        ======================== =====================================================
        folder                   all image files below it; the path relative to it.
                                 Folders give ``label``, and ``split`` where the outer
                                 ones are called train, val, valid, validation or test
        glob, ``"a/**/*.jpg"``   the matching files; relative to the literal part.
                                 Labels as for a folder
        image file, list of      these files, in this order; relative to `root` or to
        paths                    their common folder
        DataFrame, .csv, .tsv,   one image per row; `id_column` or the path as written.
        .parquet                 All other columns are kept. With columns ``x0``,
                                 ``y0``, ``x1``, ``y1``, in pixels and half open, one
                                 image per box, ``"cat.jpg#0"``
        .parquet file, folder    with a column of image bytes, plain or as Hugging Face
        or glob of them          writes them (``bytes`` and ``path``): one image per row;
                                 `id_column`, that path, or ``"train-0/0041"``. Other
                                 columns of text, numbers and dates are kept
        .tar files: a path,      the image members of uncompressed shards, as WebDataset
        list, glob or pattern,   packs them; ``"a-000/cat1"``. ``.cls``, ``.txt`` and
        ``"a-{000..009}.tar"``   ``.json`` of the same key become columns
        prefix or glob of an     the image objects below it; as for a folder or a glob.
        object store,            ``gs://``, ``az://`` and ``memory://`` likewise, with
        ``"s3://bucket/a/"``     credentials from the environment (extra ``cloud``)
        URL of an image, list    these images; ``http://`` and ``https://`` too. Ids are
        or table of URLs         relative to `root` or to the common prefix; the URL
                                 without its scheme where there are several servers
        dataset, as torchvision  item by item, PIL images or uint8; ``"0000"``, and
        has them                 ``label`` from its ``targets``. One that lists files in
                                 ``samples`` is opened as these files
        uint8 array              row by row; ``"0000"``, ``"0001"``, …
        (N, H, W, 3)
        ======================== =====================================================
    path_column : str, optional
        For tables: the column of paths; by default the first there is of path, uri,
        file, filename, image, filepath.
    id_column : str, optional
        For tables: the column of ids.
    image_column : str, optional
        For Parquet files: the column of image bytes, if there are several.
    root : str or Path, optional
        For tables, where relative paths start: by default the table file's folder, or
        the working directory for a DataFrame. For lists, what ids are relative to. A
        URL, if that is where the images are.

    Returns
    -------
    ImageSet
        One row per image. A file in a list or table that is missing stays a row, and
        becomes an unreadable image with that reason.

    Raises
    ------
    InputError
        If `source` is of no such kind, an option does not belong to it, a table cannot
        be used, or two images would have one id.
    SourceError
        If a folder, glob or file is missing, holds no image, or none of the listed
        files exists; if the server of a prefix cannot be reached.
    MissingDependencyError
        For URLs, where obstore is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> open_images(np.zeros((2, 8, 8, 3), np.uint8)).table.index.tolist()
    ['0000', '0001']
    """
    columns = {"path_column": path_column, "id_column": id_column}
    if not isinstance(source, str | os.PathLike):
        _refuse({"image_column": image_column}, "Parquet files")
    if isinstance(source, pd.DataFrame):
        return from_table(source, **columns, root=root)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        return _from_name(name, **columns, image_column=image_column, root=root)
    _refuse(columns, "tables")
    if isinstance(source, list | tuple):
        return _from_list(source, root=root)
    _refuse({"root": root}, "tables and lists of paths")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if is_dataset(source):
        return from_dataset(source)
    raise InputError(f"cannot open {type(source).__name__} as images: give {_FORMS}")


def _from_name(
    name: str,
    *,
    path_column: str | None,
    id_column: str | None,
    image_column: str | None,
    root: str | Path | None,
) -> ImageSet:
    """Open what a path or a pattern stands for."""
    columns = {"path_column": path_column, "id_column": id_column}
    if is_url(name):
        _refuse({"image_column": image_column}, "Parquet files")
        _refuse(columns, "tables")
        return from_url(name, root=root)
    path = absolute(name)
    if path_column is None:
        packed = open_packed(name, image_column=image_column, id_column=id_column)
        if packed is not None:
            _refuse({"root": root}, "tables and lists of paths")
            return packed
    _refuse({"image_column": image_column}, "Parquet files")
    if path.is_file() and path.suffix.lower() in TABLE_EXTENSIONS:
        return from_table_file(path, **columns, root=root)
    _refuse(columns, "tables")
    if path.is_file():
        return _from_file(path, root=root)
    _refuse({"root": root}, "tables and lists of paths")
    if path.is_dir() or has_wildcard(name):
        return from_folder(path) if path.is_dir() else from_glob(name)
    raise SourceError(f"there is no file or folder {str(path)!r}. {nearest(path)}")


def _from_list(paths: Sequence[Any], *, root: str | Path | None) -> ImageSet:
    """Open a list of images, or of tar files."""
    if any(map(is_url, paths)):
        return from_urls(paths, root=root)
    names = [os.fspath(path) for path in paths if isinstance(path, str | os.PathLike)]
    if names and len(names) == len(paths) and all(map(is_shards, names)):
        _refuse({"root": root}, "tables and lists of paths")
        return from_shards(names)
    return from_paths(paths, root=root)


def _from_file(path: Path, *, root: str | Path | None) -> ImageSet:
    """Open one image file as a list of one."""
    if path.suffix.lower() not in image_extensions():
        raise InputError(
            f"{str(path)!r} is neither an image nor a table by its extension: "
            f"give {_FORMS}"
        )
    return from_paths([path], root=root)


def _from_array(pixels: npt.NDArray[Any]) -> ImageSet:
    """Open an array of pixels."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise InputError(
            f"an array of images must be uint8 of shape (N, H, W, 3), found "
            f"{pixels.dtype} of shape {pixels.shape}; {_remedy(pixels)}"
        )
    if 0 in pixels.shape:
        raise InputError(f"the array of images is empty: its shape is {pixels.shape}")
    n = len(pixels)
    width = max(4, len(str(n - 1)))
    ids = pd.Index([f"{row:0{width}d}" for row in range(n)], name="image")
    table = pd.DataFrame({"uri": [f"array:{row}" for row in range(n)]}, index=ids)
    return ImageSet(table, ArraySource(pixels), np.full(n, pixels[0].nbytes, np.int64))


def _remedy(pixels: npt.NDArray[Any]) -> str:
    """Say how an array becomes one of images."""
    if pixels.dtype != np.uint8:
        return "scale the values to 0..255 and use .astype(np.uint8)"
    if pixels.ndim == 4 and pixels.shape[1] == 3:
        return "the channels come last: use .transpose(0, 2, 3, 1)"
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        return "one image is pixels[np.newaxis]"
    if pixels.ndim == 3:
        return "for gray images use np.repeat(pixels[..., np.newaxis], 3, axis=-1)"
    return "bring it into that shape"


def _refuse(options: dict[str, Any], owner: str) -> None:
    """Refuse options that do not belong to the kind of source that was given."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name}= is for {owner}; leave it out for this source")
