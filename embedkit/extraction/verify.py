"""Verification through the network: rows computed again, damaged blocks repaired."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedkit.errors import CorruptStore, StoreError
from embedkit.extraction.origins import network_of, source_of
from embedkit.extraction.recompute import Finding, good_rows, recompute
from embedkit.extraction.run import fill, writing
from embedkit.images.imageset import ImageSet
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.store import arrays, blocks
from embedkit.store.commits import withdraw
from embedkit.store.lock import locked
from embedkit.store.schema import Pass
from embedkit.store.store import Store, open_store
from embedkit.store.verify import Verification

if TYPE_CHECKING:
    from torch import nn

_Contents: TypeAlias = Container[int]


def verify(
    store: Store | str | os.PathLike[str],
    *,
    network: Network | str | nn.Module | None = None,
    images: ImageSet | None = None,
    sample: int = 0,
    repair: bool = False,
    seed: int = 0,
) -> Verification:
    """Check a store against its records and, if asked, against the network itself.

    Parameters
    ----------
    store : Store or path
        What to check.
    network : Network, str or nn.Module, optional
        The network it was made with, for `sample` and `repair`. By default the one that
        the store names is loaded again; a module of your own has to be given.
    images : ImageSet, optional
        The images it was made of, for `sample` and `repair`, where the store cannot
        know where they are now: pixels that were in memory.
    sample : int, default 0
        How many random rows of each network are computed again and compared with what
        is stored, within the tolerance that the store records.
    repair : bool, default False
        Whether damaged blocks are computed again.
    seed : int, default 0
        Of the choice of rows.

    Returns
    -------
    Verification
        What is damaged after all, by layer and block. Rows of `sample` whose image file
        has changed since are listed too.

    Raises
    ------
    InputError
        When the network or the images are needed and cannot be found.
    IdentityMismatch
        When the network is not the one that the store was made with.
    CorruptStore
        When the ids in the image table are damaged: no block can be repaired then.
    IncompleteStore
        When a damaged block cannot be computed any more; the others are repaired.
    """
    opened = store if isinstance(store, Store) else open_store(store)
    report = opened.verify()
    if repair and not report.ok:
        report = _repaired(opened, report, network, images)
    if sample > 0:
        report = _sampled(opened, report, network, images, sample=sample, seed=seed)
    return report


def _repaired(
    store: Store, report: Verification, network: Any, images: ImageSet | None
) -> Verification:
    """Compute the damaged blocks again, and check all once more."""
    damage = report.damage
    if (damage["layer"] == "image").any():
        message = (
            f"the ids in the image table of {store.url} are damaged in "
            f"{(damage['layer'] == 'image').sum()} blocks, so nothing says which rows "
            "are whose: extract into another place"
        )
        raise CorruptStore(message)
    source = source_of(store, images)
    for one, damaged in _damaged(store, damage):
        _check_sources(store, one, damaged, source)
    names = [str(name) for name in damage["network"].unique()]
    networks = {name: network_of(store, name, network) for name in names}
    with writing(store.files), locked(store.files) as lock:
        store.reopen()
        for one, damaged in _damaged(store, damage):
            withdraw(store.files, one, store.schema.grid(one), damaged)
        fill(store, networks, source, lock=lock)
    count = len(damage[["pass", "block"]].drop_duplicates())
    return replace(store.verify(), repaired=count)


def _damaged(store: Store, damage: pd.DataFrame) -> Iterator[tuple[Pass, set[int]]]:
    """Yield every pass that has damaged blocks, and which."""
    for one in store.schema.passes:
        names = [*(spec.name for spec in one.layers), blocks.CONTENT]
        mine = (damage["pass"] == one.key) & damage["layer"].isin(names)
        if mine.any():
            yield one, set(damage.loc[mine, "block"].astype(int))


def _check_sources(store: Store, one: Pass, damaged: set[int], source: Source) -> None:
    """Refuse a repair that would put NaN or another image's numbers into good rows."""
    lost: list[str] = []
    for block in damaged:
        rows = store.schema.grid(one).rows(block)
        names, uris = (
            arrays.read_text(store.files, column, rows=rows)
            for column in ("image", "uri")
        )
        commit = store.commits(one)[block]
        lost += [
            name
            for name, uri, then in zip(
                names, uris, _contents_then(store, one, block), strict=True
            )
            if name not in commit.failures and source.content(uri) not in then
        ]
    if lost:
        message = (
            f"{store.url} cannot be repaired: {len(lost)} images of its damaged blocks "
            f"are gone or have changed since ({lost[0]!r} first), and their good rows "
            "would be lost. Bring them back, or run extract with update=True (--update)"
        )
        raise StoreError(message)


def _contents_then(store: Store, one: Pass, block: int) -> list[_Contents]:
    """Return for every row of a block the content hashes that its image may have."""
    rows, name = store.schema.grid(one).rows(block), blocks.content_array(one)
    recorded = store.commits(one)[block].crc32.get(blocks.CONTENT)
    found = dict(blocks.checksums(store.files, one, store.schema.grid(one), block))
    if found[blocks.CONTENT] == recorded:
        return [{int(each)} for each in arrays.read(store.files, name, rows=rows)]
    return [_Anything()] * (rows.stop - rows.start)  # the hashes are damaged too


class _Anything:
    """Holds every hash but that of a file that cannot be read."""

    def __contains__(self, content: object) -> bool:
        return content != 0


def _sampled(
    store: Store,
    report: Verification,
    network: Any,
    images: ImageSet | None,
    *,
    sample: int,
    seed: int,
) -> Verification:
    """Compute some rows of every pass again and compare."""
    source = source_of(store, images)
    networks = {
        name: network_of(store, name, network) for name in store.schema.networks
    }
    found, errors, count = [], [report.max_error], 0
    for one in store.schema.passes:
        rows = _some_rows(store, one, report, sample=sample, seed=seed)
        findings, error = recompute(store, one, networks[one.network], source, rows)
        found += [_as_damage(one, each) for each in findings]
        errors.append(error)
        count += len(rows)
    damage = pd.concat(
        [report.damage, pd.DataFrame(found, columns=report.damage.columns)]
        if found
        else [report.damage],
        ignore_index=True,
    )
    return replace(report, damage=damage, sampled=count, max_error=max(errors))


def _some_rows(
    store: Store, one: Pass, report: Verification, *, sample: int, seed: int
) -> npt.NDArray[np.int64]:
    """Choose rows that hold numbers, outside the blocks that are known to be damaged."""
    rows = good_rows(store, one)
    bad = report.damage.loc[report.damage["pass"] == one.key, "block"].unique()
    rows = rows[~np.isin(rows // one.block, bad.astype(np.int64))]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:sample]
    return rows[np.sort(chosen)]


def _as_damage(one: Pass, finding: Finding) -> dict[str, Any]:
    return {
        "network": one.network,
        "pass": one.key,
        "layer": finding.layer,
        "block": finding.row // one.block,
        "start": finding.row,
        "stop": finding.row + 1,
        "problem": finding.problem,
    }
