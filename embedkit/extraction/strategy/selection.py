"""What one turn of a run computes where it is not everything: which passes, from what."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from embedkit.errors import IncompleteStore
from embedkit.files.files import Files
from embedkit.networks.spool import Spooled


@dataclass(frozen=True, slots=True)
class Origin:
    """A stored layer that others are computed from.

    Parameters
    ----------
    layer : str
        What its store calls it.
    place : str, optional
        Where that store lies, where it is not the one that is written.
    """

    layer: str
    place: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some passes of a store.

    Parameters
    ----------
    keys : collection of str
        Of the passes.
    origins : mapping of str to Origin or None
        By key: where a pass is computed from, None for the images. One that is not in
        it is computed from where that is cheapest.
    blocks : collection of int, optional
        Of each of them only these blocks; all by default.
    spool : Files, optional
        Where networks lie for workers, if it is shared with other turns.
    spooled : dict of str to Spooled
        The networks that lie there already, by the store's names: turns add to it.
    """

    keys: Collection[str]
    origins: Mapping[str, Origin | None] = field(default_factory=dict)
    blocks: Collection[int] | None = None
    spool: Files | None = None
    spooled: dict[str, Spooled] = field(default_factory=dict)


class SelectionIncomplete(IncompleteStore):
    """Blocks of some passes had to be given up; others may still be computed."""
