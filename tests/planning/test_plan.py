"""Plans, and what is said where nothing fits."""

import json
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest

from embedkit.errors import EmbedkitError, InputError, PlanError
from embedkit.planning.codecs import USUAL
from embedkit.planning.correction import UNCORRECTED, Factors
from embedkit.planning.joined import corrected
from embedkit.planning.memory import MOST, TARGET
from embedkit.planning.plan import Plan, make_plan
from embedkit.planning.remedies import faster, remedies, solved
from embedkit.planning.solve import Shortfall, Solution, solve
from embedkit.planning.units import GIB, MIB

LIMITS = [
    {"memory_limit": 300 * MIB},
    {"memory": GIB, "n_workers": 4},
    {"memory_limit": 700 * MIB, "batch_size": 64},
    {"memory_limit": 600 * MIB, "threads": 2, "block": 4096},
    {"disk_budget": 100_000_000},
    {"disk_budget": 10_000_000},
    {"max_files": 40},
    {"time_budget": 60.0},
    {"time_budget": 60.0, "memory_limit": 300 * MIB, "disk_budget": 10**8},
]


@pytest.mark.parametrize("limits", LIMITS)
def test_what_cannot_fit_comes_with_changes_that_would(question, limits):
    """Each change that is named was solved, within every limit that it leaves."""
    asked = replace(question, **limits)
    short = solve(asked)
    assert isinstance(short, Shortfall)

    named = remedies(asked, short)

    assert 1 <= len(named) <= 3
    assert all(isinstance(solve(each.question), Solution) for each in named)
    assert all(each.question != asked for each in named)
    assert len({each.text for each in named}) == len(named)
    with pytest.raises(PlanError) as caught:
        solved(asked)
    assert all(f") {each.text}, " in str(caught.value) for each in named)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5, 7])
def test_there_are_three_changes(question, at):
    """For every limit but one that hardly any store keeps."""
    asked = replace(question, **LIMITS[at])

    assert len(remedies(asked, solve(asked))) == 3


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            {"memory_limit": 300 * MIB},
            r"4 layers of 50,000 images need 42\d.\d MiB in a worker even in the smallest "
            r"steps, and 240.0 MiB may be planned for \(0.8 of its memory\): what would fit "
            r"is \(1\) memory_limit='70\d MiB'",
        ),
        (
            {"disk_budget": 100_000_000},
            r"are 183.1 MiB, uncompressed, and disk_budget is 95.4 MiB: what would fit is "
            r"\(1\) disk_budget=192000000 \(183.1 MiB\), 11.\d min; \(2\) dtype='float16'",
        ),
        (
            {"max_files": 40},
            r"are \d+ files at least and max_files is 40: what would fit is \(1\) max_files=",
        ),
        (
            {"time_budget": 60.0},
            r"take 11.\d min at best and time_budget is 1.0 min: what would fit is \(1\) "
            r"time_budget=\d+ \(11.\d min\), 11.\d min; \(2\) 16 times the machines",
        ),
        (
            {"memory": GIB, "n_workers": 4},
            r"memory_limit='\d+ MiB' on machines with 2.\d GiB, .*"
            r"\(2\) n_workers=1 with memory_limit of 1.0 GiB",
        ),
        (
            {"memory_limit": 800 * MIB, "batch_size": 64},
            r"\(2\) batch_size=16, 12.4 min; \(3\) ",
        ),
    ],
)
def test_what_is_said(question, limits, said):
    """The limit, the numbers, and what would fit, in one line."""
    with pytest.raises(PlanError, match=said) as caught:
        make_plan(replace(question, **limits))

    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EmbedkitError)
    assert isinstance(caught.value, ValueError)


def test_a_remedy_may_need_a_second_limit_raised(question):
    """What mends the first limit is named together with what else is in the way."""
    asked = replace(question, disk_budget=60_000_000, max_files=40)

    named = remedies(asked, solve(asked))

    assert any(" and max_files=" in each.text for each in named)


def test_maps_can_be_pooled(question, measured, layers):
    """Where maps are what is too large, pooling them is named."""
    maps = tuple(replace(each, shape=(each.raw_entries,)) for each in layers)
    network = replace(measured.networks[0], layers=maps)
    asked = replace(
        question,
        measured=replace(measured, networks=(network,)),
        disk_budget=200_000_000,
    )

    named = [each.text for each in remedies(asked, solve(asked))]

    assert "pool='avg'" in named


def test_a_plan_says_everything(question):
    """Layers, memory, seconds, the bottleneck and what would help are in the text."""
    text = make_plan(replace(question, memory_limit=720 * MIB)).describe()

    for said in (
        "50,000 images, 4 layers: 183.1 MiB in 528 files, about 15.1 min\n",
        "2 workers with 1 thread each, batches of 1, blocks of 512 images, 6 in flight\n",
        "  layer3  97.7 MiB  98 shards of 512 × 512 in chunks of 512 × 512\n",
        "; it has 720.0 MiB\n  Python and libraries  ",
        "  all else                 6.7 MiB\n",
        "bottleneck: all cores are busy; bound by the memory of a worker\n",
        "would be faster with:\n",
        "memory_limit='1.5 GiB': 11.3 min",
        "2 times the machines (4 cores): 7.7 min",
        "ways to compute the layers:\n  fused: ",
        " in a worker; chosen, asked for\n  staged: ",
    ):
        assert said in text


