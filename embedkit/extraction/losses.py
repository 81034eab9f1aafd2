"""Blocks that had to be given up: which, why, and how to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedkit.extraction.block.task import BlockLoss
from embedkit.files.files import Files
from embedkit.store.attempts import DEATHS, deaths_in
from embedkit.store.schema import Pass
from embedkit.store.store import Store


def left_alone(files: Files, one: Pass, fallen: Mapping[int, int]) -> list[BlockLoss]:
    """Return the blocks that earlier runs died in so often that this one skips them.

    Parameters
    ----------
    files : Files
        The store.
    one : Pass
        The pass, or the first of those that are computed together.
    fallen : mapping of int to int
        How many processes died in each block.
    """
    return [
        BlockLoss(
            key=one.key,
            block=block,
            reason=f"its process died {times} times: "
            + "; ".join(deaths_in(files, one, block)),
            final=True,
        )
        for block, times in fallen.items()
        if times >= DEATHS
    ]


def told(store: Store, lost: Sequence[BlockLoss]) -> str:
    """Say which blocks are missing, why, and how to go on.

    Parameters
    ----------
    store : Store
        The store.
    lost : sequence of BlockLoss
        At least one.
    """
    done, blocks = store.blocks
    passes = {one.key: one for one in store.schema.passes}
    listed = [_loss(store, passes[each.key], each) for each in lost[:3]]
    more = [f"and {len(lost) - 3} more"] if lost[3:] else []
    return (
        f"{len(lost)} of the {blocks} blocks of {store.url} could not be computed, "
        f"{done} are written: {'; '.join([*listed, *more])}. Mend the cause or take the "
        "images out, then run the same call again: it computes what is missing"
    )


def _loss(store: Store, one: Pass, lost: BlockLoss) -> str:
    rows = store.schema.grid(one).rows(lost.block)
    ids = store.columns()["image"][[rows.start, rows.stop - 1]].values
    return f"block {lost.block} (images {ids[0]!r} to {ids[1]!r}): {lost.reason}"
