"""Plans of analyses: they fit, or say what would."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError, PlanError
from embedkit.planning import analysis_models
from embedkit.planning.analyses import TASK_ENTRIES, plan_analysis, remedies
from embedkit.planning.analysis_costs import AnalysisModel, AnalysisSize
from embedkit.planning.analysis_plan import AnalysisPlan
from embedkit.planning.neighbors import Machine

MACHINE = Machine(memory_limit=2**34, slots=2, on_machine=4, workers=8, threads=1)
MODELS = [
    each for each in vars(analysis_models).values() if isinstance(each, AnalysisModel)
]
CHUNKED = AnalysisModel(asked="look", whole=False, fixed=1000, task_entry=8)
WHOLE = AnalysisModel(
    asked="fit", fixed=1000, image=2, task_entry=8, task_copies=1, task_square=4
)

sizes = st.builds(
    AnalysisSize,
    n_images=st.integers(1, 10**8),
    width=st.integers(1, 10**5),
    itemsize=st.sampled_from([2, 4, 8]),
    studies=st.integers(1, 60),
)
machines = st.builds(
    Machine,
    memory_limit=st.integers(1, 2**45),
    slots=st.integers(1, 64),
    on_machine=st.just(64),
    workers=st.integers(1, 1000),
    threads=st.integers(1, 8),
)
models = st.sampled_from([*MODELS, CHUNKED, WHOLE])


@given(model=models, size=sizes, machine=machines)
def test_a_plan_fits_and_takes_every_row_or_is_refused(model, size, machine):
    """Within the limit, all rows of all studies; a refusal names three ways at most."""
    try:
        made = plan_analysis(model, size, machine=machine)
    except PlanError as error:
        told = str(error)
        assert "\n" not in told
        assert "(1) memory_limit=" in told
        assert "; (4) " not in told
        return
    assert made.projected_mem <= machine.memory_limit
    assert 1 <= made.rows_per_task <= size.n_images
    tasks = -(-size.n_images // made.rows_per_task)
    assert made.n_tasks == tasks * size.studies
    assert 1 <= made.at_once <= min(machine.slots, made.n_tasks)
    assert made.whole == (made.rows_per_task == size.n_images) or not made.whole


@given(model=models, size=sizes, machine=machines)
def test_every_remedy_would_fit(model, size, machine):
    """Each change is planned without a complaint."""
    for each in remedies(model, size, machine=machine):
        made = plan_analysis(model, each.size, machine=each.machine)
        assert made.projected_mem <= each.machine.memory_limit


@given(model=models, size=sizes, machine=machines)
def test_more_memory_never_gives_smaller_or_fewer_tasks_at_once(model, size, machine):
    """A plan that fits still fits with twice as much, with rows and tasks as large."""
    try:
        less = plan_analysis(model, size, machine=machine)
    except PlanError:
        return
    roomy = replace(machine, memory_limit=2 * machine.memory_limit)
    more = plan_analysis(model, size, machine=roomy)
    assert more.rows_per_task >= less.rows_per_task
    assert more.rows_per_task > less.rows_per_task or more.at_once >= less.at_once


@given(model=st.sampled_from(MODELS), size=sizes, more=st.integers(1, 10))
def test_more_rows_or_entries_never_need_less(model, size, more):
    """In equal tasks the projected memory grows with either."""

    def needed(changed, rows):
        parts = model.parts(changed, rows=rows, at_once=2)
        return sum(part.nbytes for part in parts)

    longer = replace(size, n_images=size.n_images + more)
    wider = replace(size, width=size.width + more)
    rows = size.n_images if model.whole else min(256, size.n_images)
    assert needed(longer, rows + more * model.whole) > needed(size, rows)
    assert needed(wider, rows) > needed(size, rows)


def test_the_projected_memory_is_what_the_coefficients_say():
    """Worked out by hand for one of each kind."""
    size = AnalysisSize(n_images=100, width=10, itemsize=4, studies=3)
    made = plan_analysis(WHOLE, size, machine=MACHINE)
    task = 100 * (8 + 4) * 10 + 4 * 100
    assert made.projected_mem == 1000 + 2 * 100 + 2 * task
    assert (made.rows_per_task, made.n_tasks, made.at_once) == (100, 3, 2)


def test_rows_are_dealt_out_until_tasks_fit():
    """First as large as is useful, then by halves."""
    size = AnalysisSize(n_images=10**6, width=64)
    full = plan_analysis(CHUNKED, size, machine=MACHINE)
    assert full.rows_per_task == TASK_ENTRIES // 64
    limit = full.projected_mem - 1
    less = plan_analysis(CHUNKED, size, machine=replace(MACHINE, memory_limit=limit))
    assert less.rows_per_task == full.rows_per_task // 2
    given_rows = plan_analysis(CHUNKED, size, machine=MACHINE, rows=1000)
    assert (given_rows.rows_per_task, given_rows.n_tasks) == (1000, 1000)


def test_studies_take_turns_before_an_analysis_is_refused():
    """One at a time where two do not fit."""
    size = AnalysisSize(n_images=1000, width=100, studies=5)
    two = plan_analysis(WHOLE, size, machine=MACHINE)
    tight = replace(MACHINE, memory_limit=two.projected_mem - 1)
    one = plan_analysis(WHOLE, size, machine=tight)
    assert (two.at_once, one.at_once) == (2, 1)
    tighter = replace(MACHINE, memory_limit=one.projected_mem - 1)
    with pytest.raises(PlanError, match=r"fit of 1,000 images with 100 features takes"):
        plan_analysis(WHOLE, size, machine=tighter)


def test_a_refusal_names_numbers_and_three_ways():
    """More memory, fewer features, fewer images."""
    size = AnalysisSize(n_images=10**6, width=2048)
    with pytest.raises(
        PlanError,
        match=r"^cluster of 1,000,000 images with 2,048 features takes .* GiB in a "
        r"process, with 1 task of 1,000,000 rows at once, and memory_limit is 4\.0 GiB: "
        r"what would fit is \(1\) memory_limit='.* GiB'; \(2\) \d+ features or "
        r"fewer, such as pool='random_projection\(\d+\)'; \(3\) a sample of .* images",
    ):
        plan_analysis(
            analysis_models.CLUSTER, size, machine=replace(MACHINE, memory_limit=2**32)
        )


def test_seconds_are_told_where_the_rate_is_known():
    """Tasks in turns over all workers, and nothing where it is not."""
    size = AnalysisSize(n_images=1000, width=10)
    made = plan_analysis(CHUNKED, size, machine=MACHINE, rows=100, rate=500)
    assert made.seconds == 2 * 100 * 10 / 500
    assert "time: 4 s" in made.describe()
    assert plan_analysis(CHUNKED, size, machine=MACHINE).seconds is None


@pytest.mark.parametrize("name", ["n_images", "width", "itemsize", "studies"])
def test_sizes_below_one_are_refused(name):
    """Each by its name."""
    with pytest.raises(InputError, match=f"{name} is 0: give 1 or more"):
        AnalysisSize(**{"n_images": 1, "width": 1, name: 0})


def _plan(**more):
    model = replace(WHOLE, result_image=16, scratch_copies=1, **more)
    return plan_analysis(
        model, AnalysisSize(n_images=1000, width=64, studies=2), machine=MACHINE
    )


def test_a_plan_comes_back_from_json():
    """Equal, with its sum for others to read."""
    made = _plan()
    assert AnalysisPlan.from_json(made.to_json()) == made
    assert json.loads(made.to_json())["projected_mem"] == made.projected_mem


def test_other_json_is_no_plan():
    """Neither other text nor another format."""
    with pytest.raises(InputError, match="this is no plan of an analysis"):
        AnalysisPlan.from_json("{}")
    newer = _plan().to_json().replace('"format": 1', '"format": 2')
    with pytest.raises(InputError, match="has format 2 and this embedkit reads 1"):
        AnalysisPlan.from_json(newer)


def test_a_plan_says_what_it_takes():
    """Tasks, memory with its parts, result, files."""
    assert _plan().describe() == (
        "fit of 2 times 1,000 images with 64 features\n"
        "  tasks: 2 of all rows, 2 at once in a process with 1 thread each\n"
        "  memory: 1.5 MiB projected, 16.0 GiB allowed (libraries and blocks 1000 B, "
        "all rows 2.0 KiB, tasks at once 1.5 MiB)\n"
        "  result: 15.6 KiB\n"
        "  scratch files: 250.0 KiB"
    )
    assert "tasks: 4 of 256 rows" in _told(CHUNKED, n_images=1000, rows=256)


def _told(model, *, n_images, rows):
    size = AnalysisSize(n_images=n_images, width=64)
    return plan_analysis(model, size, machine=MACHINE, rows=rows).describe()


def test_a_notebook_shows_a_table_without_scripts():
    """One element, with names escaped."""
    shown = _plan(asked="<fit>")._repr_html_()
    assert shown.startswith("<div class='embedkit-analysis'>")
    assert shown.endswith("</div>")
    assert "&lt;fit&gt; of 2 times" in shown
    assert "<script" not in shown
    assert "<th class='ek-dim'>memory</th>" in shown
