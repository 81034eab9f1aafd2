"""Where one file at a URL is: on which server, and under which name there."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from embedkit.errors import InputError
from embedkit.files.names import checked
from embedkit.files.urls import SCHEMES, known, normal

_HTTP: Final = ("http", "https")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# Signs that stand for themselves in the path of a URL: RFC 3986, section 3.3 (pchar).
_PLAIN: Final = "/!$&'()*+,;=:@~"


class Place(NamedTuple):
    """Where a file at a URL is.

    Attributes
    ----------
    root : str
        What is connected to: ``s3://bucket``, ``https://host``, with the query if there
        is one, or for a web address without a plain path all of it.
    name : str
        The name of the file there, not escaped; ``""`` is `root` itself.
    """

    root: str
    name: str


def is_http(url: str) -> bool:
    """Return whether a web server is meant and no object store.

    Examples
    --------
    >>> is_http("https://example.org/a.jpg"), is_http("s3://bucket/a.jpg")
    (True, False)
    """
    return url.partition("://")[0] in _HTTP


def place_of(url: str) -> Place:
    """Return where the file at a URL is, without asking anybody.

    Parameters
    ----------
    url : str
        ``s3://bucket/name``, likewise ``gs://``, ``az://`` and ``memory://``: the name is
        taken as it is, so that ``%``, ``?`` and ``#`` may be in it; or ``http://`` and
        ``https://``, where these have their meaning [1]_.

    Returns
    -------
    Place

    Raises
    ------
    InputError
        For another scheme, no bucket or host, a name that no object store client can
        ask for, and a web address with a password or a fragment.

    References
    ----------
    .. [1] Berners-Lee, T., Fielding, R., Masinter, L. (2005). Uniform Resource
       Identifier (URI): Generic Syntax. RFC 3986.

    Examples
    --------
    >>> place_of("s3://bucket/a b/1#2.jpg")
    Place(root='s3://bucket', name='a b/1#2.jpg')
    >>> place_of("https://example.org/a%20b.jpg")
    Place(root='https://example.org', name='a b.jpg')
    >>> place_of("https://example.org/a.jpg?size=3")
    Place(root='https://example.org/?size=3', name='a.jpg')
    """
    return _web_place(url) if is_http(url) else _object_place(url)


def host_of(url: str) -> str:
    """Return scheme and host, or scheme and bucket.

    Examples
    --------
    >>> host_of("https://example.org:8080/a.jpg?b"), host_of("s3://bucket/a.jpg")
    ('https://example.org:8080', 's3://bucket')
    """
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"


def _object_place(url: str) -> Place:
    scheme, _, rest = url.partition("://")
    if not known(scheme):
        names = ", ".join(f"{each}://" for each in (*SCHEMES, *_HTTP))
        raise InputError(
            f"cannot use {url!r}: the scheme {scheme}:// is not one of {names}; give one of "
            "these, or a path without a scheme"
        )
    bucket, _, name = rest.partition("/")
    root = normal(f"{scheme}://{bucket}")
    name = name.rstrip("/")
    try:
        checked(name, empty=True)
    except ValueError as error:
        raise InputError(f"cannot use {url!r}: {error}") from None
    if _CONTROL.search(name):
        raise InputError(
            f"cannot use {url!r}: there is a control character in it; rename the object"
        )
    return Place(root, name)


def _web_place(url: str) -> Place:
    try:
        parts = urlsplit(url)
        host, password = parts.hostname, parts.password
    except ValueError as error:  # brackets that hold no address
        raise InputError(f"cannot use {url!r}: {error}") from None
    if not host:
        raise InputError(f"{url!r} names no host: give it as https://host/a.jpg")
    if password is not None:
        raise InputError(
            f"the URL of {parts.path!r} on {host} holds a password, which would be stored "
            "with the image; give one without"
        )
    if parts.fragment:
        raise InputError(
            f"cannot use {url!r}: what stands behind '#' is not sent to the server; write "
            "%23 for a '#' in a file's name"
        )
    return _split(url, parts.path, parts.query)


def _split(url: str, path: str, query: str) -> Place:
    """Return server and name if the name comes out as this very path, else the URL.

    What is a root of its own costs a connection of its own.
    """
    name = unquote(path)[1:]
    again = quote(name, safe=_PLAIN) == quote(path, safe=f"%{_PLAIN}")[1:]
    plain = not any(part in {"", ".", ".."} for part in name.split("/"))
    if again and plain and not _CONTROL.search(name) and not url.endswith("?"):
        return Place(f"{host_of(url)}/?{query}" if query else host_of(url), name)
    return Place(url, "")
