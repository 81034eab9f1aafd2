"""Which maps it takes to go from layer to layer."""

from functools import cache
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from embedkit.extraction.strategy.chain import Step, Taps, chain


def taps_of(parents):
    """The taps of a graph: of each node, those that it is computed from; -1 is the input."""

    @cache
    def around(tap, start):
        """Whether a way leads from a tap back to the input past another."""
        if tap == start:
            return False
        return any(each < 0 or around(each, start) for each in parents[tap])

    return Taps(
        order=tuple(str(tap) for tap in range(len(parents))),
        follows=lambda start, tap: not around(int(tap), int(start)),
    )


@st.composite
def questions(draw):
    """A graph, the layers asked for, what is stored of them, and what is left of a run."""
    size = draw(st.integers(1, 9))
    parents = tuple(
        tuple(
            draw(st.sets(st.integers(max(-1, at - 3), at - 1), min_size=1, max_size=3))
        )
        for at in range(size)
    )
    names = [str(tap) for tap in range(size)]
    some = st.sets(st.sampled_from(names))
    layers = sorted(draw(st.sets(st.sampled_from(names), min_size=1)), key=int)
    return taps_of(parents), layers, draw(some), draw(some)


@given(questions())
def test_every_layer_follows_from_what_is_there(question):
    """From its start, which is stored by then; no more than two maps lie there at once."""
    taps, layers, whole, left = question

    steps = chain(taps, layers, whole=whole, maps=left)

    assert [step.tap for step in steps if not step.is_map] == layers
    stored, maps = whole - set(layers), set(left)
    for step in steps:
        maps &= step.maps
        assert step.start is None or step.start in stored | maps
        assert step.start is None or taps.follows(step.start, step.tap)
        assert len(step.maps) <= 2
        if step.is_map:
            assert step.tap in step.maps
            maps.add(step.tap)
        elif step.tap in whole:
            stored.add(step.tap)
        assert step.maps <= maps


@given(questions())
def test_no_map_is_computed_for_nothing(question):
    """While it lies there something begins at it, and the last step needs none besides."""
    taps, layers, whole, left = question

    steps = chain(taps, layers, whole=whole, maps=left)

    for at, step in enumerate(steps):
        if step.is_map:
            behind = takewhile(
                lambda later, tap=step.tap: tap in later.maps, steps[at + 1 :]
            )
            assert step.tap in {later.start for later in behind}
    assert not steps[-1].is_map
    assert steps[-1].maps <= {steps[-1].start}


LINE = ((-1,), (0,), (1,), (2,), (3,))


def test_a_line_goes_from_map_to_map():
    """Each layer is pooled from its own map, the last one computed from the one before."""
    steps = chain(taps_of(LINE), ["1", "3", "4"])

    assert steps == [
        Step(tap="1", is_map=True, start=None, maps=frozenset("1")),
        Step(tap="1", is_map=False, start="1", maps=frozenset("1")),
        Step(tap="3", is_map=True, start="1", maps=frozenset("13")),
        Step(tap="3", is_map=False, start="3", maps=frozenset("3")),
        Step(tap="4", is_map=False, start="3", maps=frozenset("3")),
    ]


def test_a_map_that_was_asked_for_is_no_scratch():
    """The layer itself is gone on from."""
    steps = chain(taps_of(LINE), ["1", "3", "4"], whole={"1", "3"})

    assert [(step.tap, step.is_map, step.start) for step in steps] == [
        ("1", False, None),
        ("3", False, "1"),
        ("4", False, "3"),
    ]
    assert not any(step.maps for step in steps)


def test_a_run_goes_on_from_the_map_that_is_left():
    """An earlier map is of no use any more."""
    steps = chain(taps_of(LINE), ["3", "4"], maps={"0", "1"})

    assert steps[0] == Step(tap="3", is_map=True, start="1", maps=frozenset("13"))


def test_a_stored_layer_behind_the_last_one_is_begun_from():
    """It is nearer to the next layer than anything that would have to be computed."""
    steps = chain(taps_of(LINE), ["0", "4"], whole={"2"})

    assert [(step.tap, step.is_map, step.start) for step in steps] == [
        ("0", False, None),
        ("4", False, "2"),
    ]


def test_the_inside_of_a_branch_is_gone_round():
    """From 1, inside a branch of 0, nothing follows that needs the other one: from 0 it does."""
    branches = ((-1,), (0,), (0,), (1, 2), (3,))

    steps = chain(taps_of(branches), ["1", "3", "4"])

    assert [(step.tap, step.is_map, step.start) for step in steps] == [
        ("1", False, None),
        ("0", True, None),
        ("3", True, "0"),
        ("3", False, "3"),
        ("4", False, "3"),
    ]


def test_what_needs_the_images_begins_there():
    """A layer that the input reaches past everything else is computed from the images."""
    steps = chain(taps_of(((-1,), (0, -1), (1, -1))), ["0", "1", "2"])

    assert [step.start for step in steps] == [None, None, None]
    assert chain(taps_of(LINE), []) == []
