"""Files that hold many images: tar shards, and Parquet files with a column of bytes."""

from __future__ import annotations

from pathlib import Path

from embedkit.errors import InputError
from embedkit.images.folder import has_images
from embedkit.images.imageset import ImageSet
from embedkit.images.parquet import from_parquet, image_column_of, parquet_files
from embedkit.images.paths import absolute
from embedkit.images.shards import from_shards, is_shards


def open_packed(
    name: str, *, image_column: str | None = None, id_column: str | None = None
) -> ImageSet | None:
    """Open tar shards, or Parquet files that hold images; None for anything else.

    Parameters
    ----------
    name : str
        A file, folder, glob, or pattern of tar files with braces.
    image_column, id_column : str, optional
        For Parquet files; see `from_parquet`.

    Raises
    ------
    InputError, SourceError
        See `from_shards` and `from_parquet`.
    """
    if is_shards(name) and not absolute(name).is_dir():
        if id_column is not None or image_column is not None:
            raise InputError(
                "id_column= and image_column= are for tables and Parquet files; leave "
                "them out for tar files, whose ids are the names of their members"
            )
        return from_shards([name])
    files = _parquet_of_images(name, image_column)
    if not files:
        return None
    return from_parquet(files, image_column=image_column, id_column=id_column)


def _parquet_of_images(name: str, image_column: str | None) -> list[Path]:
    """Return the Parquet files of a name if they hold images; none for other names."""
    path = absolute(name)
    if path.is_dir():
        # Beside images, a Parquet file is their table, unless it is asked for.
        mixed = image_column is None and has_images(path)
        return [] if mixed else parquet_files(name)
    if path.suffix.lower() != ".parquet":
        return []
    if not path.is_file():
        return parquet_files(name)  # a glob, where any file matches
    return [path] if image_column_of(path, image_column) is not None else []
