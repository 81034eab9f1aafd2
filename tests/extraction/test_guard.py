"""When batches become smaller, and how far."""

import uuid

import pytest

from embedkit.extraction.block import guard
from embedkit.extraction.block.guard import FULL, Guard, lacks_memory

LIMIT = 1000


class Meter:
    """A meter that tells what it was given."""

    def __init__(self):
        self.since, self.peak = 0, -1

    def look(self):
        return self.since


@pytest.fixture
def watch(monkeypatch):
    """Make guards of one run in a process that holds so much, of a thousand bytes."""
    run, held = uuid.uuid4().hex, [0]
    monkeypatch.setattr(guard, "memory_limit", lambda: LIMIT)
    monkeypatch.setattr(guard, "resident", lambda: held[0])
    monkeypatch.setattr(guard, "release", lambda: None)

    def make(*, holds=0, deaths=0, run=run):
        held[0] = holds
        return Guard(Meter(), run=run, deaths=deaths)

    return make


def _pass(watching, *, before, peak, size=16, key="k"):
    """Let a forward pass go by."""
    watching._meter.since = before
    guard_before = watching.before
    guard_before()
    watching._meter.since = peak
    return watching.after(key, size)


def test_with_room_nothing_changes(watch):
    """The batch stays, and nothing is said."""
    watching = watch(holds=500)

    assert watching.begin("k", 16) == (16, "")
    assert _pass(watching, before=500, peak=FULL * LIMIT) == (16, "")


def test_a_pass_beyond_three_quarters_is_halved_and_says_why(watch):
    """The numbers are in the reason."""
    watching = watch(holds=500)

    assert _pass(watching, before=500, peak=760) == (8, "760 B of 1000 B in use")


def test_other_blocks_of_the_run_begin_with_what_was_come_down_to(watch):
    """And they say so; another run begins with its own."""
    _pass(watch(holds=500), before=500, peak=760)

    assert watch(holds=500).begin("k", 16) == (8, "760 B of 1000 B in use")
    assert watch(holds=500).begin("other", 16) == (16, "")
    assert watch(holds=500, run="another").begin("k", 16) == (16, "")


def test_threads_follow_one_another_down(watch):
    """What another thread has come down to holds from the next batch on."""
    mine, other = watch(holds=500), watch(holds=500)
    _pass(other, before=500, peak=760)

    assert _pass(mine, before=500, peak=510) == (8, "760 B of 1000 B in use")


def test_one_image_is_the_least(watch):
    """Below one nothing can be done."""
    watching = watch(holds=500)

    sizes = [16]
    while len(sizes) < 7:
        size, _ = _pass(watching, before=500, peak=990, size=sizes[-1])
        sizes.append(size)

    assert sizes == [16, 8, 4, 2, 1, 1, 1]


def test_odd_sizes_are_halved_downwards(watch):
    """Ten, five, two, one."""
    watching = watch(holds=500)

    assert [watching.halve("k", size, "why")[0] for size in (10, 5, 2, 1)] == [
        5,
        2,
        1,
        1,
    ]


def test_what_smaller_batches_cannot_help_changes_nothing(watch):
    """Rows fill the memory, and the pass takes next to nothing: it would only be slow."""
    watching = watch(holds=900)

    assert _pass(watching, before=900, peak=940) == (16, "")


def test_a_full_process_begins_with_half_a_batch_once(watch):
    """As long as nobody knows what a pass takes; from then on only if that helps."""
    first = watch(holds=800)

    assert first.begin("k", 16) == (8, "800 B of 1000 B in use")
    _pass(first, before=800, peak=810, size=8)
    assert watch(holds=800).begin("k", 16) == (8, "800 B of 1000 B in use")


@pytest.mark.parametrize(("deaths", "size"), [(1, 8), (2, 4), (9, 1)])
def test_every_death_in_a_block_halves_its_batch(deaths, size, watch):
    """Of this block alone; others of the process are as they were."""
    found, why = watch(deaths=deaths).begin("k", 16)

    assert found == size
    assert why.endswith("died in this block")
    assert watch().begin("k", 16) == (16, "")


def test_a_process_knows_what_its_blocks_have_needed(watch):
    """The most of any, by run; nothing before the first has ended."""
    assert guard.needed("mine") is None
    for peak in (500, 700, 600):
        watching = watch(run="mine")
        watching._meter.peak = peak
        watching.end()

    assert guard.needed("mine") == 0.7
    assert guard.needed("other") is None


@pytest.mark.parametrize(("holds", "times"), [(740, 0), (760, 1)])
def test_a_full_process_gives_memory_back_behind_a_block(
    holds, times, watch, monkeypatch
):
    """Else Dask would begin no other block in it."""
    released = []
    monkeypatch.setattr(guard, "release", lambda: released.append(1))

    watch(holds=holds).end()

    assert len(released) == times


def test_a_block_beyond_its_plan_is_told_once(watch, caplog):
    """And again only when a later one needs more."""
    with caplog.at_level("WARNING", logger=guard.__name__):
        for peak in (500, 700, 700, 650, 710):
            watching = watch(run="planned")
            watching._meter.peak = peak
            watching.end(projected=600)

    assert [each.message for each in caplog.records] == [
        "a block needed 700 B; 600 B were planned and 1000 B are there",
        "a block needed 710 B; 600 B were planned and 1000 B are there",
    ]


def test_a_death_does_not_raise_what_was_come_down_to(watch):
    """The smaller one counts."""
    watch().halve("k", 4, "out of memory: no")

    assert watch(deaths=1).begin("k", 16) == (2, "out of memory: no")


def test_runs_of_long_ago_are_forgotten(watch):
    """A process that lives for years does not collect them."""
    for number in range(200):
        watch(run=f"r{number}").halve("k", 4, "why")

    assert len(guard._sizes) <= 64


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
        RuntimeError("could not create: can't allocate memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["python", "cuda", "cpu", "other", "cudnn"],
)
def test_errors_that_mean_no_memory(error):
    """As Python, CUDA and PyTorch's allocator say it."""
    assert lacks_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("out of memory"), OSError()]
)
def test_errors_that_mean_something_else(error):
    """A smaller batch would not mend them."""
    assert not lacks_memory(error)


def test_a_halved_batch_gives_back_what_a_gpu_keeps(watch, monkeypatch):
    """Pieces that the larger batch has left may be too small for the next one."""
    released = []
    monkeypatch.setattr(guard, "release_device", lambda: released.append(1))

    assert watch().halve("k", 8, "out of memory: CUDA out of memory.") == (
        4,
        "out of memory: CUDA out of memory.",
    )

    assert released == [1]
