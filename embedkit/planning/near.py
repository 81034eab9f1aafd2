"""What a search for nearly all neighbors takes, and which way to search is the cheapest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from embedkit.errors import PlanError
from embedkit.planning.neighbors import Machine
from embedkit.planning.units import rounded_up, told_bytes, told_seconds

Way: TypeAlias = Literal["lists", "graph", "exact"]

EXACT_SECONDS = 8.0
"""An exact search that takes no longer than that is done instead: what another one begins
with, sampled rows with exact truth, takes a few seconds itself (chosen)."""

_RATE = 6e10
"""Operations a second of one core in large float32 products (measured)."""

_LIFT = 5e-8
"""Seconds of one core to bring an entry of a list into place and to rank it (estimated
from one run: 22 s where 512 features of 100,000 rows in 1264 lists are read)."""

_GROW = 1.3e-8
"""The same for an entry of a point and one of its neighbors (measured: 13.3 s for 100,000
points of 512 entries and 20 neighbors)."""

_RANK = 3e-9
"""The same for an entry that is measured again in float64 (estimated)."""

_COMPILE = 4.0
"""Seconds until what grows a graph is loaded (measured; half a minute more the first time
on a machine, when it is compiled)."""

_FINER = 2.0
"""By how much less tuned lists read than coarse ones (estimated: 7.6 s came to 4.1)."""

_TASK = 1.2e9
"""Bytes of a task that searches lists: rows read, lifted twice (estimated)."""

_PER_NEIGHBOR = 40
"""Bytes of a point for each neighbor while a graph grows (estimated)."""

_PER_POINT = 4000
"""Bytes of candidates and trees of a point (estimated)."""

_COMPILED = 2**28
"""Bytes of Numba and what it has compiled; with it 527 MB measured are 719 MB planned, for
50,000 points of 512 entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearPlan:
    """A search for nearly all neighbors before it runs.

    Parameters
    ----------
    n_images, n_queries : int
        Rows of the database, and rows searched for if these are others, else 0.
    features, n_neighbors : int
        Entries of a row; neighbors of an image.
    recall : float
        Share of the neighbors to find.
    graph : bool
        Whether a graph may be grown: rows are their own queries and fit into memory. A
        look at a few coarse lists chooses it or inverted lists, and tuned lists once more.
    cores : int
        Of all machines together.
    threads : int
        Of the task that grows a graph.
    projected_mem : int
        Bytes that the busiest process takes beyond what it has when it starts.
    scratch_bytes : int
        Bytes of files, at most about.
    exact_seconds : float
        What the exact search takes.
    """

    n_images: int
    n_queries: int
    features: int
    n_neighbors: int
    recall: float
    graph: bool
    cores: int
    threads: int
    projected_mem: int
    scratch_bytes: int
    exact_seconds: float

    @property
    def graph_seconds(self) -> float:
        """What a graph takes; infinite where none can be grown."""
        if not self.graph:
            return float("inf")
        entries = self.n_images * self.features
        width = graph_widths(self.n_neighbors)[0]
        again = _RANK * entries * (self.n_neighbors + 3) / self.cores
        return _COMPILE + _GROW * entries * width / self.threads + again

    def ahead(self, tiles: list[tuple[int, int]]) -> Way:
        """Say which way to try first, given what coarse lists would read.

        Lists are tried unless they would have to become much better by being finer.
        """
        if not self.graph:
            return "lists"
        least = self.lists_seconds(tiles) / _FINER
        return "graph" if least > self.graph_seconds < self.exact_seconds else "lists"

    def cheapest(self, tiles: list[tuple[int, int]]) -> Way:
        """Return the way that takes the least, given what tuned lists would read."""
        seconds: dict[Way, float] = {
            "lists": self.lists_seconds(tiles),
            "graph": self.graph_seconds,
            "exact": self.exact_seconds,
        }
        return min(seconds, key=lambda way: seconds[way])

    def lists_seconds(self, tiles: list[tuple[int, int]]) -> float:
        """Return the seconds of a search through inverted lists.

        Parameters
        ----------
        tiles : list of (int, int)
            Queries and rows read, of each tile.
        """
        return lists_seconds(tiles, features=self.features, cores=self.cores)

    def describe(self) -> str:
        """Return the plan in one sentence."""
        among = f"{self.n_images:,} images of {self.features} features"
        rows = f"{self.n_queries:,} queries among {among}" if self.n_queries else among
        ways = "a neighbor graph or inverted lists" if self.graph else "inverted lists"
        return (
            f"{self.recall:g} of the {self.n_neighbors} neighbors of {rows}: {ways}, "
            f"whichever takes less, {told_bytes(self.projected_mem)} of memory, "
            f"{told_bytes(self.scratch_bytes)} of scratch files; an exact search would "
            f"take {told_seconds(self.exact_seconds)}"
        )


