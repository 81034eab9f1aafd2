"""What a transform gives, brought into the form that a network is run on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from embedkit.errors import NetworkError


def as_input(tensor: object, *, network: str) -> NDArray[np.float32]:
    """Return what a transform gave as an array.

    Parameters
    ----------
    tensor : object
        A floating tensor of shape (C, H, W).
    network : str
        Whose transform it was, for messages.

    Returns
    -------
    ndarray of float32, shape (C, H, W)
        Contiguous.

    Raises
    ------
    NetworkError
        When it is anything else.
    """
    if not isinstance(tensor, Tensor):
        found = f"a {type(tensor).__name__}"
    elif tensor.ndim != 3 or not tensor.is_floating_point():
        found = f"a tensor {tuple(tensor.shape)} of {tensor.dtype}"
    else:
        wide = tensor.detach().cpu().float()
        return np.array(wide.numpy(), order="C")
    message = (
        f"the transform of network {network} gave {found}: it has to give a "
        "floating tensor of shape (channels, rows, columns)"
    )
    raise NetworkError(message)


def human(count: int) -> str:
    """Return a count as people read it.

    Examples
    --------
    >>> human(11_689_512), human(10)
    ('11.7 M', '10')
    """
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
