"""Three ways to compute several layers.

``fused`` computes all layers in one forward pass and pools them there. ``staged`` computes
the map of each layer from the stored map of the one before, and pools it from there.
``lazy`` begins at the images for every layer anew. What each takes is what its turns take,
see `embedkit.planning.turns`.

References
----------
Nakandala, S. and Kumar, A. (2020). Vista: Optimized System for Declarative Feature
Transfer from Deep CNNs at Scale. SIGMOD, section 4 (there "eager", "staged", "lazy").
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast, get_args

from embedkit.errors import InputError, did_you_mean

Strategy: TypeAlias = Literal["fused", "staged", "lazy"]

AskedStrategy: TypeAlias = Strategy | Literal["auto"]


def check_strategy(strategy: str) -> AskedStrategy:
    """Return what was asked for, if there is such a way.

    Raises
    ------
    InputError
        With the nearest one.
    """
    if strategy == "auto" or strategy in get_args(Strategy):
        return cast(AskedStrategy, strategy)
    nearest = did_you_mean(str(strategy), [*get_args(Strategy), "auto"])
    raise InputError(f"layers cannot be computed {strategy!r}. {nearest}")
