"""Scores of a pair of tiles on a GPU, where one is at hand, and what is wanted of them.

The product is in float32 as IEEE 754 has it: tensor cores that round factors to fewer bits
(TF32, half precision) are off, so that `score_bounds` holds here too: it asks for no order
of the sums, nor whether they are fused or split, and its slack covers what is flushed to
zero. Candidates may differ from those of a CPU in the last bits of their
scores; what is found does not, as float64 decides on the CPU in both cases.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.tile_hits import FOLDED, Bound, Float64s, Hits

if TYPE_CHECKING:
    import torch

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

_WORTH = 1e12  # operations: ten seconds of a core, loading torch takes two
_PER_SCORE = 32  # bytes: itself, copies of it, masks, and where it is if all are hits
_DRIVER = (Path("/proc/driver/nvidia/gpus"), Path("/dev/nvidia0"))
_EMULATION = "CUBLAS_EMULATE_SINGLE_PRECISION"  # by bfloat16, without a proven bound
_lock = threading.Lock()  # the precision of products is one for the process


class DeviceFailed(Exception):
    """The GPU is out of memory or does not work; the CPU can do the same."""


def device_for(flops: float) -> str | None:
    """Return the device for a search, in this process.

    Parameters
    ----------
    flops : float
        Operations of all products of the search.

    Returns
    -------
    str or None
        ``"cuda"``, or None where the CPU is to do it: no GPU, or not worth loading torch.
    """
    loaded = "torch" in sys.modules
    if flops < _WORTH or not (loaded or _gpu_in_sight()):
        return None
    if os.environ.get(_EMULATION, "0") != "0":
        return None
    return "cuda" if _works("cuda") else None


def _gpu_in_sight() -> bool:
    """Tell whether there may be a GPU, without torch, which takes seconds to load."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    return any(path.exists() for path in _DRIVER)


@functools.cache
def _works(device: str) -> bool:
    """Tell whether a device is there and multiplies float32 without rounding factors."""
    import torch

    if device == "cuda" and not (torch.version.cuda and torch.cuda.is_available()):
        return False
    wide = np.zeros((1024, 1024), np.float32)
    wide[:, ::64] = 1 + 2.0**-19  # 16 of them add up exactly, in any order
    try:
        scores = DeviceRoom(device).product(wide, np.ones_like(wide)).best(1)
    except DeviceFailed:
        return False
    return bool((scores == 16 * (1 + 2.0**-19)).all())