def plan_near(
    *,
    n_images: int,
    features: int,
    n_neighbors: int,
    recall: float,
    itemsize: int,
    machine: Machine,
    n_queries: int = 0,
    symmetric: bool = True,
) -> NearPlan | None:
    """Say what a search for nearly all neighbors takes.

    Parameters
    ----------
    n_images, features, n_neighbors : int
        Size of the search.
    recall : float
        Share of the neighbors to find.
    itemsize : int
        Bytes of an entry of the rows.
    machine : Machine
        What tasks run on.
    n_queries : int, default 0
        Rows to search for, if they are others.
    symmetric : bool, default True
        Whether the distance of two rows is that of points: not for inner products.

    Returns
    -------
    NearPlan or None
        None where the exact search takes so little that nothing else is worth trying.

    Raises
    ------
    PlanError
        When inverted lists do not fit into memory.
    """
    cores = machine.workers * machine.threads
    products = n_images * (n_queries or n_images / 2)
    exact_seconds = 2 * products * features / (_RATE * cores)
    if exact_seconds <= EXACT_SECONDS:
        return None
    lists = int(machine.slots * _TASK)
    grown = graph_bytes(n_images, features, n_neighbors)
    graph = symmetric and not n_queries and grown <= machine.memory_limit
    if lists > machine.memory_limit and not graph:
        raise PlanError(
            f"a search for recall={recall:g} among {n_images:,} images needs "
            f"{told_bytes(lists)} in each process and may take "
            f"{told_bytes(machine.memory_limit)}: give memory_limit={rounded_up(lists)[1]!r} or more, "
            "fewer threads a worker, or recall=1.0, which takes less memory"
        )
    return NearPlan(
        n_images=n_images,
        n_queries=n_queries,
        features=features,
        n_neighbors=n_neighbors,
        recall=recall,
        graph=graph,
        cores=cores,
        threads=machine.on_machine * machine.threads,
        projected_mem=max(lists, grown) if graph else lists,
        scratch_bytes=(n_images + n_queries) * (features * itemsize + 24 * n_neighbors),
        exact_seconds=exact_seconds,
    )


def graph_widths(n_neighbors: int) -> tuple[int, ...]:
    """Return how many neighbors a graph has for each point, and what is tried next."""
    wide = n_neighbors + max(8, n_neighbors // 2)
    return n_neighbors + max(5, n_neighbors // 3), 2 * wide, 4 * wide


def graph_bytes(n_images: int, features: int, n_neighbors: int) -> int:
    """Return the bytes of a process that grows the first graph."""
    width = graph_widths(n_neighbors)[0]
    each = 8 * features + _PER_NEIGHBOR * width + _PER_POINT
    return _COMPILED + n_images * each


def lists_seconds(tiles: list[tuple[int, int]], *, features: int, cores: int) -> float:
    """Return the seconds of a search through inverted lists.

    Parameters
    ----------
    tiles : list of (int, int)
        Queries and rows read, of each tile.
    features : int
        Entries of a row.
    cores : int
        Of all machines together.
    """
    each = (rows * features * (2 * queries / _RATE + _LIFT) for queries, rows in tiles)
    return sum(each) / cores
