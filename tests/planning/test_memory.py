"""What a worker needs, part by part."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.fit import Line
from embedkit.planning.memory import MemoryModel

SIZES = st.integers(0, 10**9)
MODELS = st.builds(
    MemoryModel,
    reserved=SIZES,
    networks=SIZES,
    forward=st.builds(Line, fixed=SIZES, per_image=SIZES),
    input_bytes=SIZES,
    decoding=SIZES,
    buffer_bytes=SIZES,
    encoding=SIZES,
)
CHOICES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 256),
        "block": st.integers(1, 8192),
        "threads": st.integers(1, 64),
        "decode_threads": st.integers(1, 8),
    }
)


@given(MODELS, CHOICES, st.sampled_from(["batch", "block", "threads"]))
def test_more_of_anything_needs_no_less(model, choice, name):
    """The projection is monotone in batch, block and threads, and adds up its parts."""
    before = model.projected_mem(**choice)

    after = model.projected_mem(**{**choice, name: choice[name] + 1})

    assert after >= before
    assert before == sum(part.nbytes for part in model.parts(**choice))


@given(MODELS, CHOICES)
def test_threads_share_the_network(model, choice):
    """A second thread adds what a task needs, and no other network or forward pass."""
    one, two = (
        model.projected_mem(**{**choice, "threads": threads}) for threads in (1, 2)
    )

    shared = model.reserved + model.networks + model.forward.at(choice["batch"])
    assert two - one == one - shared + choice["batch"] * model.buffer_bytes


def test_what_every_part_is(measured):
    """The parts of a worker with two tasks, computed by hand."""
    parts = MemoryModel.of(measured).parts(
        batch=16, block=512, threads=2, decode_threads=2
    )

    image = 3 * 224 * 224 * 4
    assert {part.name: part.nbytes for part in parts} == {
        "Python and libraries": 350_000_000,
        "networks": 60_000_000,
        "forward pass": 148_000_000 + 16 * 960 * 4,
        "batch": 2 * 16 * image,
        "images read ahead": 2 * 34 * image,
        "decoding": 4 * 2_000_000,
        "rows of the block": 2 * 512 * 960 * 4,
        "encoding of shards": 2 * 512 * 2 * 2048,
    }


def test_rounding_a_layer_takes_memory(measured, layers):
    """Stored as float16 the largest layer is looked at number by number."""
    halves = tuple(replace(each, itemsize=2) for each in layers)
    network = replace(measured.networks[0], layers=halves)

    model = MemoryModel.of(replace(measured, networks=(network,)))

    assert model.encoding == 22 * 512
    assert model.buffer_bytes == 4 * 960


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 32, 64])
def test_every_measured_batch_is_covered(measured, batch):
    """The forward pass is nowhere projected below its measured peak."""
    found = MemoryModel.of(measured).forward.at(batch)

    assert found >= (20 + 8 * batch) * 10**6


@given(MODELS, CHOICES, SIZES)
def test_loading_counts_as_far_as_it_is_more_than_what_comes_later(
    model, choice, loading
):
    """A worker needs the larger of both, beside its libraries and networks."""
    held = model.reserved + model.networks
    working = model.projected_mem(**choice) - held

    found = replace(model, loading=loading).projected_mem(**choice)

    assert found == held + max(working, loading)