def test_an_older_plan_is_read(question):
    """Before strategies were planned, every plan was of one pass."""
    found = json.loads(make_plan(question).to_json())
    for name in ("strategy", "scratch_bytes", "alternatives"):
        del found[name]

    plan = Plan.from_json(json.dumps(found))

    assert (plan.strategy, plan.scratch_bytes, plan.alternatives) == ("fused", 0, ())


def test_a_plan_s_numbers_agree(question):
    """Parts add up to what is projected, which is within the target."""
    plan = make_plan(question)

    assert plan.projected_mem == sum(part.nbytes for part in plan.parts)
    assert plan.projected_mem <= MOST * plan.needed_mem
    assert plan.projected_mem <= TARGET * plan.allowed_mem
    assert plan.roomy
    assert plan.needed_mem <= plan.allowed_mem
    assert plan.nbytes == {f"layer{at}": 50_000 * 256 * 2**at for at in range(4)}
    assert plan.binding == plan.waits_for == "cores"


def test_a_plan_travels_as_json_and_is_frozen(question):
    """It comes back equal; it pickles; nobody changes it."""
    plan = make_plan(question)

    assert Plan.from_json(plan.to_json()) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    with pytest.raises(FrozenInstanceError):
        plan.block = 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "layers": 3}'])
def test_other_text_is_no_plan(text):
    """Whatever is wrong with it, it is said that it is no plan."""
    with pytest.raises(InputError, match=r"give what Plan\.to_json wrote"):
        Plan.from_json(text)


def test_a_plan_of_an_older_version_is_read(question):
    """It was made of nothing that is remembered, and not corrected."""
    plan = make_plan(question)
    found = json.loads(plan.to_json())
    del found["keys"], found["factors"]
    for layer in found["layers"]:
        for name in ("dtype", "codec", "why", "expected", "float16"):
            del layer[name]

    older = Plan.from_json(json.dumps(found))

    layers = tuple(replace(each, dtype="") for each in plan.layers)
    assert older == replace(plan, layers=layers)
    assert (older.keys, older.factors) == ((), UNCORRECTED)
    assert {(each.codec, each.expected) for each in older.layers} == {(USUAL, None)}
    again = Plan.from_json(plan.to_json())  # JSON has its names in order
    assert older.describe() == again.describe()
    assert older._repr_html_() == again._repr_html_()


def test_a_plan_says_by_what_it_was_corrected(question, measured):
    """With the number of runs, in the text and in a notebook; nothing without one."""
    factors = Factors(memory=1.078, time=0.931, runs=3)
    known = corrected(replace(measured, keys=("a", "b")), factors)
    plan = make_plan(replace(question, measured=known))
    said = "corrected by 3 earlier runs: memory x1.08, time x0.93"

    assert (plan.keys, plan.factors) == (("a", "b"), factors)
    assert Plan.from_json(plan.to_json()) == plan
    assert said in plan.describe().splitlines()
    assert said in plan._repr_html_()
    assert "corrected" not in make_plan(question).describe()
    paced = corrected(measured, Factors(time=1.25))
    said = "corrected by blocks on all workers at once: time x1.25"
    assert said in make_plan(replace(question, measured=paced)).describe()


def test_a_plan_of_another_format_is_refused(question):
    """A newer embedkit may mean other things by the same names."""
    found = {**json.loads(make_plan(question).to_json()), "format": 2}

    with pytest.raises(InputError, match="has format 2 and this embedkit reads 1"):
        Plan.from_json(json.dumps(found))


@pytest.mark.parametrize(
    ("given", "binding"),
    [
        ({"n_workers": 1, "threads": 1, "cores": 4}, "n_workers"),
        ({"batch_size": 1}, "batch_size"),
        (
            {"n_images": 300_000, "max_files": 120, "cores": 8, "memory": 64 * GIB},
            "max_files",
        ),
        ({"block": 8192, "n_images": 9000}, "block"),
    ],
)
def test_what_binds(question, given, binding):
    """The limit is named without which the run would be fastest."""
    assert make_plan(replace(question, **given)).binding == binding


def test_a_choice_that_slows_a_run_is_named(question):
    """Leaving it open is among what would be faster, and each was solved."""
    asked = replace(question, batch_size=1)
    found = solve(asked)

    named = faster(asked, found)

    assert "batch_size=16 (now 1)" in [each.text for each in named]
    assert all(each.seconds < found.cost.seconds for each in named)
    assert [each.seconds for each in named] == sorted(each.seconds for each in named)
