"""The GPUs that a run would share, asked of the processes that would compute it."""

from __future__ import annotations

from collections.abc import Iterable

from embedkit.networks.device import DeviceState, device_state
from embedkit.planning.device import Device, on_device
from embedkit.planning.measurement import Measurement
from embedkit.workers import active_client


def device_of(measured: Measurement) -> Device | None:
    """Return the GPUs that workers have, None where no network was measured on one.

    Parameters
    ----------
    measured : Measurement
        What a run needs.
    """
    if not any(map(on_device, measured.networks)):
        return None
    client = active_client()
    found = [device_state()] if client is None else client.run(device_state).values()
    return shared(each for each in found if each is not None)


def shared(states: Iterable[DeviceState]) -> Device | None:
    """Return what processes have together that see these GPUs, None where they see none.

    Parameters
    ----------
    states : iterable of DeviceState
        Of every process. What a process has taken already it can use again.
    """
    free: dict[str, int] = {}
    kept: dict[str, int] = {}
    for each in states:
        free[each.name] = min(each.free, free.get(each.name, each.free))
        kept[each.name] = kept.get(each.name, 0) + each.kept
    if not free:
        return None
    return Device(count=len(free), memory=min(free[name] + kept[name] for name in free))
