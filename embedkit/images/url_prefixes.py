"""Images below a prefix of an object store, or matching a glob there."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from embedkit.errors import InputError, SourceError
from embedkit.files.places import host_of, is_http, place_of
from embedkit.files.reasons import said
from embedkit.images.decode import image_extensions
from embedkit.images.folder import has_wildcard, placed
from embedkit.images.imageset import ImageSet
from embedkit.images.paths import Stamp
from embedkit.images.url_lists import check_kind, from_urls, url_extension
from embedkit.images.url_source import UrlSource, objects


def from_url(url: str, *, root: str | Path | None = None) -> ImageSet:
    """Return the image at a URL, or those below a prefix or matching a glob.

    Parameters
    ----------
    url : str
        ``s3://bucket/photos/``, ``s3://bucket/photos/**/*.jpg`` or the URL of one image.
    root : str, optional
        For one image: what its id is relative to.

    Returns
    -------
    ImageSet
        Ids, labels and splits as for a folder of files.

    Raises
    ------
    InputError
        For a web server, unless one image is asked for; for tables and tar files.
    SourceError
        If the server cannot be reached, or there is no image.
    """
    check_kind(url)
    if is_http(url):
        if has_wildcard(url.partition("?")[0]) or not _is_image(url):
            raise InputError(
                f"cannot open {url!r}: a web server cannot list its files; give a list or "
                "a table of URLs, or a list of one for an image without an extension"
            )
        return from_urls([url], root=root)
    if _is_image(url) and (root is not None or _is_there(url)):
        return from_urls([url], root=root)
    if root is not None:
        raise InputError(
            "root= is for tables and lists of paths; leave it out for this source"
        )
    is_glob = has_wildcard(url) and not url.endswith("/")
    return _from_glob(url) if is_glob else _from_prefix(url)


def _is_image(url: str) -> bool:
    return url_extension(url) in image_extensions()


def _is_there(url: str) -> bool:
    """Tell whether there is an object of this name, which may look like a glob."""
    try:
        return objects(url).find_object(url) is not None
    except PermissionError:  # some buckets let nobody ask, but everybody read
        return not has_wildcard(url)
    except OSError as error:
        raise SourceError(f"cannot open {url!r}: {said(error)}") from error


def _from_prefix(url: str) -> ImageSet:
    place = place_of(url)
    root = f"{place.root}/{place.name}".rstrip("/")
    return placed(root, _listed(root), asked=f"{root!r}", source=UrlSource())


def _from_glob(pattern: str) -> ImageSet:
    host = host_of(pattern)
    parts = pattern[len(host) :].strip("/").split("/")
    if any("**" in part and part != "**" for part in parts):
        raise InputError(f"in glob {pattern!r}, '**' must stand alone between slashes")
    wild = next(i for i, part in enumerate(parts) if has_wildcard(part))
    root, rest = "/".join([host, *parts[:wild]]), parts[wild:]
    hidden = any(part.startswith(".") for part in rest)  # asked for by name
    found = {
        name: stamp
        for name, stamp in _listed(root, hidden=hidden).items()
        if _matches(name.split("/"), rest)
    }
    return placed(root, found, asked=f"glob {pattern!r}", source=UrlSource())


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Tell whether a name matches a glob, part by part."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        starts = range(len(parts) + 1)
        return any(_matches(parts[start:], patterns[1:]) for start in starts)
    first = bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0])
    return first and _matches(parts[1:], patterns[1:])


def _listed(root: str, *, hidden: bool = False) -> dict[str, Stamp]:
    """Return the objects below a URL by their names, relative to it."""
    try:
        found = objects(root).list_objects(root)
    except OSError as error:
        raise SourceError(f"{root!r} cannot be listed: {said(error)}") from error
    named = {each.url[len(root) + 1 :]: Stamp(each.size, each.mtime) for each in found}
    return {
        name: stamp for name, stamp in named.items() if hidden or "/." not in f"/{name}"
    }
