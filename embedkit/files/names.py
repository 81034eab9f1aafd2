"""What the names of files look like, in a folder and in an object store."""

from __future__ import annotations

import re

# what a writer of ours (".x.<hex>.partial") or of Zarr ("x.<hex>.partial") has not finished
_PARTIAL = re.compile(r"(\..*|.*\.[0-9a-f]{32})\.partial")
_GUARD = re.compile(r"\..*\.guard")


def checked(name: str, *, empty: bool = False) -> str:
    """Return `name` if it stays below the place it is relative to.

    Parameters
    ----------
    name : str
        A relative POSIX path.
    empty : bool, default False
        Whether ``""``, the place itself, may be named.

    Returns
    -------
    str
        The name as it came.

    Raises
    ------
    ValueError
        For an absolute name, and for one with an empty part, ``.``, ``..`` or a NUL.

    Examples
    --------
    >>> checked("layers/fc/zarr.json")
    'layers/fc/zarr.json'
    """
    if empty and not name:
        return name
    if "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError(
            f"name {name!r} is not a relative path of plain parts: give one like 'a/b.json', "
            "without '.', '..', NUL or a slash at either end"
        )
    return name


def is_partial(part: str) -> bool:
    """Return whether one part of a path is a temporary name of an unfinished write.

    Parameters
    ----------
    part : str
        The last part of a path.

    Examples
    --------
    >>> is_partial(".record.json.3f.partial"), is_partial("my.partial")
    (True, False)
    """
    return _PARTIAL.fullmatch(part) is not None


def is_hidden(part: str) -> bool:
    """Return whether one part of a path is machinery and no file of the caller's.

    Parameters
    ----------
    part : str
        The last part of a path.

    Examples
    --------
    >>> is_hidden(".lock.json.guard"), is_hidden(".hidden")
    (True, False)
    """
    return is_partial(part) or _GUARD.fullmatch(part) is not None
