"""Measurements on disk, under everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from embedkit.errors import InputError
from embedkit.extraction.asked import Asked, network_parts
from embedkit.extraction.measure.machines import Machine
from embedkit.extraction.measure.sampling import kind_of
from embedkit.files.files import Files, files_at
from embedkit.networks.converted import cache_folder
from embedkit.planning.measurement import Measurement
from embedkit.store.schema import LayerSpec

_METHOD = 4
"""To be raised when the same run would be measured otherwise."""


def key_of(
    asked: Asked, specs: Sequence[LayerSpec], machine: Machine, where: Files | None
) -> str:
    """Return a digest of all that a measurement depends on.

    Parameters
    ----------
    asked : Asked
        The call, with the backend that executes it.
    specs : sequence of LayerSpec
        The layers.
    machine : Machine
        The kind of worker.
    where : Files, optional
        The place of the store: the file system that it is on counts.
    """
    parts: Mapping[str, Any] = {
        "method": _METHOD,
        "machine": machine.kind,
        "network": network_parts(asked),
        "layers": [[each.name, each.tap, each.pool, each.dtype] for each in specs],
        "backend": asked.backend,
        "images": kind_of(asked.images),
        "place": _file_system(where),
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def find(key: str) -> Measurement | None:
    """Return what was kept, unless it is damaged or of another form."""
    try:
        text = files_at(cache_folder()).read(_name(key)).decode()
        return Measurement.from_json(text)
    except (OSError, InputError, UnicodeDecodeError):
        return None


def keep(key: str, measured: Measurement) -> None:
    """Keep a measurement; where the folder cannot be written it is measured again."""
    with suppress(OSError):
        files_at(cache_folder()).write(_name(key), measured.to_json().encode())


def _name(key: str) -> str:
    return f"measurements/{key}.json"


def _file_system(where: Files | None) -> str:
    """Return where a place is mounted, or the bucket that it is in."""
    if where is None or not where.shared:
        return ""
    if "://" in where.url:
        scheme, _, rest = where.url.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"
    path = Path(where.url)
    return str(next(each for each in (path, *path.parents) if each.is_mount()))
