"""Hand a network to other processes: one file, named by its digest, checked before use."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import cloudpickle
import torch
from PIL import Image
from torch import Tensor, nn

from embedkit.errors import CorruptStore, NetworkError
from embedkit.files.files import Files, files_at
from embedkit.networks.tracing import FOREIGN_ERRORS, one_line
from embedkit.networks.weights import flat_bytes, is_plain

Parts = tuple[nn.Module, Callable[[Image.Image], Tensor], str]
"""Module, transform and name: what a network is made of again."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A network in a file.

    Attributes
    ----------
    url : str
        The folder or object store it is in.
    name : str
        Its name there.
    sha256 : str
        Of the file's bytes, as hexadecimal digits.
    """

    url: str
    name: str
    sha256: str


def _tensor(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Make a tensor from its bytes."""
    flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0)
    return flat.to(dtype).reshape(shape)


def _parameter(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> nn.Parameter:
    """Make a frozen parameter from its bytes."""
    return nn.Parameter(_tensor(data, dtype, shape), requires_grad=False)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Pickle tensors by value alone, so that equal networks give equal files.

    PyTorch's own way writes down addresses.
    """

    def reducer_override(self, obj: object) -> object:
        if not is_plain(obj):
            return super().reducer_override(obj)
        make = _parameter if isinstance(obj, nn.Parameter) else _tensor
        return make, (flat_bytes(obj).tobytes(), obj.dtype, tuple(obj.shape))


def write_spool(parts: Parts, files: Files) -> Spooled:
    """Write a network to ``network-<digest>.pkl``.

    One network may give two pickles, in two processes for instance. They get two files,
    so nobody's file changes while it is in use.

    Parameters
    ----------
    parts : tuple
        Module, transform and name.
    files : Files
        Where.

    Returns
    -------
    Spooled
        Place, name and digest. A file that has that digest is left alone, another under
        that name is replaced.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(parts)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    name = f"network-{digest[:16]}.pkl"
    if _digest_of(files, name) != digest:
        files.write(name, data)
    return Spooled(url=files.url, name=name, sha256=digest)


def _digest_of(files: Files, name: str) -> str | None:
    """Return the digest of what is there, or None."""
    try:
        return hashlib.sha256(files.read(name)).hexdigest()
    except FileNotFoundError:
        return None


def read_spool(spooled: Spooled) -> Parts:
    """Return the parts of the network in a file.

    Parameters
    ----------
    spooled : Spooled
        What `write_spool` returned.

    Returns
    -------
    tuple
        Module, transform and name.

    Raises
    ------
    CorruptStore
        When the file's bytes are not those that were written. They are compared before
        anything in them is looked at.
    NetworkError
        When the file is not there, or needs a module that this process cannot import.
    MissingDependencyError
        When it lies in an object store and obstore is not installed.
    """
    where = f"{spooled.url}/{spooled.name}"
    try:
        data = files_at(spooled.url).read(spooled.name)
    except OSError as error:
        message = (
            f"network file {where!r} cannot be read here ({error.strerror}): put it where "
            "all workers can read it, on a shared file system or in an object store"
        )
        raise NetworkError(message) from error
    found = hashlib.sha256(data).hexdigest()
    if found != spooled.sha256:
        message = (
            f"network file {where!r} has SHA-256 {found[:12]}… and "
            f"{spooled.sha256[:12]}… was written: delete it and run the call again"
        )
        raise CorruptStore(message)
    return _unpickle(data, where)


def _unpickle(data: bytes, path: str) -> Parts:
    try:
        parts: Parts = pickle.loads(data)
    except (*FOREIGN_ERRORS, ImportError, pickle.UnpicklingError) as error:
        message = (
            f"network file {path!r} cannot be loaded in this process ({one_line(error)}): its "
            "classes have to be importable on every worker, in the same versions"
        )
        raise NetworkError(message) from error
    return parts
