"""How far the plans of finished runs were off, kept for the next one.

Beside the measurements, under the same keys: what a measurement depends on is what its
error depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from distributed import get_client

from embedkit.files.files import files_at
from embedkit.networks.converted import cache_folder
from embedkit.planning.correction import LAST, Ratio, correction_of
from embedkit.store.report import followed
from embedkit.store.store import Store

_LEAST_IMAGES = 256
"""Images from which a run says anything: opening and warming up are most of a short one."""


def correction(key: str) -> tuple[float, float]:
    """Return by what the projections of a measurement should be multiplied.

    Parameters
    ----------
    key : str
        Of the measurement.

    Returns
    -------
    memory_factor, time_factor : float
        See `embedkit.planning.correction.correction_of`; 1 where no run has finished.
    """
    return correction_of(_known(key))


def learn(store: Store, keys: Iterable[str], *, networks: Iterable[str]) -> bool:
    """Remember what a finished run took, for the plans that are made from now on.

    Parameters
    ----------
    store : Store
        Whose last plan the run has followed.
    keys : iterable of str
        Of the measurements that it was made of.
    networks : iterable of str
        That the run has computed, by what the store calls them.

    Returns
    -------
    bool
        Whether there was anything to learn: a plan, images enough, and worker processes.
        This process may hold what its user has put there, which is no part of a plan.
    """
    if not _on_workers():
        return False
    wanted = set(networks)
    commits = {one.key: store.commits(one) for one in store.schema.passes}
    for each in followed(store.files, store.schema, commits):
        memory, time = each.memory_ratio, each.time_ratio
        mine = set(each.networks) == wanted and each.images >= _LEAST_IMAGES
        if mine and memory is not None and time is not None:
            for key in keys:
                remember(key, Ratio(memory, time))
            return True
    return False


def remember(key: str, ratio: Ratio) -> None:
    """Keep one run's ratio; where the folder cannot be written it is forgotten."""
    kept = [*_known(key), ratio][-LAST:]
    with suppress(OSError):
        data = json.dumps([asdict(each) for each in kept]).encode()
        files_at(cache_folder()).write(_name(key), data)


def _known(key: str) -> list[Ratio]:
    """Return what was kept, nothing where it is damaged or of another form."""
    try:
        found: Any = json.loads(files_at(cache_folder()).read(_name(key)))
        return [Ratio(float(each["memory"]), float(each["time"])) for each in found]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _on_workers() -> bool:
    """Whether blocks run in processes that do nothing else."""
    try:
        addresses = list(get_client().scheduler_info(n_workers=-1)["workers"])
    except ValueError:  # no client is active
        return False
    return bool(addresses) and not any(
        address.startswith("inproc://") for address in addresses
    )


def _name(key: str) -> str:
    return f"learned/{key}.json"
