"""What can read images again, when all that is left of them is their uris."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from embedkit.files.files import is_url
from embedkit.images.crops import CropSource, crop_of
from embedkit.images.parquet_source import ParquetSource, parquet_place
from embedkit.images.source import FileSource, Source
from embedkit.images.tar_source import TarSource, tar_place
from embedkit.images.url_source import UrlSource


def restored(uris: Sequence[str]) -> Source | None:
    """Return what can read the images that a store remembers by their uris.

    Parameters
    ----------
    uris : sequence of str
        As in the ``uri`` column of `ImageSet.table`, all of one kind.

    Returns
    -------
    Source or None
        What reads files, URLs, crops of both, members of tar files or rows of Parquet
        files; None for the rows of an array or a dataset, which were in memory and are gone.

    Examples
    --------
    >>> restored(["tar:/data/a.tar#512+2048/cat.jpg"])
    TarSource()
    >>> restored(["dataset:0", "dataset:1"]) is None
    True
    """
    if uris and all(tar_place(uri) is not None for uri in uris):
        return TarSource()
    if uris and all(parquet_place(uri) is not None for uri in uris):
        return ParquetSource()
    if uris and all(crop_of(uri) is not None for uri in uris):
        return CropSource()
    if uris and all(is_url(uri) for uri in uris):
        return UrlSource()
    return FileSource() if all(PurePath(uri).is_absolute() for uri in uris) else None
