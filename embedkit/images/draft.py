"""JPEGs decoded at a half, a quarter or an eighth of their size, where that is enough.

A JPEG holds blocks of 8 by 8 cosine coefficients. The low ones alone give the block at 4,
2 or 1 pixels a side, for less work than all of it and a resize. What comes out is not
what a resize of the whole image gives: such numbers have a rule of their own in a store's
identity, ``pil-rgb-1-draft-256`` where 256 pixels of the shorter side are enough.

References
----------
G. K. Wallace, "The JPEG still picture compression standard", IEEE Transactions on Consumer
Electronics 38(1), 1992. Scaled decoding: libjpeg's documentation, section "Decompression
parameter selection", ``scale_num`` and ``scale_denom``.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from typing import Final

from PIL import Image

from embedkit.files.files import Files
from embedkit.images.decode import DECODE_POLICY, decode
from embedkit.images.source import EncodedSource, Source

_DRAFT: Final = re.compile(rf"{DECODE_POLICY}-draft-([1-9]\d*)", re.ASCII)


def draft_policy(at_least: int) -> str:
    """Return the name of the rule that leaves so many pixels of the shorter side.

    Examples
    --------
    >>> draft_policy(256)
    'pil-rgb-1-draft-256'
    """
    return f"{DECODE_POLICY}-draft-{at_least}"


def enough(policy: str) -> int | None:
    """Return the pixels of the shorter side that are enough by a rule.

    Parameters
    ----------
    policy : str
        As stored.

    Returns
    -------
    int or None
        None where all are decoded, and for a rule of another name.

    Examples
    --------
    >>> enough("pil-rgb-1-draft-256"), enough("pil-rgb-1")
    (256, None)
    """
    found = _DRAFT.fullmatch(policy)
    return None if found is None else int(found[1])


def is_known(policy: str) -> bool:
    """Tell whether images can be decoded by a rule of that name."""
    return policy == DECODE_POLICY or enough(policy) is not None


def decoded_by(source: Source, policy: str) -> Source:
    """Return a source whose images are decoded by a rule.

    Parameters
    ----------
    source : Source
        One that decodes everything.
    policy : str
        As stored.

    Returns
    -------
    Source
        `source` itself where the rule is to decode everything, and where there are no
        whole image files to decode: arrays, datasets, boxes in images.
    """
    at_least = enough(policy)
    if at_least is None or not isinstance(source, EncodedSource):
        return source
    return DraftSource(source, at_least)


@dataclass(frozen=True, slots=True)
class DraftSource(EncodedSource):
    """Image files, of which JPEGs are decoded no larger than is needed.

    Attributes
    ----------
    source : EncodedSource
        Fetches the files.
    at_least : int
        Pixels of the shorter side that are enough; see `decode`.
    """

    source: EncodedSource
    at_least: int

    def fetch(self, uri: str) -> bytes:
        """Return the bytes of the file at `uri`. Raises `SourceError`."""
        return self.source.fetch(uri)

    def decoded(self, data: bytes) -> Image.Image:
        """Return the image in the bytes of a file. Raises `SourceError`."""
        return decode(io.BytesIO(data), at_least=self.at_least)

    def content(self, uri: str) -> int:
        """Return the hash of the bytes at `uri`; 0 if they cannot be read."""
        return self.source.content(uri)

    def spooled(self, files: Files) -> DraftSource:
        """Return the same over a source that any process can use."""
        return replace(self, source=self.source.spooled(files))
