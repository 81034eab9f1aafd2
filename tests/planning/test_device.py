"""Memory of GPUs: what a worker needs, what it may have, and what does not fit."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import PlanError
from embedkit.planning.device import (
    CONTEXT,
    DEVICE_TARGET,
    GRAPHS,
    Device,
    DeviceModel,
    device_usable,
    needed_of_device,
)
from embedkit.planning.fit import Line
from embedkit.planning.joined import most_demanding
from embedkit.planning.measurement import Measurement
from embedkit.planning.plan import Plan, make_plan
from embedkit.planning.solve import Shortfall, Solution, solve
from embedkit.planning.turns import turns_of
from embedkit.planning.units import GIB, MIB

SIZES = st.integers(0, 10**10)
MODELS = st.builds(
    DeviceModel,
    context=SIZES,
    networks=SIZES,
    forward=st.builds(Line, fixed=SIZES, per_image=SIZES),
)


def on_gpu(measured, each=20 * MIB):
    """Return a measurement of the same network on a GPU: so many bytes an image."""
    network = measured.networks[0]
    forward = tuple(
        replace(one, device_peak=100 * MIB + each * one.batch)
        for one in network.forward
    )
    network = replace(network, forward=forward, device_loaded=50 * MIB)
    return replace(measured, networks=(network,))


@pytest.fixture
def asked(question):
    """Two workers that share a GPU with 4 GiB free."""
    return replace(
        question,
        measured=on_gpu(question.measured),
        n_workers=2,
        device=Device(count=1, memory=4 * GIB),
    )


@given(MODELS, st.integers(1, 1024))
def test_a_larger_batch_needs_no_less(model, batch):
    """The projection is monotone and adds up its parts."""
    found = model.projected(batch)

    assert found <= model.projected(batch + 1)
    assert found == sum(part.nbytes for part in model.parts(batch))


@given(SIZES)
def test_the_least_share_is_the_least(projected):
    """With it so much may be planned for, with a byte less not."""
    least = needed_of_device(projected)

    assert device_usable(least) >= projected
    assert least == 0 or device_usable(least - 1) < projected


@given(st.integers(1, 64), st.integers(1, 64), SIZES)
def test_workers_share_a_gpu(workers, count, memory):
    """However they are spread, no GPU is promised more than it has."""
    share = Device(count=count, memory=memory).allowed(workers)

    busiest = -(-workers // count)
    assert share * busiest <= memory
    assert Device(count=count, memory=memory).allowed(workers + 1) <= share


def test_without_a_gpu_nothing_is_counted(question):
    """Neither a need nor a limit."""
    model = DeviceModel.of(question.measured)

    assert model.projected(64) == 0
    assert question.allowed_device(1000) > 2**60
    plan = make_plan(question)
    assert (plan.device_parts, plan.allowed_device) == ((), 0)
    assert "GPU" not in plan.describe()
    assert "GPU" not in plan._repr_html_()


def test_what_every_part_is(asked):
    """Computed by hand: what a process takes, the network, a batch of 16."""
    parts = DeviceModel.of(asked.measured).parts(16)

    assert {part.name: part.nbytes for part in parts} == {
        "CUDA": CONTEXT,
        "networks": 50 * MIB,
        "forward pass": (100 + 16 * 20) * MIB,
    }


@settings(deadline=None)
@given(
    memory=st.integers(0, 8 * 1024),
    each=st.integers(1, 400),
    workers=st.integers(1, 4),
    count=st.integers(1, 3),
)
def test_a_plan_keeps_the_gpu_s_memory(question, memory, each, workers, count):
    """What is solved fits into a worker's share; what is refused fits nowhere."""
    device = Device(count=count, memory=memory * MIB)
    measured = on_gpu(question.measured, each * MIB)
    found = solve(
        replace(question, measured=measured, n_workers=workers, device=device)
    )

    model, given = DeviceModel.of(measured), DEVICE_TARGET * device.allowed(workers)
    if isinstance(found, Solution):
        assert model.projected(found.layout.batch) <= given
    else:
        assert isinstance(found, Shortfall)
        assert found.limit == "device_memory"
        assert found.needed == model.projected(1) > int(given)


def test_a_small_gpu_has_smaller_batches(asked):
    """What binds is told, and what is needed beside what may be had."""
    roomy = make_plan(asked)
    tight = make_plan(replace(asked, device=Device(count=1, memory=1800 * MIB)))

    assert tight.batch_size < roomy.batch_size
    assert tight.projected_device_mem <= DEVICE_TARGET * tight.allowed_device
    assert tight.allowed_device == 900 * MIB
    for text in (tight.describe(), tight._repr_html_()):
        assert "memory of the GPU for a worker: " in text
        assert "CUDA 512.0 MiB, networks 50.0 MiB, forward pass " in text
        assert "; it may have 900.0 MiB" in text
    assert Plan.from_json(tight.to_json()) == tight
    assert json.loads(tight.to_json())["allowed_device"] == 900 * MIB


def test_a_gpu_that_is_too_small_is_refused(asked):
    """The numbers, and what would fit: more of a GPU, or fewer workers on it."""
    small = replace(asked, device=Device(count=1, memory=1500 * MIB))

    with pytest.raises(
        PlanError,
        match=r"need 682.0 MiB of a GPU for a worker even in the smallest batches, and "
        r"600.0 MiB may be planned for \(0.8 of its share of what is free\): what would "
        r"fit is \(1\) a GPU with 1.7 GiB free, .*\(2\) n_workers=1 with",
    ):
        make_plan(small)


def test_layers_one_after_the_other_hold_copies_of_the_network(asked):
    """A process keeps some jobs open, each with a graph of its own on the GPU."""
    lazy = turns_of(replace(asked, strategy="lazy"))

    assert {turn.device.networks for turn in lazy} == {GRAPHS * 50 * MIB}
    forward = asked.measured.networks[0].forward
    assert lazy[0].measured.networks[0].forward == forward


def test_a_layer_alone_takes_less_of_the_gpu(asked):
    """Where that was measured."""
    network = asked.measured.networks[0]
    alone = tuple(replace(one, device_peak=one.batch * MIB) for one in network.forward)
    measured = replace(asked.measured, networks=(replace(network, alone=alone),))

    turns = turns_of(replace(asked, measured=measured, strategy="lazy"))

    for turn, layer in zip(turns, network.layers, strict=True):
        for one in turn.measured.networks[0].forward:
            assert one.device_peak == one.batch * (MIB + 2 * layer.buffer_bytes)


def test_measurements_of_a_gpu_travel_and_join(asked):
    """As JSON, and as what is enough for two kinds of worker."""
    one = asked.measured
    more = on_gpu(one, 30 * MIB)

    assert Measurement.from_json(one.to_json()) == one
    assert most_demanding([one, more]) == more
