"""What a worker does in an exact search: bounds, pairs of bands, finished bands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from embedkit.analysis.device_product import (
    DeviceFailed,
    DeviceRoom,
    DeviceScores,
    device_for,
)
from embedkit.analysis.ranking import ranked, ranked_directly
from embedkit.analysis.score_bounds import Kind, left, margins
from embedkit.analysis.search_rows import Side, loaded
from embedkit.analysis.threads import limited_threads
from embedkit.analysis.tile_hits import (
    HIT,
    Bound,
    Room,
    Scores,
    best,
    records,
    thinned,
)
from embedkit.files.whole import temporary_file

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Made = TypeVar("Made")
_log = logging.getLogger(__name__)

_HELD = 16  # candidates a row, times those wanted, before they are thinned out


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
    reach : float
        Largest squared length of a prepared row of `base`.
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
    reach: float
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
        return 4 * self.need + 256

    def rows(self, band: int) -> tuple[int, int]:
        """First and last place of a band of the rows that are searched for."""
        return band * self.band, min((band + 1) * self.band, self.ask.size)

    def path(self, name: str) -> Path:
        """Return a file of this search."""
        return Path(self.base.folder) / name

    def bound(self, tile: Floats, cut: Floats, kind: Kind = "f4") -> Bound:
        """Return the bound of the rows of a tile."""
        margin = margins(
            tile,
            self.base.metric,
            kind,
            reach=self.reach,
            exponent=self.base.exponent,
        )
        return Bound(cut, margin, self.need, self.most)


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
    for first, last in _steps(start, stop, search.tile):
        tile = search.ask.tile(first, last)
        bound = search.bound(tile, cut[first - start : last - start])
        top = np.empty((last - first, 0), np.float32)
        turned = left(tile)
        for a, b in _steps(0, sample.size, search.tile):
            few = room.product(turned, sample.tile(a, b)).folded(search.need)
            top = best(np.concatenate([top, few], axis=1), search.need)
        bound.raise_to(np.arange(last - first), top[:, 0])
    return cut


def pair_bands(search: Search, first: int, second: int) -> None:
    """Find the candidates of the rows of two bands among each other, or within one."""
    with limited_threads(search.slots):
        found = _on_device(
            search, search.tile, lambda room: _pairs(search, first, second, room)
        )
    if first == second:
        save(search.path(f"hits-{first}-{first}.npy"), _all([*found[0], *found[1]]))
    else:
        save(search.path(f"hits-{first}-{second}.npy"), _all(found[0]))
        save(search.path(f"hits-{second}-{first}.npy"), _all(found[1]))


def _pairs(
    search: Search, first: int, second: int, room: Room | DeviceRoom
) -> list[list[npt.NDArray[Any]]]:
    """Return the candidates of the first and of the second band."""
    cuts = [loaded(search.path(f"cut-{band}.npy")) for band in (first, second)]
    found: list[list[npt.NDArray[Any]]] = [[], []]
    for a, b in _steps(*search.rows(first), search.tile):
        tile = search.ask.tile(a, b)
        turned, start = left(tile), search.rows(first)[0]
        bound = search.bound(tile, cuts[0][a - start : b - start])
        for c, d in _steps(*search.rows(second), search.tile):
            if c < a:
                continue  # both directions came from the pair (c, a)
            other = search.base.tile(c, d)
            scores = room.product(turned, other)
            at = search.rows(second)[0]
            found[0].append(_packed(scores, bound, a - start, c))
            if c > a:
                theirs = search.bound(other, cuts[1][c - at : d - at])
                found[1].append(_packed(scores.transposed(), theirs, c - at, a))
    return found


def finish_band(search: Search, band: int, bands: int) -> None:
    """Rank the candidates of a band, gathered from its pairs with all bands."""
    start, stop = search.rows(band)
    with limited_threads(search.slots):
        candidates = _all(
            [loaded(search.path(f"hits-{band}-{other}.npy")) for other in range(bands)]
        )
        cut = loaded(search.path(f"cut-{band}.npy"))
        tile = search.ask.tile(start, stop)
        out = _ranked(search, candidates, search.bound(tile, cut), start, stop)
    save(search.path(f"near-{band}.npy"), out)


def search_band(search: Search, band: int) -> None:
    """Search all rows of the base for the rows of a band, which are from elsewhere."""
    start, stop = search.rows(band)
    with limited_threads(search.slots):
        tile = search.ask.tile(start, stop)
        candidates, bound = _on_device(
            search, len(tile), lambda room: _streamed(search, tile, "f4", room)
        )
        out = _ranked(search, candidates, bound, start, stop)
    save(search.path(f"near-{band}.npy"), out)


def search_again(search: Search, start: int, stop: int) -> None:
    """Search in float64 for rows that float32 left open, `start` to `stop` of the list."""
    places = np.array(loaded(search.path("open.npy"))[start:stop])
    ids = search.ask.ids_of(places)
    with limited_threads(search.slots):
        tile = search.ask.made(ids, "f8")
        room = Room(len(tile) * search.tile, "f8")
        candidates, bound = _streamed(search, tile, "f8", room)
        candidates, lost = thinned(candidates, bound)
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


def _packed(
    scores: Scores | DeviceScores, bound: Bound, first: int, place: int
) -> npt.NDArray[Any]:
    """Find hits and number them within the band and among all places."""
    row, column, score, lost = scores.hits(bound)
    return records(row + first, column + place, score, lost + first)


def _streamed(
    search: Search, tile: Floats, kind: Kind, room: Room | DeviceRoom
) -> tuple[npt.NDArray[Any], Bound]:
    """Go through all tiles of the base, the bound tightening on the way."""
    bound = search.bound(tile, np.full(len(tile), -np.inf, kind), kind)
    turned, held = left(tile), np.empty(0, HIT[kind])
    limit = _HELD * search.need * len(tile)
    for first, last in _steps(0, search.base.size, search.tile):
        scores = room.product(turned, search.base.tile(first, last, kind))
        if not first:
            bound.raise_to(np.arange(len(tile)), scores.best(search.need)[:, 0])
        held = np.concatenate([held, _packed(scores, bound, 0, first)])
        if len(held) > limit:
            held = _thinned_keeping(held, bound)
            limit = max(limit, 2 * len(held))
    return held, bound


def _thinned_keeping(held: npt.NDArray[Any], bound: Bound) -> npt.NDArray[Any]:
    """Thin candidates out; rows of which some are lost keep a record that says so."""
    held, lost = thinned(held, bound)
    rows = np.flatnonzero(lost)
    none = np.empty(0, np.intp)
    bound.cut[rows] = np.inf  # no more of them
    return np.concatenate([held, records(none, none, held["score"][:0], rows)])


def _ranked(
    search: Search, candidates: npt.NDArray[Any], bound: Bound, start: int, stop: int
) -> npt.NDArray[Any]:
    candidates, lost = thinned(candidates, bound)
    out = _rank(search, candidates, search.ask.ids(start, stop))
    out["sure"][lost] = False
    return out


def _rank(
    search: Search, candidates: npt.NDArray[Any], ask_ids: npt.NDArray[np.int64]
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


def _all(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, HIT["f4"]), *parts])


def _steps(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array that is there whole or not at all; a loss of power is no matter."""
    with temporary_file(path) as (part, file):
        np.save(file, array)
        file.close()
        part.replace(path)
