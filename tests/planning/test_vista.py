"""Vista's published algorithm, on the paper's cluster and data."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import PlanError
from embedkit.planning.units import GIB, MIB
from embedkit.planning.vista import (
    BROADCAST_MOST,
    CORE,
    ROSTER,
    VistaCluster,
    VistaNetwork,
    algorithm_1,
    published_code,
    structured_bytes,
    table_bytes,
)

PAPER = VistaCluster(memory=32 * GIB, cores=8, nodes=8)
FOODS = {"n_images": 20_129, "columns": 130}


@pytest.mark.parametrize(
    ("name", "cores", "partitions"),
    [("alexnet", 7, 280), ("vgg16", 6, 240), ("resnet50", 7, 280)],
)
def test_what_the_published_code_computes(name, cores, partitions):
    """Cores and partitions of the three networks of the paper, for the Foods data."""
    assert published_code(ROSTER[name], PAPER, **FOODS) == (cores, partitions)


def test_tables_are_as_large_as_equation_16_says():
    """The largest table of ResNet-50 is 30 GiB, all five of them 75 GiB."""
    sizes = [
        table_bytes(each, n_images=20_000, columns=0) / GIB
        for each in ROSTER["resnet50"].features
    ]

    assert max(sizes) == pytest.approx(30, rel=0.01)
    assert sum(sizes) == pytest.approx(75, rel=0.01)


@pytest.mark.parametrize("name", ROSTER)
def test_the_paper_s_cluster_runs_every_network_on_seven_cores(name):
    """With these footprints memory is no limit there, though it is for the code."""
    plan = algorithm_1(ROSTER[name], PAPER, **FOODS)

    assert plan.cpu == 7
    assert plan.partitions % (7 * 8) == 0
    assert plan.join == "broadcast"


def test_partitions_by_hand():
    """AlexNet's largest table is 6.6 GiB: two rounds of 56 cores with 100 MiB each."""
    plan = algorithm_1(ROSTER["alexnet"], PAPER, **FOODS)

    share = math.ceil(
        (2 * (16 + 4 * 43_264) + 2 * (16 + 4 * 130)) * 20_129 / plan.partitions
    )
    assert plan.partitions == 112
    assert plan.user == ROSTER["alexnet"].serialized + 7 * 2 * share
    assert plan.storage == 32 * GIB - 3 * GIB - 14 * GIB - plan.user - CORE


@given(
    memory=st.integers(4, 256),
    cores=st.integers(2, 32),
    nodes=st.integers(1, 16),
    runtime=st.integers(1, 16),
    features=st.lists(st.integers(1, 400_000), min_size=1, max_size=5),
    downstream=st.integers(0, 4),
    n_images=st.integers(1, 10**6),
)
def test_it_takes_as_many_cores_as_fit(
    memory, cores, nodes, runtime, features, downstream, n_images
):
    """The plan keeps the paper's constraints, and one core more would not."""
    network = VistaNetwork(
        serialized=GIB // 2, runtime=runtime * GIB, features=tuple(features)
    )
    cluster = VistaCluster(memory=memory * GIB, cores=cores, nodes=nodes)
    given_ = {"n_images": n_images, "columns": 10, "downstream": downstream * GIB}

    def left(cpu):
        single = table_bytes(max(features), n_images=n_images, columns=10)
        partitions = math.ceil(single / (100 * MIB * cpu * nodes)) * cpu * nodes
        user = max(
            GIB // 2 + cpu * 2 * math.ceil(single / partitions), cpu * downstream * GIB
        )
        return memory * GIB - 3 * GIB - cpu * runtime * GIB - user

    possible = [cpu for cpu in range(1, min(cores, 8)) if left(cpu) > CORE]
    if not possible:
        with pytest.raises(PlanError, match="take larger nodes"):
            algorithm_1(network, cluster, **given_)
        return

    plan = algorithm_1(network, cluster, **given_)

    assert plan.cpu == max(possible)
    assert plan.storage == left(plan.cpu) - CORE


def test_large_tables_are_shuffled_and_serialized():
    """A table beyond 100 MiB is not broadcast; two layers beyond memory are compressed."""
    plan = algorithm_1(ROSTER["resnet50"], PAPER, n_images=200_000, columns=200)

    assert structured_bytes(n_images=200_000, columns=200) > BROADCAST_MOST
    assert (plan.join, plan.persistence) == ("shuffle", "serialized")


def test_the_published_code_refuses_small_nodes():
    """No core is left where one replica does not fit."""
    small = VistaCluster(memory=6 * GIB, cores=4, nodes=1)

    with pytest.raises(PlanError, match=r"a replica of 3.0 GiB does not fit"):
        published_code(ROSTER["vgg16"], small, **FOODS)
