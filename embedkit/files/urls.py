"""Which URLs and endpoints of object stores are usable, without asking any."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from embedkit.errors import InputError
from embedkit.files.names import checked

SCHEMES = ("s3", "gs", "az", "abfs", "memory")
_ALSO = ("s3a", "azure", "adl", "abfss")  # other names of the same
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def known(scheme: str) -> bool:
    """Return whether a scheme is one of an object store.

    Examples
    --------
    >>> known("s3"), known("ftp")
    (True, False)
    """
    return scheme in SCHEMES + _ALSO


def normal(url: str) -> str:
    """Return `url` without trailing slashes if an object store can be there.

    Parameters
    ----------
    url : str
        What a user gave.

    Returns
    -------
    str
        ``<scheme>://<bucket>`` or ``<scheme>://<bucket>/<prefix>``.

    Raises
    ------
    InputError
        For an unknown scheme, no bucket, and a prefix that is no plain path.

    Examples
    --------
    >>> normal("s3://bucket/photos.zarr/")
    's3://bucket/photos.zarr'
    """
    scheme, _, rest = url.partition("://")
    if not known(scheme):
        names = ", ".join(f"{each}://" for each in SCHEMES)
        raise InputError(
            f"cannot use {url!r}: the scheme {scheme}:// is not one of {names}; give one of "
            "these, or a path without a scheme"
        )
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if not bucket:
        raise InputError(
            f"{url!r} names no bucket: give it as {scheme}://bucket/prefix"
        )
    try:
        checked(prefix, empty=True)
    except ValueError as error:
        raise InputError(f"cannot use {url!r}: {error}") from None
    if found := sorted(set(rest) & set("?#%")):
        raise InputError(
            f"cannot use {url!r}: {found[0]!r} has a meaning of its own in URLs; choose a "
            "prefix without it"
        )
    return f"{scheme}://{bucket}/{prefix}".rstrip("/")


def plain_http(settings: dict[str, str]) -> bool:
    """Return whether an S3 endpoint without encryption is asked for.

    Parameters
    ----------
    settings : dict of str
        Environment variables.

    Returns
    -------
    bool
        True only for one on this machine or with ``AWS_ALLOW_HTTP`` set.

    Raises
    ------
    InputError
        For any other.
    """
    plain = [
        settings[name]
        for name in _ENDPOINTS
        if settings.get(name, "").startswith("http://")
    ]
    allowed = settings.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true", "yes", "on"}
    for endpoint in plain:
        if not allowed and not _is_loopback(urlsplit(endpoint).hostname or ""):
            raise InputError(
                f"the endpoint {endpoint} would be sent everything in the clear: give an "
                "https:// one, or set AWS_ALLOW_HTTP=true"
            )
    return bool(plain)


def endpoint(root: str, settings: dict[str, str]) -> str:
    """Return which server is asked, for messages.

    Parameters
    ----------
    root : str
        ``s3://bucket``, ``https://host`` and the like.
    settings : dict of str
        Environment variables.

    Returns
    -------
    str
        For S3 the endpoint that is set; else `root`.

    Examples
    --------
    >>> endpoint("s3://bucket", {"AWS_ENDPOINT_URL": "https://minio.example.org"})
    'https://minio.example.org'
    """
    if not root.startswith("s3"):
        return root
    found = (settings[name] for name in _ENDPOINTS if settings.get(name))
    return next(found, root)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name than an address
        return False
