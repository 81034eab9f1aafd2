"""What a search for nearly all neighbors takes, and which way to search is the cheapest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from embedkit.errors import PlanError
from embedkit.planning.neighbors import Machine
from embedkit.planning.units import told_bytes, told_seconds

Way: TypeAlias = Literal["lists", "graph", "exact"]

EXACT_SECONDS = 20.0
"""An exact search that takes no longer than that is done instead (chosen: compiling what
grows a graph takes as long)."""

_RATE = 6e10  # operations a second of one core in large float32 products (measured)
_LIFT = 2e-8  # seconds of one core to bring an entry of a list into place (estimated)
_GROW = 1.8e-8  # the same for an entry of a point and one of its neighbors (measured)
_RANK = 4e-9  # the same for an entry that is measured again in float64 (estimated)
_COMPILE = 15.0  # seconds until Numba has compiled what grows a graph (measured)

_TASK = (
    1.2e9  # bytes of a task that searches lists: rows read, lifted twice (estimated)
)
_PER_NEIGHBOR = 40  # bytes of a point for each neighbor while a graph grows (estimated)
_PER_POINT = 4000  # bytes of candidates and trees of a point (estimated)
_COMPILED = (
    2**28
)  # bytes of Numba and what it has compiled; with it 527 MB measured are
# 719 MB planned, for 50,000 points of 512 entries


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
        Whether a graph may be grown: rows are their own queries and fit into memory. It
        or inverted lists are chosen once the lists have been tuned.
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

    def cheapest(self, lists_seconds: float) -> Way:
        """Return the way that takes the least, given what the tuned lists would take."""
        seconds: dict[Way, float] = {
            "lists": lists_seconds,
            "graph": self.graph_seconds,
            "exact": self.exact_seconds,
        }
        return min(seconds, key=lambda way: seconds[way])

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
            f"{told_bytes(machine.memory_limit)}: give memory_limit={lists} or more, "
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
    width = n_neighbors + max(8, n_neighbors // 2)
    return width, 2 * width, 4 * width


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
