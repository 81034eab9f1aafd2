"""Plans and measurements as JSON: read back whole, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from embedkit.errors import InputError

_Made = TypeVar("_Made")


def read_document(
    text: str,
    make: Callable[[dict[str, Any]], _Made],
    *,
    version: int,
    what: str,
    remedies: tuple[str, str],
) -> _Made:
    """Return what a text says.

    Parameters
    ----------
    text : str
        One JSON object with its ``format``.
    make : callable
        From that object without the format, which it may change.
    version : int
        The format that is read.
    what : str
        What the text should be, such as ``"plan"``.
    remedies : tuple of str
        What to do about a text that is none, and about another format.

    Raises
    ------
    InputError
        When it is no such text, or that of another format.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        there = found.pop("format")
        made = make(found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"this is no {what} ({error}): {remedies[0]}"
        raise InputError(message) from error
    if there != version:
        message = (
            f"the {what.split()[0]} has format {there!r} and this embedkit reads {version}: "
            f"{remedies[1]}"
        )
        raise InputError(message)
    return made
