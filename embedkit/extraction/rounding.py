"""Storing layers in half the bytes: what is lost, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from embedkit.errors import InputError, NetworkError, did_you_mean

Dtype: TypeAlias = Literal["float32", "float16"]
"""What layers are stored as. Networks compute in float32 either way."""


def check_dtype(dtype: str) -> None:
    """Refuse a type that layers cannot be stored as.

    Raises
    ------
    InputError
        With the nearest one.
    """
    if dtype not in get_args(Dtype):
        nearest = did_you_mean(str(dtype), get_args(Dtype))
        message = f"layers cannot be stored as {dtype!r}. {nearest}"
        raise InputError(message)


def rounding(dtype: Dtype) -> float:
    """Return by how much two equal rows may differ because they were rounded.

    Relative to the largest magnitude in the row. Numbers that are nearly equal may round
    to neighbours, which float16 has 2**-10 of their magnitude apart; none in float32.

    References
    ----------
    IEEE 754-2019, section 3.6 (binary16: 11 significant bits, largest value 65,504).
    """
    return 0.0 if dtype == "float32" else float(np.finfo(dtype).eps)


def rounded(
    values: npt.NDArray[np.float32], dtype: str, *, layer: str, ids: Sequence[str]
) -> tuple[npt.NDArray[Any], float]:
    """Return values as they are stored, and how far off that is.

    Parameters
    ----------
    values : (n, ...) array of float32
        One row per image; NaN and infinities stay what they are.
    dtype : str
        A `Dtype`.
    layer : str
        What they are, for messages.
    ids : sequence of str
        Of the images.

    Returns
    -------
    stored : (n, ...) array of `dtype`
        Rounded to nearest; `values` itself where nothing changes.
    error : float
        The largest absolute difference; 0 for float32.

    Raises
    ------
    NetworkError
        When a finite value is beyond the largest that `dtype` has.
    """
    if values.dtype == dtype:
        return values, 0.0
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    flat, kept = values.reshape(len(values), -1), stored.reshape(len(values), -1)
    beyond = np.isfinite(flat) & ~np.isfinite(kept)
    if beyond.any():
        row = int(beyond.any(axis=1).argmax())
        largest = float(np.abs(flat[row][beyond[row]]).max())
        message = (
            f"layer {layer} is {largest:.3g} for image {ids[row]!r} and {dtype} ends at "
            f"{float(np.finfo(dtype).max):,.0f}: store it as float32, or pool it otherwise"
        )
        raise NetworkError(message)
    finite = np.isfinite(flat)
    gaps = np.abs(flat[finite] - kept[finite].astype(np.float32))
    return stored, float(gaps.max(initial=0.0))
