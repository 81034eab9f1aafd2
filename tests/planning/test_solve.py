"""The fastest layout within all limits."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import InputError
from embedkit.planning.costs import cost
from embedkit.planning.grid import choose_block
from embedkit.planning.measurement import (
    Forward,
    LayerSize,
    Measurement,
    NetworkMeasurement,
)
from embedkit.planning.memory import MOST, TARGET, MemoryModel
from embedkit.planning.question import Question
from embedkit.planning.remedies import faster, remedies
from embedkit.planning.solve import (
    NEAR,
    Shortfall,
    Solution,
    comfortable,
    layouts,
    needed_limit,
    solve,
    usable,
)
from embedkit.planning.written import most_files

GIB = 2**30
SECONDS = st.floats(1e-5, 0.1)
LAYERS = st.builds(
    LayerSize,
    name=st.text("abc", min_size=1, max_size=3),
    shape=st.tuples(st.integers(1, 5000)),
    itemsize=st.sampled_from([2, 4]),
    flops=st.integers(1, 10**10),
    raw_entries=st.integers(1, 10**6),
    channels=st.integers(1, 2048),
)
NETWORKS = st.builds(
    NetworkMeasurement,
    name=st.just("net"),
    loaded=st.integers(0, GIB),
    load_seconds=st.floats(0, 3),
    input_bytes=st.integers(1, 10**6),
    transform_seconds=SECONDS,
    forward=st.lists(
        st.builds(
            Forward,
            batch=st.integers(1, 64),
            peak=st.integers(0, GIB),
            seconds=SECONDS,
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
    flops=st.just(10**10),
    layers=st.lists(LAYERS, min_size=1, max_size=3).map(tuple),
)
MEASURED = st.builds(
    Measurement,
    reserved=st.integers(0, GIB),
    decode_seconds=SECONDS,
    decoding=st.integers(0, 10**7),
    write_rate=st.floats(1e6, 1e9),
    read_rate=st.floats(1e6, 1e9),
    block_seconds=st.floats(0, 0.2),
    held_seconds=st.floats(0, 0.01),
    networks=st.lists(NETWORKS, min_size=1, max_size=2).map(tuple),
    speedup=st.just(((1, 1.0), (2, 1.6))),
)
QUESTIONS = st.builds(
    Question,
    measured=MEASURED,
    n_images=st.integers(1, 10**6),
    cores=st.integers(1, 4),
    memory=st.integers(GIB // 4, 16 * GIB),
    memory_limit=st.none() | st.integers(GIB // 4, 8 * GIB),
    n_workers=st.none() | st.integers(1, 4),
    threads=st.none() | st.integers(1, 3),
    batch_size=st.none() | st.integers(1, 40),
    block=st.none() | st.sampled_from([1, 32, 100, 4096]),
    time_budget=st.none() | st.floats(1, 10**6),
    disk_budget=st.none() | st.integers(1, 10**11),
    max_files=st.integers(1, 10**6),
)


@settings(deadline=None)
@given(QUESTIONS)
def test_an_answer_keeps_every_limit(question):
    """A layout fits memory, time, disk and files, and is one that was allowed."""
    found = solve(question)

    if isinstance(found, Shortfall):
        assert found.needed > found.given
        return
    layout = found.layout
    assert found.projected_mem <= MOST * found.allowed_mem
    assert found.allowed_mem * layout.workers <= question.memory
    assert found.allowed_mem <= (question.memory_limit or question.memory)
    assert question.n_workers in (None, layout.workers)
    assert question.threads in (None, layout.threads)
    assert question.block in (None, layout.block)
    assert question.batch_size in (None, layout.batch) or layout.batch == layout.block
    assert found.cost.seconds <= (question.time_budget or float("inf"))
    stored = question.n_images * question.measured.row_bytes
    assert stored <= (question.disk_budget or stored)
    files = most_files(
        question.measured, n_images=question.n_images, block=layout.block, columns=4
    )
    assert files <= question.max_files


@settings(deadline=None)
@given(QUESTIONS, st.integers(1, 8 * GIB))
def test_more_memory_never_gives_a_slower_plan(question, more):
    """What fitted before fits then; from what is just enough on, nothing gets slower."""
    roomier = replace(
        question,
        memory=question.memory + more,
        memory_limit=question.memory_limit and question.memory_limit + more,
    )

    before, after = solve(question), solve(roomier)

    if isinstance(before, Solution):
        assert isinstance(after, Solution)
        if comfortable(before.projected_mem, before.allowed_mem):
            assert comfortable(after.projected_mem, after.allowed_mem)
            assert after.cost.seconds <= NEAR * before.cost.seconds


@settings(deadline=None)
@given(QUESTIONS)
def test_no_candidate_is_much_faster(question):
    """The answer is near the best of all that fit, found by trying all of them anew."""
    found = solve(question)
    model = MemoryModel.of(question.measured)

    shares, seconds = [], []
    for each in layouts(question):
        needed = model.projected_mem(
            batch=each.batch,
            block=each.block,
            threads=each.threads,
            decode_threads=each.decode_threads,
        )
        allowed = question.allowed_mem(each.workers)
        if needed <= usable(allowed):
            shares.append(needed / allowed)
            seconds.append(
                cost(
                    question.measured,
                    each,
                    n_images=question.n_images,
                    cores=question.cores,
                ).seconds
            )

    if isinstance(found, Solution):
        roomy = [s for s, share in zip(seconds, shares, strict=True) if share <= TARGET]
        if roomy:
            assert found.cost.seconds <= NEAR * min(roomy)
            assert found.projected_mem <= TARGET * found.allowed_mem
        else:
            assert found.projected_mem / found.allowed_mem == min(shares)
    if isinstance(found, Shortfall) and found.limit == "memory":
        assert not seconds


@settings(deadline=None, max_examples=40)
@given(QUESTIONS)
def test_every_remedy_that_is_named_fits(question):
    """There is one for whatever does not fit, and none slows a run that does."""
    found = solve(question)

    if isinstance(found, Shortfall):
        named = remedies(question, found)
        assert 1 <= len(named) <= 3
    else:
        named = faster(question, found)
        assert all(each.seconds < found.cost.seconds for each in named)
    for each in named:
        again = solve(each.question)
        assert isinstance(again, Solution)
        assert again.cost.seconds == each.seconds


@given(st.integers(0, 10**15))
def test_the_memory_needed_is_the_least_that_is_enough(projected):
    """One byte less could not be planned for."""
    limit = needed_limit(projected)

    assert usable(limit) >= projected
    assert limit == 0 or usable(limit - 1) < projected


def test_plenty_of_memory_gives_the_usual_block(question):
    """Where nothing is short, blocks are those that suit the images."""
    found = solve(question)

    assert found.layout.block <= choose_block(50_000, question.measured.row_bytes)
    assert found.layout.slots == 2


def test_tight_memory_makes_batches_and_blocks_small(question):
    """A worker with little memory is given less at a time, and takes longer."""
    tight = solve(replace(question, memory_limit=750 * 2**20))

    plenty = solve(question)
    assert tight.layout.batch < plenty.layout.batch
    assert tight.cost.seconds > plenty.cost.seconds


def test_blocks_are_no_smaller_than_they_have_to_be(question):
    """A few images' better balance at the end is not worth twice the files."""
    found = solve(question).layout

    half = solve(replace(question, block=found.block // 2)).cost.seconds
    assert NEAR * half >= solve(question).cost.seconds
    assert found.block == choose_block(50_000, question.measured.row_bytes)


def test_a_time_budget_comes_before_fewer_files(question):
    """Where only the smallest blocks keep it, they are taken."""
    usual = solve(question)
    fastest = solve(replace(question, time_budget=1.0)).needed

    found = solve(replace(question, time_budget=fastest))

    assert fastest < usual.cost.seconds
    assert found.cost.seconds == fastest
    assert found.layout.block < usual.layout.block


def test_a_batch_that_is_given_stays_whole(question):
    """Blocks are not cut below it to save memory."""
    found = solve(replace(question, batch_size=48, memory_limit=2 * GIB))

    assert found.layout.batch == 48
    assert found.layout.block >= 48


def test_few_files_make_blocks_large(question):
    """Blocks grow beyond the usual where there would be too many files."""
    usual = solve(question).layout.block

    found = solve(replace(question, max_files=60))

    assert found.layout.block > usual


def test_many_cores_are_divided_nearly_evenly(question):
    """On 64 cores not every number of workers is tried, and the cores are used."""
    large = replace(question, cores=64, memory=256 * GIB, n_images=10**6)

    found = solve(large)

    assert 48 <= found.layout.slots <= 64
    assert len({each.workers for each in layouts(large)}) < 20


@pytest.mark.parametrize("name", ["n_images", "cores", "memory", "batch_size", "block"])
def test_numbers_that_are_too_small_are_refused(question, name):
    """Nothing can be planned with none of it."""
    with pytest.raises(InputError, match=f"{name} is 0: give 1 or more"):
        replace(question, **{name: 0})


def test_a_budget_that_is_no_number_is_refused(question):
    """NaN would be kept by any plan."""
    with pytest.raises(InputError, match="time_budget is nan: give 0 or more"):
        replace(question, time_budget=float("nan"))


def test_no_layer_is_refused(question, measured):
    """A run without layers writes nothing."""
    none = replace(measured, networks=(replace(measured.networks[0], layers=()),))

    with pytest.raises(InputError, match="no layer is to be written"):
        replace(question, measured=none)
