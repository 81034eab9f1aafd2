"""Settings: Dask's configuration under the key ``embedkit``, read once at the edge."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import dask.config
import yaml

from embedkit.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set for an installation rather than for a call.

    Parameters
    ----------
    batch_size : int
        Images per forward pass. A store keeps the one it was created with.
    decode_threads : int
        Threads of a task that read and transform images ahead of the network.
    window : int
        Blocks in flight per worker thread.
    retries : int
        Times that a failing block is tried again.

    Raises
    ------
    InputError
        When a value is not a whole number or is too small.
    """

    batch_size: int
    decode_threads: int
    window: int
    retries: int

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "retries" else 1
            value = getattr(self, field.name)
            if type(value) is not int or value < least:
                message = (
                    f"setting embedkit.{field.name.replace('_', '-')} is {value!r}: "
                    f"give a whole number of {least} or more"
                )
                raise InputError(message)


def _defaults() -> dict[str, Any]:
    text = resources.files("embedkit").joinpath("embedkit.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


dask.config.update_defaults(_defaults())


def settings() -> Settings:
    """Return the settings in force now.

    Raises
    ------
    InputError
        When a configured value cannot be used.
    """
    found = {
        field.name: dask.config.get(f"embedkit.{field.name}")
        for field in fields(Settings)
    }
    return Settings(**found)
