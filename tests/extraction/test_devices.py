"""The GPUs of a run, asked of the processes that would compute it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedkit as ek
from embedkit.extraction.measure import devices
from embedkit.extraction.measure.devices import device_of, shared
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans import planned
from embedkit.networks.device import DeviceState
from embedkit.planning.device import Device

GIB = 2**30


def state(name="gpu-a", free=4 * GIB, kept=0):
    """Return a GPU as a process might see it."""
    return DeviceState(name=name, free=free, kept=kept)


@pytest.fixture
def measure(monkeypatch):
    """Rough numbers, with those of a GPU beside them; there is none here."""

    def measured(looks, *, n_images=None, where=None, refresh=False):
        found = rough(looks)
        networks = tuple(
            replace(
                each,
                forward=tuple(
                    replace(one, device_peak=one.batch * 2**20) for one in each.forward
                ),
            )
            for each in found.networks
        )
        return replace(found, networks=networks)

    monkeypatch.setattr(planned, "measure", measured)


def test_processes_that_share_a_gpu_count_it_once():
    """What they have taken already they can use again."""
    found = shared([state(kept=GIB), state(free=3 * GIB, kept=2 * GIB)])

    assert found == Device(count=1, memory=6 * GIB)


def test_the_smallest_gpu_decides():
    """Wherever a worker lands, its share is there."""
    assert shared([state(), state("gpu-b", free=GIB)]) == Device(count=2, memory=GIB)


def test_no_gpu_is_none():
    """Workers without one plan with their memory alone."""
    assert shared([]) is None


@given(
    st.lists(
        st.builds(state, st.sampled_from("abc"), st.integers(0, 10), st.integers(0, 10))
    )
)
def test_no_more_than_there_is(states):
    """Every GPU has what is promised of each."""
    found = shared(states)

    for name in {each.name for each in states}:
        mine = [each for each in states if each.name == name]
        there = min(each.free for each in mine) + sum(each.kept for each in mine)
        assert found.memory <= there


def test_nobody_is_asked_where_no_gpu_was_measured(images, network, monkeypatch):
    """Asking takes memory of a GPU."""
    monkeypatch.setattr(devices, "device_state", None)

    assert device_of(rough_of(images, network)) is None


def rough_of(images, network):
    """Return the rough numbers of a call."""
    seen = []

    def measure(looks, *, n_images=None, where=None, refresh=False):
        seen.append(rough(looks))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "measure", measure)
        ek.plan(images, network)
    return seen[-1]


def test_a_plan_counts_the_gpu_of_this_process(images, network, measure, monkeypatch):
    """It is said what a worker needs of it and may have."""
    monkeypatch.setattr(devices, "device_state", state)

    plan = ek.plan(images, network)

    assert plan.allowed_device == 4 * GIB
    assert "memory of the GPU for a worker: " in plan.describe()


def test_workers_are_asked(images, network, measure, monkeypatch):
    """Each of them, for its own."""

    class Client:
        def run(self, function):
            return {"tcp://a": function(), "tcp://b": function(), "tcp://c": None}

    monkeypatch.setattr(devices, "device_state", state)
    monkeypatch.setattr(devices, "active_client", Client)

    plan = ek.plan(images, network, n_workers=2)

    assert plan.allowed_device == 2 * GIB
