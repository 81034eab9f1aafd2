"""The fastest backend, measured once for a network, its layers and a machine.

Racing all backends takes as long as some hundred images, and converting a network longer.
So the speeds are kept on disk, under everything that they depend on. What a network's
rows are right to is not kept: that depends on the pictures, and is looked at every time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.errors import InputError, MissingDependencyError, NetworkError
from embedkit.files.files import files_at
from embedkit.networks.backend_choice import (
    Choice,
    Place,
    Trial,
    choose_backend,
    compare,
)
from embedkit.networks.backends import BACKENDS
from embedkit.networks.choice import LayerChoice
from embedkit.networks.converted import cache_folder
from embedkit.networks.machine import gpu, processor, version_of
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool

_PACKAGES: Final = ("embedkit", "torch", "openvino")
"""Another version of one of them may be faster, or slower."""

_LOOKED_AT: Final = 4
"""Pictures whose rows are compared again on every call: of a batch of 16, the reference
alone would take longer than all else before a run (chosen)."""


def fastest_backend(
    network: Network,
    layers: LayerChoice,
    *,
    pool: Pool | Mapping[str, Pool] = "avg",
    batch: NDArray[np.float32],
) -> Choice:
    """Return the backend that is fastest here and agrees with the reference on a batch.

    Parameters
    ----------
    network, layers, pool, batch
        As for `choose_backend`.

    Returns
    -------
    Choice
        With the speeds of an earlier call if there was one for this network, these
        layers, batches of this size, this machine, its threads and these versions.

    Raises
    ------
    NetworkError, InputError
        See `choose_backend`.
    """
    key = _key(network, layers, pool, batch.shape)
    kept = _find(key)
    if kept is not None:
        sure = _agreeing(kept, network, layers, pool, batch)
        if sure is not None:
            return sure
    choice = choose_backend(network, layers, pool=pool, batch=batch)
    _keep(key, choice)
    return choice


def _agreeing(
    kept: Choice,
    network: Network,
    layers: LayerChoice,
    pool: Pool | Mapping[str, Pool],
    batch: NDArray[np.float32],
) -> Choice | None:
    """Return an earlier choice with its error on this batch; None where it is too far off."""
    try:
        expected = network.taps(layers, pool=pool).forward(batch[:_LOOKED_AT])
        taps = network.taps(layers, pool=pool, backend=kept.backend)
        found = compare(taps, batch, expected)
    except (InputError, MissingDependencyError, NetworkError):
        return None
    if found.reason is not None:
        return None
    before = kept.table[kept.backend]
    table = {**kept.table, kept.backend: replace(before, max_error=found.max_error)}
    return replace(kept, table=table)


def _key(
    network: Network,
    layers: LayerChoice,
    pool: Pool | Mapping[str, Pool],
    shape: tuple[int, ...],
) -> str:
    """Return a digest of all that a speed depends on."""
    parts = {
        "network": network.identity,
        "pools": network.resolve_pools(pool, layers),
        "batch": list(shape),
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "gpu": gpu(),
        "versions": {name: version_of(name) for name in _PACKAGES},
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _find(key: str) -> Choice | None:
    """Return what was kept, unless it is damaged or of another form."""
    try:
        found: Any = json.loads(files_at(cache_folder()).read(_name(key)))
        table = {name: Trial(**trial) for name, trial in found["table"].items()}
        place = Place(**found["place"])
        if found["backend"] in BACKENDS and table[found["backend"]].images_per_second:
            return Choice(
                backend=found["backend"],
                images=found["images"],
                table=table,
                place=place,
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _keep(key: str, choice: Choice) -> None:
    """Keep a choice; where the folder cannot be written it is measured again."""
    with suppress(OSError):
        data = json.dumps(choice.to_json()).encode()
        files_at(cache_folder()).write(_name(key), data)


def _name(key: str) -> str:
    return f"backends/{key}.json"
