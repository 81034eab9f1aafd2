"""The ways of pooling that there are, as text. No tensors here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from embedkit.errors import InputError, did_you_mean

Pool: TypeAlias = str
"""How a layer is pooled: one of `POOLS`, or ``"random_projection(k)"`` (`check_pool`)."""

POOLS = (
    "avg",
    "max",
    "gem",
    "avg2x2",
    "max2x2",
    "cls",
    "tokens_avg",
    "flatten",
    "none",
)
"""All ways of pooling that take no number."""

GRIDS = ("avg2x2", "max2x2")
TOKENS = ("cls", "tokens_avg")

_PROJECTION = "random_projection"
_CALL = re.compile(
    r"random_projection\(\s*(?:k\s*=\s*)?([0-9]{1,18})\s*"
    r"(?:,\s*(?:seed\s*=\s*)?([0-9]{1,18})\s*)?\)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A random projection, as its text has it.

    Attributes
    ----------
    k : int
        Numbers that it leaves.
    seed : int
        Of its matrix.
    """

    k: int
    seed: int


def check_pool(pool: object) -> Pool:
    """Return the canonical spelling of a way of pooling.

    Parameters
    ----------
    pool : str
        ``"avg"``, ``"max"`` or ``"gem"`` (generalised mean) over positions;
        ``"avg2x2"`` or ``"max2x2"`` over the four parts of a map; ``"cls"`` for the
        first token, ``"tokens_avg"`` for the mean of the others; ``"flatten"`` to a
        vector; ``"none"`` for the value as it is; ``"random_projection(k)"`` or
        ``"random_projection(k, seed=s)"`` to k numbers, the seed 0 where none is given.

    Returns
    -------
    str
        Equal for two spellings of one way.

    Raises
    ------
    InputError
        When there is no such way of pooling.

    Examples
    --------
    >>> check_pool("avg"), check_pool("random_projection( 64,seed=0 )")
    ('avg', 'random_projection(64)')
    """
    text = pool.strip() if isinstance(pool, str) else repr(pool)
    if text in POOLS and isinstance(pool, str):
        return text
    found = projection_of(text)
    if found is None:
        names = [*POOLS, f"{_PROJECTION}(64)"]
        message = f"there is no pool {text!r}. {did_you_mean(text, names)}"
        raise InputError(message)
    if found.k < 1:
        message = (
            f"pool {text!r} leaves nothing: give {_PROJECTION}(k) a k of 1 or more"
        )
        raise InputError(message)
    seed = f", seed={found.seed}" if found.seed else ""
    return f"{_PROJECTION}({found.k}{seed})"


def projection_of(pool: Pool) -> Projection | None:
    """Return what a random projection asks for, or None where `pool` is none.

    Examples
    --------
    >>> projection_of("random_projection(64, seed=3)")
    Projection(k=64, seed=3)
    >>> projection_of("avg") is None
    True
    """
    match = _CALL.fullmatch(pool)
    if match is None:
        return None
    return Projection(k=int(match[1]), seed=int(match[2] or 0))
