"""Vista's optimizer: the published algorithm, kept as a reference to compare with.

Nothing in embedkit runs by it. `solve` differs in what follows.

* Threads of a worker share one network here; Vista replicates it for each of them.
* Footprints are measured here, batch by batch; Vista takes them from a table of three
  networks.
* Intermediate layers never form a table here: they are pooled in the pass that computes
  them, so there is nothing to spill, to join or to cache.
* Cores are one of the things that are chosen by time; Vista takes as many as memory
  allows.

The authors' code is not their algorithm: `published_code` is what it computes. It also
has defects that are not repeated here. The two largest layers are looked for in a slice
that is always empty, so that persistence hangs on the size of the images alone. The list
of ResNet-50's layers lacks ``conv5_3``, so that the staged plan applies the last block
twice. Pooling takes channels to come first where they come last, and forgets all rows of
a quarter but the last one.

References
----------
Nakandala, S. and Kumar, A. (2020). Vista: Optimized System for Declarative Feature
Transfer from Deep CNNs at Scale. SIGMOD, Algorithm 1 and equation 16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from embedkit.errors import PlanError
from embedkit.planning.units import GIB, MIB

OS_RESERVED: Final = 3 * GIB
CORE: Final = math.floor(2.4 * GIB)
PARTITION_MOST: Final = 100 * MIB
BROADCAST_MOST: Final = 100 * MIB
CPU_MOST: Final = 8
BLOW_UP: Final = 2
"""How much larger an object in Java's memory is than its numbers."""

_SIDE = 227
_HEADERS = 8 + 8
"""Bytes of a row besides its numbers: the id, the header of a field of variable length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VistaNetwork:
    """A network as Vista's table has it.

    Parameters
    ----------
    serialized : int
        Bytes of its file.
    runtime : int
        Bytes of one replica in memory.
    features : tuple of int
        Numbers of one image in every layer explored, bottom to top.
    """

    serialized: int
    runtime: int
    features: tuple[int, ...]


ROSTER: Final = {
    "alexnet": VistaNetwork(
        serialized=math.floor(0.3 * GIB),
        runtime=2 * GIB,
        features=(43_264, 4096, 4096, 1000),
    ),
    "vgg16": VistaNetwork(
        serialized=math.floor(0.6 * GIB), runtime=3 * GIB, features=(4096, 4096, 1000)
    ),
    "resnet50": VistaNetwork(
        serialized=math.floor(0.2 * GIB),
        runtime=GIB,
        features=(200_704, 100_352, 100_352, 100_352, 1000),
    ),
}
"""The three networks, with the constants of the authors' code. Those of the paper differ:
it reports 4 cores for VGG-16, where these give more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VistaCluster:
    """A cluster of equal nodes.

    Parameters
    ----------
    memory : int
        Bytes of a node.
    cores : int
        Of a node.
    nodes : int
        How many.
    """

    memory: int
    cores: int
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VistaPlan:
    """What Algorithm 1 decides.

    Parameters
    ----------
    storage, user : int
        Bytes of a node for cached tables, and for objects of user functions.
    cpu : int
        Cores of a node that are used.
    partitions : int
        Of every table.
    join : {"broadcast", "shuffle"}
        How the table and the images meet.
    persistence : {"deserialized", "serialized"}
        How cached tables lie in memory.
    """

    storage: int
    user: int
    cpu: int
    partitions: int
    join: Literal["broadcast", "shuffle"]
    persistence: Literal["deserialized", "serialized"]


def table_bytes(features: int, *, n_images: int, columns: int) -> int:
    """Return the estimated bytes of a table of one layer beside the user's table.

    Parameters
    ----------
    features : int
        Numbers of one image.
    n_images : int
        Rows.
    columns : int
        Numeric columns of the user's table.

    References
    ----------
    Equation 16 of the paper.
    """
    own = BLOW_UP * (_HEADERS + 4 * features) * n_images
    return own + structured_bytes(n_images=n_images, columns=columns)


def structured_bytes(*, n_images: int, columns: int) -> int:
    """Return the estimated bytes of the user's table alone."""
    return BLOW_UP * (_HEADERS + 4 * columns) * n_images


def algorithm_1(
    network: VistaNetwork,
    cluster: VistaCluster,
    *,
    n_images: int,
    columns: int,
    downstream: int = 0,
) -> VistaPlan:
    """Return the plan of the paper's Algorithm 1.

    Parameters
    ----------
    network : VistaNetwork
        The network, with the layers to explore.
    cluster : VistaCluster
        The cluster.
    n_images, columns : int
        Rows and numeric columns of the user's table.
    downstream : int, default 0
        Bytes of the downstream model on one thread.

    Raises
    ------
    PlanError
        When no number of cores leaves enough memory.
    """
    tables = [
        table_bytes(each, n_images=n_images, columns=columns)
        for each in network.features
    ]
    structured = structured_bytes(n_images=n_images, columns=columns)
    single, double = max(tables), _two_neighbours(tables) - structured
    for cpu in range(min(cluster.cores, CPU_MOST) - 1, 0, -1):
        partitions = _partitions(single, cpu * cluster.nodes)
        worker = cluster.memory - OS_RESERVED - cpu * network.runtime
        share = math.ceil(single / partitions)
        user = max(network.serialized + cpu * BLOW_UP * share, cpu * downstream)
        if worker - user <= CORE:
            continue
        storage = worker - user - CORE
        return VistaPlan(
            storage=storage,
            user=user,
            cpu=cpu,
            partitions=partitions,
            join="broadcast" if structured < BROADCAST_MOST else "shuffle",
            persistence="serialized" if storage < double else "deserialized",
        )
    raise PlanError(_refused(network, cluster))


def published_code(
    network: VistaNetwork, cluster: VistaCluster, *, n_images: int, columns: int
) -> tuple[int, int]:
    """Return the cores and partitions that the authors' code computes.

    It counts the file of the network once a core and reserves 0.3 GiB more, and takes
    the numbers of an image, 227 by 227 by 3, for the largest layer.

    Raises
    ------
    PlanError
        When no number of cores leaves enough memory.
    """
    row = 4 * BLOW_UP * (_SIDE * _SIDE * 3 + columns)
    for cpu in range(min(cluster.cores, CPU_MOST) - 1, 0, -1):
        each = max(network.serialized + 2 * 0.1 * GIB, 0.5 * GIB)
        user = cpu * each + 0.2 * GIB
        heap = cluster.memory - OS_RESERVED - cpu * network.runtime
        if heap - 0.3 * GIB - user >= CORE:
            return cpu, _partitions(row * n_images, cpu * cluster.nodes)
    raise PlanError(_refused(network, cluster))


def _partitions(nbytes: int, cores: int) -> int:
    """Return a multiple of all cores whose partitions are small enough."""
    return max(1, math.ceil(nbytes / (PARTITION_MOST * cores))) * cores


def _two_neighbours(tables: Sequence[int]) -> int:
    return max((a + b for a, b in pairwise(tables)), default=max(tables))


def _refused(network: VistaNetwork, cluster: VistaCluster) -> str:
    return (
        f"a replica of {network.runtime / GIB:.1f} GiB does not fit a node with "
        f"{cluster.memory / GIB:.1f} GiB and {cluster.cores} cores, of which the first "
        f"{OS_RESERVED / GIB:.0f} GiB and one core are reserved: take larger nodes"
    )
