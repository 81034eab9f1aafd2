"""What was planned against what was measured, and where batches became smaller."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from embedkit.files.files import Files
from embedkit.planning.stages import IN_TURN, bottleneck
from embedkit.store.commits import Commit
from embedkit.store.plans import read_plan
from embedkit.store.schema import Pass, StoreSchema

if TYPE_CHECKING:
    from embedkit.store.store import Store

Commits: TypeAlias = Mapping[str, Mapping[int, Commit]]
"""The records of every pass, by its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One plan, and what became of it so far.

    Parameters
    ----------
    networks : tuple of str
        What the store calls the networks that it was for.
    images : int
        Images that are written.
    projected_mem, peak_mem : int
        Bytes of a worker at its peak, as planned, and of the largest process; -1 where
        the system did not tell.
    projected_seconds, seconds : float
        Of all tasks together, one after the other: as planned for as many images as are
        written, and as measured.
    projected_stages, stages : dict of str to float
        The same by stage; see `embedkit.planning.stages`.
    waits_for, bottleneck : str
        What the plan said that a faster run has to begin with, and what the measured
        stages say.
    """

    networks: tuple[str, ...]
    images: int
    projected_mem: int
    peak_mem: int
    projected_seconds: float
    seconds: float
    projected_stages: dict[str, float]
    stages: dict[str, float]
    waits_for: str
    bottleneck: str

    @property
    def memory_ratio(self) -> float | None:
        """Measured memory over projected; None where either is not known."""
        known = self.peak_mem > 0 and self.projected_mem > 0
        return self.peak_mem / self.projected_mem if known else None

    @property
    def time_ratio(self) -> float | None:
        """Measured seconds over projected; None where either is not known."""
        known = self.seconds > 0 and self.projected_seconds > 0
        return self.seconds / self.projected_seconds if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, both ratios among them."""
        found = asdict(self) | {"networks": list(self.networks)}
        ratios = {"memory_ratio": self.memory_ratio, "time_ratio": self.time_ratio}
        return {**found, **ratios}


def report(store: Store) -> pd.DataFrame:
    """Return what was planned for a store against what was measured.

    Parameters
    ----------
    store : Store
        Finished or not.

    Returns
    -------
    DataFrame
        One row per plan that a run has followed, none where no run had one; columns as
        of `Followed`, ``memory_ratio`` and ``time_ratio``.
    """
    commits = {one.key: store.commits(one) for one in store.schema.passes}
    found = followed(store.files, store.schema, commits)
    names = [*Followed.__dataclass_fields__, "memory_ratio", "time_ratio"]
    return pd.DataFrame([each.to_dict() for each in found], columns=names)


def followed(
    files: Files, schema: StoreSchema, commits: Commits
) -> tuple[Followed, ...]:
    """Return every plan that a run has followed, with what became of it.

    Parameters
    ----------
    files : Files
        The store.
    schema : StoreSchema
        What it holds.
    commits : mapping of str to mapping of int to Commit
        The records of every pass, by its key.
    """
    groups: dict[str, list[Pass]] = {}
    for one in schema.passes:
        text = read_plan(files, one.key)
        if text is not None and commits[one.key]:
            groups.setdefault(text, []).append(one)  # several networks, one plan
    found = (_followed(text, group, commits) for text, group in groups.items())
    return tuple(each for each in found if each is not None)


def _followed(text: str, passes: Sequence[Pass], commits: Commits) -> Followed | None:
    """Return one plan beside its records; None where it is of another form."""
    known = [each for one in passes for each in commits[one.key].values()]
    images = max(_images(commits[one.key].values()) for one in passes)
    stages = by_stage(known)
    try:
        plan = json.loads(text)
        share = images / plan["n_images"]
        planned = {
            str(name): float(seconds) * share
            for name, seconds in plan["stages"].items()
        }
        memory = sum(int(part["nbytes"]) for part in plan["parts"])
        waits_for = str(plan["waits_for"])
    except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError):
        return None
    return Followed(
        networks=tuple(dict.fromkeys(one.network for one in passes)),
        images=images,
        projected_mem=memory,
        peak_mem=max(each.peak_mem for each in known),
        projected_seconds=sum(planned.get(stage, 0.0) for stage in IN_TURN),
        seconds=stages.get("total", 0.0),
        projected_stages=planned,
        stages=stages,
        waits_for=waits_for,
        bottleneck=bottleneck(stages),
    )


def _images(commits: Iterable[Commit]) -> int:
    return sum(each.stop - each.start for each in commits)


def by_stage(commits: Sequence[Commit]) -> dict[str, float]:
    """Return the seconds of some blocks together, by stage."""
    stages = sorted({stage for each in commits for stage in each.seconds})
    return {
        stage: sum(each.seconds.get(stage, 0.0) for each in commits) for stage in stages
    }


def halved(schema: StoreSchema, commits: Commits) -> list[dict[str, Any]]:
    """Return where batches were smaller than a pass says, and why.

    Parameters
    ----------
    schema : StoreSchema
        What the store holds.
    commits : mapping of str to mapping of int to Commit
        The records of every pass, by its key.

    Returns
    -------
    list of dict
        For every network and batch size that was come down to: ``network``,
        ``batch_size``, ``instead_of``, ``blocks`` (how many), and of the first of them
        ``block``, ``row`` and ``why``.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for network, instead_of, block, each in _halvings(schema, commits):
        entry = found.setdefault(
            (network, each["batch_size"]),
            {
                "network": network,
                "batch_size": each["batch_size"],
                "instead_of": instead_of,
                "blocks": 0,
                "block": block,
                "row": each["row"],
                "why": each["why"],
            },
        )
        entry["blocks"] += 1
    return list(found.values())


def _halvings(
    schema: StoreSchema, commits: Commits
) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    for one in schema.passes:
        for commit in commits[one.key].values():
            for each in commit.halvings:
                yield one.network, one.batch_size, commit.block, asdict(each)
