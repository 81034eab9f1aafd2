"""Stored rows against the network: some of them computed again, one by one compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.errors import SourceError
from embedkit.images.draft import decoded_by
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.networks.row_errors import row_errors
from embedkit.store import arrays, blocks
from embedkit.store.schema import LayerSpec, Pass
from embedkit.store.store import Store


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of one layer that is not what the network gives now."""

    row: int
    layer: str
    problem: str


def good_rows(store: Store, one: Pass) -> npt.NDArray[np.int64]:
    """Return the rows that a pass has written and that hold numbers."""
    found = [np.empty(0, np.int64)]
    for commit in store.commits(one).values():
        rows = np.arange(commit.start, commit.stop)
        if commit.failures:
            ids = arrays.read_text(
                store.files, "image", rows=slice(commit.start, commit.stop)
            )
            rows = rows[[name not in commit.failures for name in ids]]
        found.append(rows)
    return np.concatenate(found)


def recompute(
    store: Store,
    one: Pass,
    network: Network,
    source: Source,
    rows: npt.NDArray[np.int64],
) -> tuple[list[Finding], float]:
    """Compute rows of a pass again.

    Parameters
    ----------
    store : Store
        The store.
    one : Pass
        The pass.
    network : Network
        The one it was made with.
    source : Source
        Reads its images.
    rows : (n,) array of int64
        Ascending; rows that hold numbers.

    Returns
    -------
    findings : list of Finding
        Rows that differ by more than the tolerance of the pass, and rows whose image
        file is not the same any more.
    error : float
        The largest difference, relative to the largest magnitude of the stored row.
    """
    taps = network.taps([spec.tap for spec in one.layers], pool=one.pools)
    source = decoded_by(source, one.parts["decode"])
    findings: list[Finding] = []
    largest = 0.0
    for part, size in _parts(store, one, rows):
        kept, batch, lost = _inputs(store, one, network, source, part, size=size)
        findings += lost
        if not len(kept):
            continue
        values = taps.forward(batch)
        for spec in one.layers:
            stored = arrays.read(store.files, blocks.activation(spec), rows=kept)
            errors = row_errors(values[spec.tap][: len(kept)], stored)
            largest = max(largest, *errors, 0.0)
            findings += _differing(spec, one, kept, errors)
    return findings, largest


def _parts(
    store: Store, one: Pass, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Yield rows that were computed in batches of one size, at most a batch of them."""
    sizes = _batch_sizes(store, one, rows)
    for size in np.unique(sizes)[::-1].tolist():
        alike = rows[sizes == size]
        for start in range(0, len(alike), size):
            yield alike[start : start + size], size


def _batch_sizes(
    store: Store, one: Pass, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the size of the batch that every row was computed in."""
    sizes = np.full(len(rows), one.batch_size, np.int64)
    for commit in store.commits(one).values():
        if commit.halvings:
            for first, size in commit.batch_sizes(one.batch_size):
                sizes[(rows >= first) & (rows < commit.stop)] = size
    return sizes


def _inputs(
    store: Store,
    one: Pass,
    network: Network,
    source: Source,
    rows: npt.NDArray[np.int64],
    *,
    size: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], list[Finding]]:
    """Return the rows whose images are as they were, a full batch of them, the others."""
    uris = arrays.read_text(store.files, "uri", rows=rows)
    contents = arrays.read(store.files, blocks.content_array(one), rows=rows)
    batch = np.zeros((size, *network.input_shape), np.float32)  # B, C, H, W
    kept: list[int] = []
    lost: list[Finding] = []
    for row, uri, content in zip(rows, uris, contents, strict=True):
        loaded = source.load(uri)
        if isinstance(loaded.image, SourceError) or loaded.content != content:
            lost.append(Finding(int(row), blocks.CONTENT, "its image file has changed"))
            continue
        batch[len(kept)] = network.prepare(loaded.image)
        kept.append(int(row))
    return np.array(kept, np.int64), batch, lost


def _differing(
    spec: LayerSpec,
    one: Pass,
    rows: npt.NDArray[np.int64],
    errors: npt.NDArray[np.float64],
) -> list[Finding]:
    return [
        Finding(int(row), spec.name, f"differs by {error:.1e} from the network's value")
        for row, error in zip(rows, errors, strict=True)
        if error > one.tolerance
    ]
