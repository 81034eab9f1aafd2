"""From an image to what a network takes, by a transform that may be anyone's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from embedkit.errors import EmbedkitError, NetworkError
from embedkit.networks.tracing import one_line

Transform: TypeAlias = Callable[[Image.Image], Tensor]
"""From an image of any size to a float tensor (C, H, W) of the network's size."""


def prepared(
    transform: Transform, image: Image.Image, *, network: str
) -> NDArray[np.float32]:
    """Return an image as a network takes it.

    Parameters
    ----------
    transform : callable
        The network's.
    image : PIL image
        Of any size.
    network : str
        Its name, for messages.

    Returns
    -------
    ndarray of float32, shape (C, H, W)
        Contiguous.

    Raises
    ------
    NetworkError
        When the transform fails, or gives anything but a floating tensor of three axes.
    """
    tensor = _transformed(transform, image, network)
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


def _transformed(transform: Transform, image: Image.Image, network: str) -> object:
    try:
        return transform(image)
    except EmbedkitError:
        raise
    except Exception as error:  # a transform is anyone's code
        called = getattr(transform, "__name__", type(transform).__name__)
        columns, rows = image.size
        message = (
            f"the transform {called} of network {network} fails on a {columns}×{rows} "
            f"image of mode {image.mode} ({one_line(error)}): pass transform= that "
            "takes PIL images of any size"
        )
        raise NetworkError(message) from error
