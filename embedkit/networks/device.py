"""Memory of the GPU that networks run on, as far as PyTorch tells."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """A GPU as one process sees it.

    Parameters
    ----------
    name : str
        The same in all processes that use this GPU, and in no other.
    free : int
        Bytes that nobody has taken.
    kept : int
        Bytes that this process has taken for its tensors, in use or not.
    """

    name: str
    free: int
    kept: int


class DeviceMemory:
    """What this process takes of its GPU. Make it with `device_memory`."""

    def reset(self) -> None:
        """Give back what is not in use, and forget earlier peaks."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def held(self) -> int:
        """Return the bytes of all tensors that are there."""
        return int(torch.cuda.memory_allocated())

    def peak(self) -> int:
        """Return the most bytes taken since the last reset.

        Those that the allocator took from the GPU, more than tensors filled: what lies
        between them nobody else can have.
        """
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_reserved())


def device_memory() -> DeviceMemory | None:
    """Return what measures the GPU of this process, None where there is none."""
    return DeviceMemory() if torch.cuda.is_available() else None


def device_state() -> DeviceState | None:
    """Return the GPU of this process as it is now, None where there is none."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    at = torch.cuda.current_device()
    return DeviceState(
        name=f"{torch.cuda.get_device_properties(at).uuid}",
        free=int(free),
        kept=int(torch.cuda.memory_reserved()),
    )


def release_device() -> None:
    """Give back what this process holds of its GPU and does not use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # does nothing where nothing was taken
