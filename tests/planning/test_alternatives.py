"""Which strategy a plan has, and what it says of the others."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import PlanError
from embedkit.planning.alternatives import Alternative, choose
from embedkit.planning.memory import MOST
from embedkit.planning.plan import Plan, make_plan
from embedkit.planning.remedies import WORTH
from embedkit.planning.solve import Shortfall, Solution, needed_limit, solve
from embedkit.planning.units import MIB

ALL = ("fused", "staged", "lazy")


@pytest.fixture
def halves(maps):
    """The same layers pooled: raw maps that nobody asked for lie between them."""
    network = maps.measured.networks[0]
    pooled = tuple(replace(each, shape=(each.channels,)) for each in network.layers)
    return replace(
        maps,
        measured=replace(maps.measured, networks=(replace(network, layers=pooled),)),
    )


def least(question, strategy):
    """Return the smallest limit of a worker that a strategy can do with."""
    short = solve(replace(question, strategy=strategy, memory_limit=MIB))
    assert isinstance(short, Shortfall)
    return needed_limit(int(short.needed))


def test_what_fits_is_one_pass(maps):
    """It repeats nothing, so it is the fastest; the others are told in numbers."""
    plan = make_plan(replace(maps, strategy="auto"))

    assert plan.strategy == "fused"
    assert [each.strategy for each in plan.alternatives] == list(ALL)
    assert [each.chosen for each in plan.alternatives] == [True, False, False]
    assert plan.alternatives[0].seconds == plan.seconds
    assert plan.alternatives[0].memory == plan.projected_mem
    assert all(each.seconds > plan.seconds for each in plan.alternatives[1:])
    assert plan.ways == tuple(map(str, plan.alternatives))


def test_what_does_not_fit_in_one_pass_is_computed_layer_by_layer(maps):
    """The fastest of those that fit is taken; it keeps the memory."""
    limit = least(maps, "lazy")
    assert limit < least(maps, "fused")
    tight = replace(maps, memory_limit=limit + MIB, strategy="auto")

    plan = make_plan(tight)

    assert plan.strategy in ("staged", "lazy")
    assert plan.projected_mem <= MOST * plan.allowed_mem
    assert not plan.roomy
    assert "which is tight: the steps are the smallest" in plan.describe()
    fused = plan.alternatives[0]
    assert (fused.seconds, fused.chosen) == (None, False)
    assert fused.memory > MOST * (limit + MIB)
    assert f"fused: {fused.memory / MIB:.1f} MiB in a worker; not taken, " in (
        plan.describe()
    )
    assert f"{plan.strategy}: " in plan._repr_html_()
    told = json.loads(plan.to_json())
    assert told["strategy"] == plan.strategy
    assert [each["strategy"] for each in told["alternatives"]] == list(ALL)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("strategy", ALL)
def test_the_one_that_is_named_is_planned(maps, strategy):
    """Even if it is slower; where it does not fit, the others are among the remedies."""
    plan = make_plan(replace(maps, strategy=strategy))

    assert plan.strategy == strategy
    (chosen,) = (each for each in plan.alternatives if each.chosen)
    assert (chosen.strategy, chosen.why) == (strategy, "asked for")


def test_a_named_one_that_does_not_fit_is_refused(maps):
    """Another strategy that would fit is named with its time."""
    tight = replace(maps, memory_limit=least(maps, "lazy") + MIB, strategy="fused")

    with pytest.raises(PlanError, match=r"need .* strategy='(lazy|staged)', \d"):
        make_plan(tight)


def test_where_none_fits_it_is_refused(maps):
    """It is said of which of them, that the others do not fit either, and what would."""
    tight = replace(maps, memory_limit=100 * MIB, strategy="auto")

    with pytest.raises(
        PlanError,
        match=r"as \w+; \w+ and \w+ cannot fit either: what would fit is \(1\) memory_",
    ) as caught:
        make_plan(tight)

    assert "\n" not in str(caught.value)


def test_raw_maps_take_disk(halves):
    """They count as disk and as files; what they take is said."""
    staged = make_plan(replace(halves, strategy="staged"))
    stored = sum(staged.nbytes.values())

    raw = [4 * each.raw_entries for each in halves.measured.layers]
    assert staged.scratch_bytes == 1000 * max(raw[0] + raw[1], raw[1] + raw[2])
    assert " of raw maps meanwhile, about " in staged.describe()
    budget = stored + staged.scratch_bytes
    fits, short = (
        solve(replace(halves, strategy="staged", disk_budget=each))
        for each in (budget, budget - 1)
    )
    assert isinstance(fits, Solution)
    assert (short.limit, short.needed) == ("disk_budget", budget)
    with pytest.raises(PlanError, match=r"of raw maps are .* strategy='fused'"):
        make_plan(replace(halves, strategy="staged", disk_budget=stored))
    assert make_plan(replace(halves, strategy="auto", disk_budget=stored)).strategy in (
        "fused",
        "lazy",
    )


def test_files_of_raw_maps_count(halves):
    """More files lie there than those of the layers alone."""
    files = {}
    for strategy in ("lazy", "staged"):
        short = solve(replace(halves, strategy=strategy, max_files=1))
        assert short.limit == "max_files"
        files[strategy] = short.needed

    assert files["staged"] > files["lazy"] > 0


def test_what_is_impossible_is_not_taken(maps):
    """The reason is told; asked for by name it is an error with the others."""
    asked = replace(maps, impossible={"staged": "it has no graph"}, strategy="auto")
    tight = replace(asked, memory_limit=least(maps, "lazy") + MIB)

    plan = make_plan(tight)

    assert plan.strategy == "lazy"
    assert plan.alternatives[1].why == "it has no graph"
    assert "staged: not taken, it has no graph" in plan.describe()
    with pytest.raises(
        PlanError,
        match=r"\(staged: it has no graph\): plan with strategy='fused' or 'l",
    ):
        make_plan(replace(asked, strategy="staged"))


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("time_budget", r"lazy: not taken, time_budget is .* and it takes "),
        ("max_files", r"lazy: not taken, max_files is \d+ and it makes \d+"),
    ],
)
def test_every_limit_is_told_of_those_that_do_not_keep_it(maps, limit, said):
    """In the line of the strategy."""
    least = {
        "time_budget": make_plan(maps).seconds,
        "max_files": solve(replace(maps, max_files=1)).needed,
    }

    roomy = replace(maps, memory=64 * 2**30, strategy="auto")
    plan = make_plan(replace(roomy, **{limit: least[limit]}))

    assert plan.strategy == "fused"
    assert re.search(said, plan.describe())


@settings(deadline=None, max_examples=40)
@given(
    memory=st.integers(500, 4000),
    cores=st.integers(1, 4),
    images=st.integers(1, 5000),
)
def test_auto_is_the_best_of_those_that_fit(maps, memory, cores, images):
    """It fits whenever one of them does; none that fits is noticeably faster."""
    asked = replace(
        maps, memory_limit=memory * MIB, cores=cores, n_images=images, strategy="auto"
    )
    found = {name: solve(replace(asked, strategy=name)) for name in ALL}
    fitting = {
        name: each.cost.seconds
        for name, each in found.items()
        if isinstance(each, Solution)
    }

    if not fitting:
        with pytest.raises(PlanError):
            choose(asked)
        return
    chosen = choose(asked)
    assert chosen.strategy in fitting
    assert min(fitting.values()) >= WORTH * fitting[chosen.strategy]
    assert "fused" not in fitting or chosen.solution.cost.seconds <= fitting["fused"]


def test_an_alternative_in_a_line():
    """What is not known of it is left out."""
    told = Alternative(strategy="lazy", chosen=False, why="", seconds=90.0, memory=MIB)

    assert str(told) == "lazy: 1.5 min, 1.0 MiB in a worker; not taken"
