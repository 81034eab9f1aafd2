"""A network in one line."""

from __future__ import annotations


def described(
    name: str,
    *,
    layers: int,
    parameters: int,
    input_shape: tuple[int, ...],
    untraced: str | None,
) -> str:
    """Return what a network is, for people.

    Parameters
    ----------
    name : str
        Its name.
    layers, parameters : int
        How many it has.
    input_shape : tuple of int
        What it takes for one image.
    untraced : str or None
        Why it has no graph, or None where it has one.

    Examples
    --------
    >>> described("net", layers=3, parameters=1_700, input_shape=(3, 8, 8), untraced=None)
    'net · 3 layers · 1.7 k parameters · input 3×8×8'
    """
    size = "×".join(map(str, input_shape))
    reason = untraced and f" · not traceable: {untraced}; layers are module calls"
    return (
        f"{name} · {layers} layers · {_human(parameters)} parameters "
        f"· input {size}{reason or ''}"
    )


def _human(count: int) -> str:
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