class DeviceRoom:
    """Where a task multiplies tiles; left rows stay there for the next product.

    Parameters
    ----------
    device : str
        Of torch: ``"cuda"``, or ``"cpu"``, which is for tests.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)
        self._left: tuple[Floats, torch.Tensor] | None = None

    def product(self, turned: Floats, other: Floats) -> DeviceScores:
        """Multiply left rows by right ones.

        Parameters
        ----------
        turned : ndarray of float32, shape (M, F + 2)
        other : ndarray of float32, shape (P, F + 2)

        Returns
        -------
        DeviceScores
            Of shape (M, P).

        Raises
        ------
        DeviceFailed
            When the tiles, the scores and what is found do not fit into half of what is
            free: other tasks use the device as well.
        """
        self._check_room(turned, other)
        with _failures():
            if self._left is None or self._left[0] is not turned:
                self._left = turned, self._there(turned)
            right = self._there(other)
            with _exact_factors(self._torch, self._device):
                return DeviceScores(self._left[1] @ right.T)  # (M, P)

    def _there(self, rows: Floats) -> torch.Tensor:
        return self._torch.from_numpy(rows).to(self._device)

    def _check_room(self, turned: Floats, other: Floats) -> None:
        if self._device.type != "cuda":
            return
        with _failures():
            free, _ = self._torch.cuda.mem_get_info(self._device)
        needed = turned.nbytes + other.nbytes + _PER_SCORE * len(turned) * len(other)
        if needed > free // 2:
            raise DeviceFailed(f"tiles take {needed:,} bytes, {free:,} are free")


@dataclass(frozen=True, slots=True)
class DeviceScores:
    """Scores of M rows with P others, like `embedkit.analysis.exact.tile_hits.Scores`.

    Parameters
    ----------
    scores : Tensor of float32, shape (M, P)
        On the device.
    """

    scores: torch.Tensor

    def transposed(self) -> DeviceScores:
        """Return the scores of the P others with the M rows; no copy."""
        return DeviceScores(self.scores.T)

    def hits(self, bound: Bound, sizes: Float64s) -> Hits:
        """Find the pairs that reach the cut of their row; see `tile_hits.hits`.

        Parameters
        ----------
        bound : Bound
            Of the M rows; tightened where a row has more pairs than it allows.
        sizes : ndarray of float64, shape (P,)
            Of the others; see `score_bounds.sizes`.

        Returns
        -------
        row, column : ndarray of intp, shape (H,)
        score : ndarray of float32, shape (H,)
        lost : ndarray of intp, shape (L,)
            Rows that have too many, which are left out.

        Raises
        ------
        DeviceFailed
        """
        with _failures():
            mask = self.scores >= self._column(bound.cut)  # (M, P)
            over = (mask.sum(dim=1) > bound.most).nonzero()[:, 0]
            lost = over[:0]
            if len(over):
                lost = self._thin_out(mask, over, bound, sizes)
            row, column = mask.nonzero(as_tuple=True)
            score = self.scores[row, column]
            return _here(row), _here(column), _here(score), _here(lost)

    def _thin_out(
        self, mask: torch.Tensor, over: torch.Tensor, bound: Bound, sizes: Float64s
    ) -> torch.Tensor:
        """Tighten the cut of rows with too many pairs; drop rows for which that is no help."""
        few = self.scores[over]  # (O, P)
        at = _here(over)
        self._tighten(few, at, bound, sizes)
        fewer = few >= self._column(bound.cut[at])
        still = fewer.sum(dim=1) > bound.most
        fewer[still] = False
        mask[over] = fewer
        bound.cut[at[_here(still)]] = np.inf
        return over[still]

    def tighten(self, bound: Bound, sizes: Float64s) -> None:
        """Raise the cuts of all rows to what these scores prove; see `tile_hits.tighten`.

        Raises
        ------
        DeviceFailed
        """
        with _failures():
            self._tighten(self.scores, np.arange(len(self.scores)), bound, sizes)

    def _tighten(
        self,
        scores: torch.Tensor,
        rows: npt.NDArray[np.intp],
        bound: Bound,
        sizes: Float64s,
    ) -> None:
        if scores.shape[1] < bound.need:
            return
        doubt = self._column(bound.margins.rate[rows]) * scores.new_tensor(sizes)
        chosen = (scores - doubt).topk(bound.need, dim=1, sorted=False).indices
        picked = _here(scores.gather(1, chosen))
        lower = bound.lower(rows[:, None], picked, sizes[_here(chosen)])
        bound.raise_to(rows, lower.min(axis=1))

    def best(self, need: int) -> Floats:
        """Return the `need` best scores of each row, shape (M, need), the worst first.

        ``-inf`` where there are not as many.

        Raises
        ------
        DeviceFailed
        """
        out = np.full((len(self.scores), need), -np.inf, np.float32)
        with _failures():
            found = _here(_best(self.scores, need))
        out[:, need - found.shape[1] :] = found[:, ::-1]
        return out

    def folded(self, need: int) -> Floats:
        """Return the best of groups of scores, more than `need`; see `tile_hits.folded`.

        Raises
        ------
        DeviceFailed
        """
        with _failures():
            scores = self.scores
            while scores.shape[1] > 2 * FOLDED * need:
                half = scores.shape[1] // 2
                scores = scores[:, :half].maximum(scores[:, half : 2 * half])
            return _here(scores)

    def _column(self, cut: Floats) -> torch.Tensor:
        return self.scores.new_tensor(cut)[:, None]


def _best(scores: torch.Tensor, need: int) -> torch.Tensor:
    """Return the best `need` scores of each row or as many as there are, best first."""
    return scores.topk(min(need, scores.shape[1]), dim=1).values


def _here(found: torch.Tensor) -> npt.NDArray[Any]:
    return found.cpu().numpy()


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what torch raises into `DeviceFailed`; out of memory is one of these."""
    try:
        yield
    except RuntimeError as error:
        raise DeviceFailed(str(error).partition("\n")[0]) from error


@contextmanager
def _exact_factors(torch: Any, device: torch.device) -> Iterator[None]:
    """Multiply float32 as it is, whatever the process has chosen, and put that back.

    A product takes its precision when it is called, not when it runs on the device.
    """
    chosen = torch.backends.cuda.matmul
    exact: list[Any]
    name, exact = "fp32_precision", ["ieee", "none"]
    if not hasattr(chosen, name):  # before torch 2.9; where both are, they do not mix
        name, exact = "allow_tf32", [False]
    with _lock, torch.no_grad(), torch.autocast(device.type, enabled=False):
        before = getattr(chosen, name)
        if before not in exact:
            setattr(chosen, name, exact[0])
        try:
            yield
        finally:
            if before not in exact:
                setattr(chosen, name, before)
