"""What a worker does in an exact search: bounds, pairs of bands, finished bands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.device_product import (
    DeviceFailed,
    DeviceRoom,
    DeviceScores,
    device_for,
)
from embedkit.analysis.exact.ranking import ranked, ranked_directly
from embedkit.analysis.exact.score_bounds import Kind, left, margins
from embedkit.analysis.exact.search_rows import Side, loaded
from embedkit.analysis.exact.tile_candidates import Held, Packed, Sizes, records
from embedkit.analysis.exact.tile_hits import Bound, Float64s, Room, Scores, best
from embedkit.analysis.threads import limited_threads
from embedkit.files.whole import temporary_file
from embedkit.planning.neighbors import most_candidates

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Made = TypeVar("Made")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Search:
    """One search, as its tasks get it.

    Parameters
    ----------
    ask, base : Side
        The rows that are searched for and among.
    alone : bool
        Both are the same rows; a row is not its own neighbor.
    k : int
        Neighbors of a row.
    tile : int
        Rows of a tile: a product has as many rows and columns.
    band : int
        Rows of a band, whole tiles.
    slots : int
        Tasks that share a machine.
    """

    ask: Side
    base: Side
    alone: bool
    k: int
    tile: int
    band: int
    slots: int

    @property
    def need(self) -> int:
        """Nearest rows to look for, itself included."""
        return self.k + self.alone

    @property
    def most(self) -> int:
        """Candidates beyond which float32 does not tell them apart."""
        return most_candidates(self.need)

    def rows(self, band: int) -> tuple[int, int]:
        """First and last place of a band of the rows that are searched for."""
        return band * self.band, min((band + 1) * self.band, self.ask.size)

    def path(self, name: str) -> Path:
        """Return a file of this search."""
        return Path(self.base.folder) / name

    def bound(self, sizes: Float64s, cut: Floats, kind: Kind = "f4") -> Bound:
        """Return the bound of rows of some sizes."""
        found = margins(
            sizes,
            self.base.metric,
            kind,
            features=self.base.spool.shape[1],
            exponent=self.base.exponent,
        )
        return Bound(cut, found, self.need, self.most)

    def held(self, band: int, others: tuple[int, int]) -> Held:
        """Return room for candidates of a band among some places of its own side."""
        cut = loaded(self.path(f"cut-{band}.npy"))
        bound = self.bound(self.ask.sizes(*self.rows(band)), cut)
        return Held(bound, Sizes(self.base.sizes(*others), others[0]))


def bound_band(search: Search, band: int, sample: Side) -> None:
    """Bound the distance of the last neighbor of each row of a band, from a sample.

    The worst of the `need` best scores among any rows bounds it, and the more rows the
    better; a few thousand leave some hundred candidates of a million rows.
    """
    start, stop = search.rows(band)
    with limited_threads(search.slots):
        cut = _on_device(
            search, search.tile, lambda room: _cut(search, start, stop, sample, room)
        )
    save(search.path(f"cut-{band}.npy"), cut)


def _cut(
    search: Search, start: int, stop: int, sample: Side, room: Room | DeviceRoom
) -> Floats:
    """Bound the rows `start` to `stop`, shape (stop - start,)."""
    cut = np.full(stop - start, -np.inf, np.float32)
    bound = search.bound(search.ask.sizes(start, stop), cut)
    for first, last in _steps(start, stop, search.tile):
        top = np.empty((last - first, 0), np.float32)
        turned = left(search.ask.tile(first, last))
        for a, b in _steps(0, sample.size, search.tile):
            few = room.product(turned, sample.tile(a, b)).folded(search.need)
            top = best(np.concatenate([top, few], axis=1), search.need)
        bound.raise_to(np.arange(first, last) - start, top[:, 0].astype(np.float64))
    return cut


def pair_bands(search: Search, first: int, second: int) -> None:
    """Find the candidates of the rows of two bands among each other, or within one."""
    with limited_threads(search.slots):
        found = _on_device(
            search, search.tile, lambda room: _pairs(search, first, second, room)
        )
    for (one, other), held in found.items():
        save(search.path(f"hits-{one}-{other}.npy"), held.packed())


def _pairs(
    search: Search, first: int, second: int, room: Room | DeviceRoom
) -> dict[tuple[int, int], Held]:
    """Return the candidates of the first band among the second, and the other way."""
    found = {
        (one, other): search.held(one, search.rows(other))
        for one, other in ((first, second), (second, first))
    }
    ours, theirs = found[first, second], found[second, first]
    for a, b in _steps(*search.rows(first), search.tile):
        turned = left(search.ask.tile(a, b))
        for c, d in _steps(*search.rows(second), search.tile):
            if c < a:
                continue  # both directions came from the pair (c, a)
            scores = room.product(turned, search.base.tile(c, d))
            _collect(scores, ours, a - search.rows(first)[0], (c, d))
            if c > a:
                row = c - search.rows(second)[0]
                _collect(scores.transposed(), theirs, row, (a, b))
    return found


def _collect(
    scores: Scores | DeviceScores, held: Held, row: int, others: tuple[int, int]
) -> None:
    """Take the hits of a tile, from `row` on of the rows that are held, by place."""
    bound = held.bound.part(row, row + len(scores.scores))
    at, column, score, lost = scores.hits(bound, held.sizes.part(*others))
    held.add(records(at + row, column + others[0], score, lost + row))


def finish_band(search: Search, band: int, bands: int) -> None:
    """Rank the candidates of a band, gathered from its pairs with all bands."""
    start, stop = search.rows(band)
    with limited_threads(search.slots):
        held = search.held(band, (0, search.base.size))
        for other in range(bands):
            held.add(loaded(search.path(f"hits-{band}-{other}.npy")))
        out = _ranked(search, held, start, stop)
    save(search.path(f"near-{band}.npy"), out)


def search_band(search: Search, band: int) -> None:
    """Search all rows of the base for the rows of a band, which are from elsewhere."""
    start, stop = search.rows(band)
    with limited_threads(search.slots):
        tile, sizes = search.ask.tile(start, stop), search.ask.sizes(start, stop)
        held = _on_device(
            search, len(tile), lambda room: _streamed(search, tile, sizes, "f4", room)
        )
        out = _ranked(search, held, start, stop)
    save(search.path(f"near-{band}.npy"), out)


def search_again(search: Search, start: int, stop: int) -> None:
    """Search in float64 for rows that float32 left open, `start` to `stop` of the list."""
    places = np.array(loaded(search.path("open.npy"))[start:stop])
    ids, sizes = search.ask.ids_of(places), search.ask.sizes_of(places)
    with limited_threads(search.slots):
        tile = search.ask.made(ids)
        room = Room(len(tile) * search.tile, "f8")
        candidates, lost = _streamed(search, tile, sizes, "f8", room).thinned()
        out = _rank(search, candidates, ids)
        for row in np.flatnonzero(lost):
            out[row] = ranked_directly(
                search.ask, search.base, int(ids[row]), k=search.k, alone=search.alone
            )[0]
    out["sure"] = False
    save(search.path(f"again-{start}.npy"), out)


def _on_device(
    search: Search, rows: int, work: Callable[[Room | DeviceRoom], Made]
) -> Made:
    """Do the products of a task, of `rows` rows, on a GPU where one has room for it."""
    flops = 2.0 * search.ask.size * search.base.size * search.base.spool.shape[1]
    device = device_for(flops)
    if device is not None:
        try:
            return work(DeviceRoom(device))
        except DeviceFailed as error:
            _log.info("the CPU does a task of neighbors, not the GPU: %s", error)
    return work(Room(rows * search.tile))


def _streamed(
    search: Search, tile: Floats, sizes: Float64s, kind: Kind, room: Room | DeviceRoom
) -> Held:
    """Go through all tiles of the base, the bound tightening on the way."""
    bound = search.bound(sizes, np.full(len(tile), -np.inf, kind), kind)
    held = Held(bound, Sizes(search.base.all_sizes()), kind)
    turned = left(tile)
    for first, last in _steps(0, search.base.size, search.tile):
        scores = room.product(turned, search.base.tile(first, last, kind))
        if not first:
            scores.tighten(bound, held.sizes.part(first, last))
        _collect(scores, held, 0, (first, last))
    return held


def _ranked(search: Search, held: Held, start: int, stop: int) -> npt.NDArray[Any]:
    candidates, lost = held.thinned()
    out = _rank(search, candidates, search.ask.ids(start, stop))
    out["sure"][lost] = False
    return out


def _rank(
    search: Search, candidates: Packed, ask_ids: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    return ranked(
        search.ask,
        search.base,
        ask_ids,
        row=candidates["row"].astype(np.intp),
        ids=search.base.ids_of(candidates["place"].astype(np.int64)),
        k=search.k,
        alone=search.alone,
    )


def _steps(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array that is there whole or not at all; a loss of power is no matter."""
    with temporary_file(path) as (part, file):
        np.save(file, array)
        file.close()
        part.replace(path)
