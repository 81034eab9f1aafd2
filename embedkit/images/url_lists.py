"""Lists of images at URLs: what is known of them, and their ids."""

from __future__ import annotations

import collections
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from embedkit.errors import InputError, SourceError
from embedkit.files.files import is_url
from embedkit.files.places import host_of, is_http, place_of
from embedkit.files.reasons import said
from embedkit.images.folder import extension
from embedkit.images.imageset import ImageSet
from embedkit.images.paths import NO_STAMP, Stamp, file_set
from embedkit.images.url_source import UrlSource, objects

_NOT_YET: Final = (".tar", ".csv", ".tsv", ".parquet")
_FEW: Final = 1000
"""Objects that one request lists."""
_PER_IMAGE: Final = 10
"""Objects that are listed, at most, for each whose size is wanted (chosen: a request for
a thousand objects takes as long as ten for one)."""


def from_urls(urls: Sequence[Any], *, root: str | Path | None = None) -> ImageSet:
    """Return the images in a list of URLs, in the order of the list.

    Parameters
    ----------
    urls : sequence of str
        On any servers. Missing ones stay rows.
    root : str, optional
        The URL that ids are relative to; by default the common prefix, or for several
        servers nothing: the id is the URL without its scheme.

    Raises
    ------
    InputError
        If an element is no URL of an image, or lies outside `root`.
    SourceError
        If all of them are in object stores, and none is there.
    """
    for row, url in enumerate(urls):
        if not is_url(url):
            raise InputError(
                f"a list of images must hold either URLs or paths, but element {row} of "
                f"this one is {url!r} and others are URLs: open them apart"
            )
    nothing_else = pd.DataFrame(index=range(len(urls)))
    return url_images(url_ids(urls, root=root), urls, columns=nothing_else)


def url_images(
    ids: Sequence[str], urls: Sequence[str], *, columns: pd.DataFrame
) -> ImageSet:
    """Return the set of images at `urls` under `ids`, with `columns` beside them.

    Sizes and times are known of objects that are cheap to list; web servers are not
    asked.

    Raises
    ------
    InputError
        If one of them is no URL of an image.
    SourceError
        If all of them are in object stores, and none is there.
    """
    for url in urls:
        check_kind(url)
        place_of(url)
    stamps = _stamps(urls)
    return file_set(ids, urls, stamps=stamps, columns=columns, source=UrlSource())


def url_ids(urls: Sequence[str], *, root: str | Path | None = None) -> list[str]:
    """Return what stands behind `root`, or behind the common prefix of all.

    Parameters
    ----------
    urls : sequence of str
    root : str, optional
        A URL above all of them.

    Raises
    ------
    InputError
        If a URL lies outside `root`.

    Examples
    --------
    >>> url_ids(["s3://bucket/a/b/1.jpg", "s3://bucket/a/2.jpg"])
    ['b/1.jpg', '2.jpg']
    >>> url_ids(["s3://bucket/1.jpg", "https://example.org/2.jpg?large"])
    ['bucket/1.jpg', 'example.org/2.jpg?large']
    """
    if root is not None:
        return _below(urls, f"{root}".rstrip("/"))
    hosts = {host_of(url) for url in urls}
    if len(hosts) > 1:
        return [url.partition("://")[2] for url in urls]
    return _below(urls, common_folder(urls))


def full_urls(texts: Sequence[str], *, root: str | Path | None) -> list[str]:
    """Return the URLs that a column of URLs, or of names relative to a URL, means.

    Raises
    ------
    InputError
        If a row is a path in the file system beside URLs.
    """
    base = f"{root}".rstrip("/") if root is not None and is_url(root) else None
    paths = [each for each in texts if not is_url(each)]
    lost = [each for each in paths if base is None or each.startswith("/")]
    if lost:
        raise InputError(
            f"a table must hold either URLs or paths, but {len(lost)} of {len(texts)} rows "
            f"are paths like {lost[0]!r} and others are URLs: open them apart, or say with "
            "root= which URL paths are relative to"
        )
    return [text if is_url(text) else f"{base}/{text}" for text in texts]


def url_path_ids(
    texts: Sequence[str], urls: Sequence[str], *, root: str | Path | None
) -> list[str]:
    """Return ids of rows: as written, or relative if all are whole URLs."""
    if not texts or not all(map(is_url, texts)):
        return list(texts)
    base = f"{root}".rstrip("/") + "/"
    above = is_url(base) and all(url.startswith(base) for url in urls)
    return url_ids(urls, root=root if above else None)


def common_folder(urls: Sequence[str]) -> str:
    """Return the longest URL, without a slash at its end, that all are below.

    Examples
    --------
    >>> common_folder(["s3://bucket/a/b/1.jpg", "s3://bucket/a/2.jpg"])
    's3://bucket/a'
    """
    host = host_of(urls[0])
    # a query may hold slashes, and so may nothing that an object is called after it
    paths = [
        (url.partition("?")[0] if is_http(url) else url)[len(host) :] for url in urls
    ]
    common = posixpath.commonprefix([path.rpartition("/")[0] + "/" for path in paths])
    return host + common.rpartition("/")[0]


def check_kind(url: str) -> None:
    """Refuse what is no image by its name, but something that is read from disk."""
    end = url_extension(url)
    if end in _NOT_YET:
        raise InputError(
            f"cannot open {url!r}: {end} files are read from disk only; download it first"
        )


def url_extension(url: str) -> str:
    """Return the extension of the file at a URL, lower case, with its dot."""
    return extension(url.partition("?")[0] if is_http(url) else url)


def _below(urls: Sequence[str], base: str) -> list[str]:
    outside = [url for url in urls if not url.startswith(f"{base}/")]
    if outside:
        raise InputError(
            f"{len(outside)} of {len(urls)} URLs lie outside root {base!r}, for instance "
            f"{outside[0]!r}; choose a root above all of them"
        )
    return [url[len(base) + 1 :] for url in urls]


def _stamps(urls: Sequence[str]) -> list[Stamp]:
    """Return sizes and times where they are cheap to know; -1 elsewhere."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for url in urls:
        groups[host_of(url)].append(url)
    known: dict[str, Stamp] = {}
    away: list[str] = []
    asked = [group for group in groups.values() if not is_http(group[0])]
    for group in asked:
        try:
            known |= _stamps_of(group)
        except PermissionError:  # some buckets may be read, but not listed
            known |= dict.fromkeys(group, NO_STAMP)
        except OSError as error:
            away.append(said(error))
    if len(asked) == len(groups) and not known:
        why = away[0] if away else "the servers know none of them; check the URLs"
        raise SourceError(
            f"none of the {len(urls)} files exists, for instance {urls[0]!r}: {why}"
        )
    return [known.get(url, NO_STAMP) for url in urls]


def _stamps_of(urls: Sequence[str]) -> dict[str, Stamp]:
    """Return sizes and times of the objects that exist; -1 if listing takes too long."""
    files = objects(urls[0])
    if len(urls) == 1:
        one = files.find_object(urls[0])
        return {} if one is None else {urls[0]: Stamp(one.size, one.mtime)}
    most = max(_FEW, _PER_IMAGE * len(urls))
    found = files.list_objects(common_folder(urls), at_most=most)
    if found is None:
        return dict.fromkeys(urls, NO_STAMP)
    all_of_them = {each.url: Stamp(each.size, each.mtime) for each in found}
    return {url: all_of_them[url] for url in urls if url in all_of_them}
