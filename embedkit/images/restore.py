"""What can read images again, when all that is left of them is their uris."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Final

from embedkit.files.files import is_url
from embedkit.images.array_files import ArrayFileSource, array_place
from embedkit.images.crops import CropSource, crop_of
from embedkit.images.parquet_source import ParquetSource, parquet_place
from embedkit.images.source import FileSource, Source
from embedkit.images.tar_source import TarSource, tar_place
from embedkit.images.url_source import UrlSource

_KINDS: Final[tuple[tuple[Callable[[str], object], Source], ...]] = (
    (tar_place, TarSource()),
    (parquet_place, ParquetSource()),
    (array_place, ArrayFileSource()),
    (crop_of, CropSource()),
    (is_url, UrlSource()),
    (lambda uri: PurePath(uri).is_absolute(), FileSource()),
)
"""What tells that a uri is of a kind, and what reads those; the first that fits."""


def restored(uris: Sequence[str]) -> Source | None:
    """Return what can read the images that a store remembers by their uris.

    Parameters
    ----------
    uris : sequence of str
        As in the ``uri`` column of `ImageSet.table`, all of one kind.

    Returns
    -------
    Source or None
        What reads files, URLs, crops of both, members of tar files, rows of Parquet
        files or of arrays in files; None for the rows of an array or a dataset, which
        were in memory and are gone.

    Examples
    --------
    >>> restored(["tar:/data/a.tar#512+2048/cat.jpg"])
    TarSource()
    >>> restored(["dataset:0", "dataset:1"]) is None
    True
    """
    for is_of_kind, source in _KINDS:
        if uris and all(map(is_of_kind, uris)):
            return source
    return None
