"""Identity: the hash of everything that decides the stored numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import takewhile

from embedkit.errors import IdentityMismatch


def identity_of(parts: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of the named parts of an identity.

    Parameters
    ----------
    parts : mapping of str to str
        For instance ``{"images": digest, "weights": digest, "pool": "avg"}``; the order
        does not matter.
    """
    canonical = json.dumps(dict(parts), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def check_identity(
    stored: Mapping[str, str],
    asked: Mapping[str, str],
    *,
    where: str,
    remedy: str = "or delete the store",
) -> None:
    """Refuse to extend a store that was made from something else.

    Parameters
    ----------
    stored, asked : mapping of str to str
        The parts that the store was made from, and those of the call.
    where : str
        The store's path, for the message.
    remedy : str, default "or delete the store"
        What else can be done, for the message.

    Raises
    ------
    IdentityMismatch
        Naming the parts that differ.
    """
    names = sorted(stored.keys() | asked.keys())
    parts = tuple(name for name in names if stored.get(name) != asked.get(name))
    if not parts:
        return
    error = IdentityMismatch(
        f"store {where} was made with other {' and '.join(parts)} "
        f"({'; '.join(_difference(name, stored, asked) for name in parts)}): "
        f"give another path, the same settings, {remedy}"
    )
    error.parts = parts
    raise error


def _difference(name: str, stored: Mapping[str, str], asked: Mapping[str, str]) -> str:
    before = " ".join(stored.get(name, "none").split())
    now = " ".join(asked.get(name, "none").split())
    pairs = zip(before, now, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return f"{name} stored {_short(before, same)}, asked {_short(now, same)}"


def _short(text: str, same: int, width: int = 60) -> str:
    """Cut a long text to where it begins to differ."""
    start = max(0, same - width // 2) if len(text) > width else 0
    end = start + width
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
