"""Rows in one uncompressed file, which every task opens for itself."""

from __future__ import annotations

import hashlib
import math
import uuid
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.errors import InputError

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ids: TypeAlias = npt.NDArray[np.int64]

_BLOCK = 2**24  # bytes written or hashed together
_GAP = 2**15  # bytes of unwanted rows that cost less to read than another call
_RUN = 2**22  # bytes of one call at most


@dataclass(frozen=True, slots=True)
class Spool:
    """Rows that lie one after the other in a file, small enough to be sent to tasks.

    Made by `spool`.

    Parameters
    ----------
    folder : str
        Where the file is; all workers reach it by this name.
    shape : tuple of int
        Rows and features.
    dtype : str
        Of the numbers, such as ``"<f4"``.
    digest : str
        Of dtype, shape and bytes, whatever chunks they came in.
    """

    folder: str
    shape: tuple[int, int]
    dtype: str
    digest: str

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.folder) / f"rows-{self.digest}.raw"

    @property
    def rows(self) -> npt.NDArray[Any]:
        """The rows as a read-only memory map, shape (N, F), opened anew at each call.

        Raises
        ------
        InputError
            When this process cannot see the file.
        """
        if not math.prod(self.shape):
            return np.empty(self.shape, self.dtype)
        try:
            return np.memmap(self.path, self.dtype, mode="r", shape=self.shape)
        except FileNotFoundError as error:
            raise unseen(self.path) from error

    def block(self, start: int, stop: int) -> Floats:
        """Read the rows `start` to `stop`, shape (stop - start, F)."""
        row = self.shape[1] * np.dtype(self.dtype).itemsize
        try:
            flat = np.fromfile(
                self.path,
                self.dtype,
                count=(stop - start) * self.shape[1],
                offset=start * row,
            )
        except FileNotFoundError as error:
            raise unseen(self.path) from error
        return flat.reshape(stop - start, self.shape[1])

    def take(self, ids: Ids) -> Floats:
        """Read some rows without a memory map, whose pages would count as memory.

        Parameters
        ----------
        ids : ndarray of int64, shape (M,)
            Row numbers, ascending, each once.

        Returns
        -------
        ndarray, shape (M, F)
        """
        out = np.empty((len(ids), self.shape[1]), self.dtype)
        if not out.size:
            return out
        width = out.strides[0]
        far = np.diff(ids) > max(1, _GAP // width)
        full = np.diff(ids // max(1, _RUN // width)) > 0
        edges = np.flatnonzero(far | full) + 1
        try:
            with self.path.open("rb", buffering=0) as file:
                for first, last in pairwise([0, *edges.tolist(), len(ids)]):
                    run = ids[first:last]
                    file.seek(int(run[0]) * width)
                    raw = file.read((int(run[-1] - run[0]) + 1) * width)
                    rows = np.frombuffer(raw, self.dtype).reshape(-1, self.shape[1])
                    out[first:last] = rows[run - run[0]]
        except FileNotFoundError as error:
            raise unseen(self.path) from error
        return out


@dataclass(frozen=True, slots=True)
class _Target:
    """What Dask stores chunks of whole rows into."""

    path: str
    width: int  # bytes of a row
    dtype: str

    def __setitem__(self, key: tuple[slice, ...], value: npt.ArrayLike) -> None:
        data = np.ascontiguousarray(value, self.dtype)
        try:
            with Path(self.path).open("r+b") as file:
                file.seek(key[0].start * self.width)
                file.write(data.tobytes())
        except FileNotFoundError as error:
            raise unseen(Path(self.path)) from error


def spool(x: xr.DataArray, folder: str | Path) -> Spool:
    """Write the rows of `x` into one file, chunk by chunk, computing each of them once.

    Parameters
    ----------
    x : DataArray, dims (image, feature), floating
        In memory, or lazy: then computed on Dask's current scheduler.
    folder : str or Path
        Made if it is not there. All workers have to reach it by this name.

    Returns
    -------
    Spool
        Equal for equal rows, in whatever chunks; a file of an earlier call is replaced.

    Raises
    ------
    InputError
        When a worker cannot see the folder.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    dtype = x.dtype.newbyteorder("=").str
    shape = (x.sizes["image"], x.shape[1])
    part = place / f".rows.{uuid.uuid4().hex}.partial"
    width = shape[1] * np.dtype(dtype).itemsize
    try:
        with part.open("wb") as file:
            file.truncate(shape[0] * width)
        _fill(x, _Target(str(part.absolute()), width, dtype))
        made = Spool(str(place.absolute()), shape, dtype, _digest(part, shape, dtype))
        part.replace(made.path)
    finally:
        part.unlink(missing_ok=True)
    return made


def _fill(x: xr.DataArray, target: _Target) -> None:
    """Write every row: through Dask where it holds them, else block by block from here."""
    if not x.size:
        return
    if x.chunks is not None:
        whole_rows = cast("da.Array", x.data).rechunk({1: -1})
        da.store(whole_rows, target, lock=False)  # type: ignore[arg-type]
        return
    height = max(1, _BLOCK // max(1, target.width))
    for start in range(0, x.shape[0], height):
        part = slice(start, min(start + height, x.shape[0]))
        target[part, :] = x[part].values


def _digest(path: Path, shape: tuple[int, int], dtype: str) -> str:
    found = hashlib.blake2b(f"{shape}{dtype}".encode(), digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_BLOCK):
            found.update(piece)
    return found.hexdigest()


def unseen(path: Path) -> InputError:
    """Return the error of a task that cannot see a file of the run.

    Parameters
    ----------
    path : Path
        The file that should be there.

    Returns
    -------
    InputError
    """
    return InputError(
        f"a task needs {path} and does not find it: pass scratch=, "
        "a folder that all workers reach under one name."
    )
