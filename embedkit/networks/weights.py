"""Weights files: read without running code, load without leniency, hash without doubt."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from embedkit.errors import NetworkError

_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    pickle.UnpicklingError,
    RuntimeError,
    SafetensorError,
    struct.error,
    TypeError,
    ValueError,
)
"""What the readers raise for files that are damaged or something else entirely."""

_WRAPPER = "state_dict"  # training scripts put it beside their epoch and optimizer
_PARALLEL = "module."  # what DataParallel puts before every name


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a file, on the CPU, without running code from it.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or anything else as PyTorch saves it. A state dict may be inside
        ``{"state_dict": ...}``, and all its names may begin with ``module.``.

    Returns
    -------
    dict of str to Tensor
        By name.

    Raises
    ------
    NetworkError
        When the file is missing or damaged, when reading it would run code, or when what
        it holds is not a state dict.
    """
    file = Path(path)
    if not file.is_file():
        message = (
            f"there is no weights file {str(file)!r}: pass the path of a .pt, .pth or "
            ".safetensors file, weights='default', or weights=None for random ones"
        )
        raise NetworkError(message)
    try:
        found = _read(file)
    except _UNREADABLE as error:
        message = (
            f"weights file {str(file)!r} of {file.stat().st_size} bytes cannot be read "
            f"({_reason(error)}): give a .safetensors file or one made by "
            "torch.save(module.state_dict(), path); a pickle that would run code is refused"
        )
        raise NetworkError(message) from error
    return _state_dict(found, file)


def _read(file: Path) -> object:
    if file.suffix == ".safetensors":
        return load_file(file, device="cpu")
    with warnings.catch_warnings():
        # That a file is a plain pickle, or that sparse tensors are checked, changes
        # nothing for the reader: it is read or refused all the same.
        notes = "Detected pickle protocol|Validating sparse tensor"
        warnings.filterwarnings("ignore", notes, UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _reason(error: BaseException) -> str:
    """Return the line of a long message that says what was wrong with the file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("WeightsUnpickler error")]
    line = (telling or lines or [type(error).__name__])[0]
    return line[:160]


def _state_dict(found: object, file: Path) -> dict[str, Tensor]:
    if isinstance(found, Mapping) and isinstance(found.get(_WRAPPER), Mapping):
        found = found[_WRAPPER]
    if not isinstance(found, Mapping) or not _all_tensors(found):
        message = (
            f"weights file {str(file)!r} holds a {type(found).__name__} that is no state "
            "dict: save module.state_dict(), which maps names to tensors"
        )
        raise NetworkError(message)
    parallel = all(name.startswith(_PARALLEL) for name in found)
    return {
        name.removeprefix(_PARALLEL) if parallel else name: tensor
        for name, tensor in found.items()
    }


def _all_tensors(found: Mapping[object, object]) -> bool:
    named = all(isinstance(name, str) for name in found)
    return named and all(isinstance(value, Tensor) for value in found.values())


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], *, name: str, source: object
) -> None:
    """Load weights into a module, or say why they are not its own.

    Parameters
    ----------
    module : Module
        Changed in place.
    state : mapping of str to Tensor
        As `read_weights` returns it.
    name, source : object
        The network and the file, for messages.

    Raises
    ------
    NetworkError
        When a name is missing, unexpected, or has another shape.
    """
    own = module.state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if isinstance(own[key], Tensor) and own[key].shape != state[key].shape
    ]
    found = {"of another shape": wrong}
    if not wrong:  # PyTorch raises for these itself, and then tells nothing of the rest
        keys = module.load_state_dict(dict(state), strict=False)
        found = {"missing": keys.missing_keys, "unexpected": keys.unexpected_keys}
    parts = [_count(kind, names) for kind, names in found.items() if names]
    if parts:
        message = (
            f"weights file {str(source)!r} does not fit network {name}: "
            f"{'; '.join(parts)}. Pass the weights of this very architecture, or an "
            "nn.Module that fits them with transform="
        )
        raise NetworkError(message)


def _count(kind: str, names: Sequence[str]) -> str:
    dots = ", ..." if len(names) > 3 else ""
    listed = " ".join(", ".join(names[:3]).split())  # a file may name them as it likes
    return f"{len(names)} {kind} ({listed}{dots})"


def is_plain(value: object) -> TypeGuard[Tensor]:
    """Tell whether bytes, type and shape are all there is to a tensor."""
    # Subclasses know better how they are made again, and so do sparse tensors.
    if not isinstance(value, Tensor) or type(value) not in (Tensor, nn.Parameter):
        return False
    return value.layout == torch.strided and not value.is_quantized


def flat_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor's values, in the order of its axes."""
    # A conjugate or negative may be a mere mark on the bytes of another tensor.
    own = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    flat = own.as_strided((own.numel(),), (1,))  # one entry may have any stride
    found: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return found


def tensor_parts(tensor: Tensor) -> Iterator[bytes | memoryview]:
    """Yield what makes a tensor the one it is: type, shape and then its bytes."""
    yield f"{tensor.dtype} {tuple(tensor.shape)}\n".encode()
    yield flat_bytes(tensor).data


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state and buffers, as hexadecimal digits.

    It covers name, type, shape and bytes of every tensor, sorted by name, and is the
    same whatever the device, the process or the version of PyTorch.
    """
    digest = hashlib.sha256()
    # What is not saved with the state, as some buffers are not, still enters the result.
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = {**named, **module.state_dict()}
    for name in sorted(state):
        digest.update(f"{name}\n".encode())
        value = state[name]
        parts = (
            tensor_parts(value) if isinstance(value, Tensor) else [repr(value).encode()]
        )
        for part in parts:
            digest.update(part)
    return digest.hexdigest()
