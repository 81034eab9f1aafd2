"""Bytes and seconds in words."""

from __future__ import annotations

MIB = 2**20
GIB = 2**30


def told_bytes(count: float) -> str:
    """Return bytes in binary units.

    Examples
    --------
    >>> told_bytes(300), told_bytes(1536), told_bytes(4 * GIB)
    ('300 B', '1.5 KiB', '4.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def rounded_up(count: int) -> tuple[int, str]:
    """Return the next number of bytes that people would write, and how they would.

    It is what ``dask.utils.parse_bytes`` makes of the text, and no less than `count`.

    Examples
    --------
    >>> rounded_up(3 * MIB - 7), rounded_up(GIB + 1)
    ((3145728, '3 MiB'), (1181116006, '1.1 GiB'))
    """
    if count <= GIB:
        mib = -(-count // MIB)
        return mib * MIB, f"{mib} MiB"
    tenths = -(-10 * count // GIB)
    tenths += int(tenths / 10 * GIB) < count
    return int(tenths / 10 * GIB), f"{tenths / 10:.1f} GiB"


def told_seconds(seconds: float) -> str:
    """Return a time in the unit that people would use.

    Examples
    --------
    >>> told_seconds(0.25), told_seconds(90), told_seconds(5400), told_seconds(200_000)
    ('0.25 s', '1.5 min', '1.5 h', '2.3 days')
    """
    for below, size, unit in ((60, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h")):
        if seconds < below:
            return f"{seconds / size:.{'3g' if size == 1 else '1f'}} {unit}"
    return f"{seconds / 86400:.1f} days"


def told_count(count: int, thing: str) -> str:
    """Return how many there are of a thing.

    Examples
    --------
    >>> told_count(1, "worker"), told_count(1200, "file")
    ('1 worker', '1,200 files')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
