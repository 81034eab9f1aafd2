"""What there is to know of a store at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedkit.files.files import Files
from embedkit.planning.stages import bottleneck
from embedkit.store.commits import Commit, read_commits
from embedkit.store.report import by_stage, followed, halved
from embedkit.store.schema import LayerSpec, StoreSchema
from embedkit.store.table import REMOVED


def summary(files: Files, schema: StoreSchema) -> dict[str, Any]:
    """Return plain values; see `Store.info`."""
    passes = {
        one.key: read_commits(files, one, schema.grid(one)) for one in schema.passes
    }
    commits = [each for known in passes.values() for each in known.values()]
    blocks = sum(len(schema.grid(one)) for one in schema.passes)
    failed = {
        name
        for each in commits
        for name, reason in each.failures.items()
        if reason != REMOVED
    }
    specs, seconds = schema.layers, by_stage(commits)
    return {
        "path": files.url,
        "complete": len(commits) == blocks,
        "blocks": blocks,
        "blocks_done": len(commits),
        "images": schema.n_images,
        "unreadable": len(failed),
        **schema.passes[0].about,
        "networks": {one.network: dict(one.about) for one in schema.passes},
        "layers": {
            spec.name: {
                "shape": list(spec.shape),
                "dtype": spec.dtype,
                "nbytes": spec.row_bytes * schema.n_images,
                **_rounding(spec, passes[schema.pass_of(spec.name).key]),
            }
            for spec in specs
        },
        "nbytes": sum(spec.row_bytes for spec in specs) * schema.n_images,
        "nbytes_stored": files.nbytes(),
        "seconds": seconds,
        "bottleneck": bottleneck(seconds),
        "peak_mem": max((each.peak_mem for each in commits), default=-1),
        "planned": [each.to_dict() for each in followed(files, schema, passes)],
        "halved": halved(schema, passes),
    }


def _rounding(spec: LayerSpec, commits: Mapping[int, Commit]) -> dict[str, float]:
    """Return how far stored numbers are from the computed ones, where they are at all."""
    found = [
        each.rounding[spec.name]
        for each in commits.values()
        if spec.name in each.rounding
    ]
    return {"rounding": max(found)} if found else {}
