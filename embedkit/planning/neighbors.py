"""What an exact neighbor search takes: tiles, tasks, arithmetic, memory, disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from embedkit.errors import PlanError
from embedkit.planning.grid import power_of_two_below

LARGEST_TILE = 2048  # measured: larger products are no faster
SMALLEST_TILE = 256
LEAST_SAMPLE = 4096
SAMPLED = 32  # one row of so many is in the sample of a large search: 6 % more products
TASK_FLOPS = 6e10  # about a second of one core
MOST_BANDS = 140  # about 10,000 pairs
_RECORD = 12  # bytes of a candidate
_BLOCKS = 4 * 2**23 + 2 * 2**24  # float64 blocks of a task that measures or converts
_OVERHEAD = 2**26  # what Dask and NumPy take beside: chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How an exact search is cut into tiles: its files fit only one of the same.

    Parameters
    ----------
    tile_rows, band_rows, sample_rows : int
        As in `NeighborsPlan`.
    """

    tile_rows: int
    band_rows: int
    sample_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighborsPlan:
    """An exact neighbor search before it runs.

    Parameters
    ----------
    n_images, n_queries : int
        Rows of the database, and rows searched for if these are others, else 0.
    features, n_neighbors : int
        Entries of a row; neighbors of an image.
    tile_rows : int
        A matrix product has as many rows and columns.
    band_rows : int
        A task takes a pair of bands of so many rows.
    sample_rows : int
        Rows that bound the distances beforehand; 0 where queries are other rows.
    n_tasks : int
        Dask tasks in all.
    slots : int
        Tasks that run at once in a process.
    on_machine : int
        Tasks that run at once on a machine.
    threads : int
        Threads of one of them.
    flops : float
        Operations of the matrix products.
    projected_mem : int
        Bytes that the busiest process takes beyond what it has when it starts.
    scratch_bytes : int
        Bytes of files, at most about.
    """

    n_images: int
    n_queries: int
    features: int
    n_neighbors: int
    tile_rows: int
    band_rows: int
    sample_rows: int
    n_tasks: int
    slots: int
    on_machine: int
    threads: int
    flops: float
    projected_mem: int
    scratch_bytes: int

    @property
    def layout(self) -> Layout:
        """The tiles."""
        return Layout(
            tile_rows=self.tile_rows,
            band_rows=self.band_rows,
            sample_rows=self.sample_rows,
        )

    def describe(self) -> str:
        """Return the plan in one sentence."""
        among = f"{self.n_images:,} images of {self.features} features"
        rows = f"{self.n_queries:,} queries among {among}" if self.n_queries else among
        return (
            f"{self.n_neighbors} exact neighbors of {rows}: {self.n_tasks:,} tasks over "
            f"tiles of {self.tile_rows} rows, {self.slots} at once in a process with "
            f"{self.threads} threads each, {self.flops:.2g} operations, "
            f"{_readable(self.projected_mem)} of memory, "
            f"{_readable(self.scratch_bytes)} of scratch files"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What tasks run on.

    Parameters
    ----------
    memory_limit : int
        Bytes that a process may take.
    slots, on_machine, workers : int
        Tasks at once in a process, on a machine, and in all.
    threads : int
        Threads of a task.
    """

    memory_limit: int
    slots: int
    on_machine: int
    workers: int
    threads: int


def plan_neighbors(
    *,
    n_images: int,
    features: int,
    n_neighbors: int,
    itemsize: int,
    machine: Machine,
    n_queries: int = 0,
    layout: Layout | None = None,
) -> NeighborsPlan:
    """Choose tiles that fit into memory, and say what the search will take.

    Parameters
    ----------
    n_images, features, n_neighbors : int
        Size of the search.
    itemsize : int
        Bytes of an entry of the rows.
    machine : Machine
        Where it runs.
    n_queries : int, default 0
        Rows searched for, if they are not those of the database.
    layout : Layout, optional
        Tiles of a search that has begun, instead of the ones that fit best.

    Returns
    -------
    NeighborsPlan

    Raises
    ------
    PlanError
        When not even the smallest tiles fit, or not those of `layout`.
    """
    need = n_neighbors + (not n_queries)
    asked = n_queries or n_images
    sample = 0 if n_queries else _sample(n_images, need)
    fixed = _driver(n_images, asked, n_neighbors) + _OVERHEAD
    sizes = _layouts(n_images, asked, features, sample, machine.workers)
    for each in sizes if layout is None else [layout]:
        tile, band, sample = each.tile_rows, each.band_rows, each.sample_rows
        task = _task(tile, band, features, need, n_images)
        projected = fixed + machine.slots * task
        if projected <= machine.memory_limit:
            break
    else:
        begun = f", as begun with tiles of {tile} rows," if layout else ""
        remedy = "delete the scratch folder, or " if layout else ""
        raise PlanError(
            f"neighbors of {asked:,} rows among {n_images:,} with {features} features, "
            f"{machine.slots} tasks at once{begun} take {_readable(projected)} in a process "
            f"and may take {_readable(machine.memory_limit)}: {remedy}raise memory_limit, or "
            "give workers more memory or fewer threads"
        )
    bands = -(-asked // band)
    pairs = bands if n_queries else bands * (bands + 1) // 2 + 2 * bands
    blocks = -(-n_images // band) + -(-n_queries // band)
    products = 2.0 * asked * n_images if n_queries else 1.0 * n_images * n_images
    return NeighborsPlan(
        n_images=n_images,
        n_queries=n_queries,
        features=features,
        n_neighbors=n_neighbors,
        tile_rows=tile,
        band_rows=band,
        sample_rows=sample,
        n_tasks=pairs + 2 * blocks,
        slots=machine.slots,
        on_machine=machine.on_machine,
        threads=machine.threads,
        flops=(products + 2.0 * asked * sample) * (features + 2),
        projected_mem=projected,
        scratch_bytes=_scratch(n_images, n_queries, features, itemsize, need, sample),
    )


def _layouts(
    n_images: int, asked: int, features: int, sample: int, workers: int
) -> Iterator[Layout]:
    """Yield what tiles there can be, the largest first."""
    tile = min(LARGEST_TILE, 2 * power_of_two_below(max(n_images - 1, SMALLEST_TILE)))
    while tile >= SMALLEST_TILE:
        band = _band(asked, features, tile, workers=workers, single=not sample)
        yield Layout(tile_rows=tile, band_rows=band, sample_rows=sample)
        tile //= 2


def _sample(n_images: int, need: int) -> int:
    """Return the rows of the sample: enough for a bound, few beside all."""
    wanted = max(min(LEAST_SAMPLE, n_images // 5), n_images // SAMPLED, 4 * need)
    return min(n_images, wanted)


def _band(asked: int, features: int, tile: int, *, workers: int, single: bool) -> int:
    """Return the rows of a band: tasks of a second, and enough of them for all workers."""
    if single:
        return tile
    tiles = -(-asked // tile)
    wide = math.isqrt(int(TASK_FLOPS / (2.0 * features * tile * tile))) or 1
    wide = max(1, min(wide, tiles, 8))
    while wide > 1 and (bands := -(-tiles // wide)) * (bands + 1) // 2 < 8 * workers:
        wide -= 1
    return tile * max(wide, -(-tiles // MOST_BANDS))


def most_candidates(need: int) -> int:
    """Return the candidates of a row beyond which float32 does not tell them apart.

    Parameters
    ----------
    need : int
        Nearest rows that are wanted, itself included where it is among the others.

    Returns
    -------
    int
    """
    return 4 * need + 256


def _task(tile: int, band: int, features: int, need: int, n_images: int) -> int:
    """Return the bytes of one task: a pair of tiles or candidates of a band."""
    rows = 4 * 4 * tile * (features + 2)  # two tiles, one turned, one being read
    scores = tile * tile * (4 + 1)
    held = band * 2 * most_candidates(need) * _RECORD  # thinned out when they are more
    pairs = rows + scores + 4 * held  # both directions, and copies while one is sorted
    finish = 4 * band * (features + 2) + 8 * n_images + 5 * held
    return max(pairs, finish) + _BLOCKS


def _driver(n_images: int, asked: int, k: int) -> int:
    """Return the bytes of the process that asks: labels of rows, and the result."""
    return 64 * n_images + asked * (64 + 40 * k)


def _scratch(
    n_images: int, n_queries: int, features: int, itemsize: int, need: int, sample: int
) -> int:
    """Return the bytes of files: rows twice, candidates, finished bands."""
    rows = (n_images + n_queries) * (features * itemsize + (features + 2) * 4 + 16)
    # What the bound from the sample lets through, about; queries keep none in files.
    passed = 16 + need * (-(-n_images // sample) + 1) if sample else 0
    return rows + n_images * passed * _RECORD + (n_queries or n_images) * need * 16


def _readable(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
