"""``embedkit plan``, ``extract --dry-run`` and limits of a run."""

import dask
import pytest
from dask.system import CPU_COUNT

import embedkit as ek
from embedkit import workers
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans import followed, planned
from embedkit.planning.plan import Plan
from embedkit.store.plans import read_plan

DIGITS = ("-n", "embedkit/digits")


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Rough numbers in place of measured ones, which take seconds."""

    def measure(looks, *, n_images=None, where=None, refresh=False):
        return rough(looks)

    for each in (planned, followed):
        monkeypatch.setattr(each, "measure", measure)
    with dask.config.set(scheduler="synchronous"):
        yield


def test_a_plan_is_told_in_few_lines(run, digits, tmp_path):
    """Images on stderr, the plan on stdout; nothing is written."""
    ran = run("plan", digits, *DIGITS, "-l", "all", "--workers", 2)

    lines = ran.out.splitlines()
    assert ran.err.startswith("100 images")
    assert lines[0].startswith("100 images, 31 layers: ")
    assert lines[1].startswith("2 workers with 1 thread each, ")
    assert len(lines) < 30
    assert "memory of a worker: " in ran.out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_as_json_is_a_plan(run, digits):
    """It is what `Plan.to_json` writes; the default is a worker a core."""
    found = Plan.from_json(run("plan", digits, *DIGITS, "--json").out)

    assert (found.n_workers, found.threads) == (CPU_COUNT, 1)
    assert found.n_images == 100


def test_options_reach_the_plan(run, digits):
    """Choices and limits are the arguments of `embedkit.plan`."""
    options = (
        *("--workers", 3, "--threads", 2, "--block", 16, "--batch-size", 8),
        *(
            "--memory-limit",
            "3 GiB",
            "--dtype",
            "float16",
            "--pool",
            "max",
            "-l",
            "last",
        ),
    )

    found = Plan.from_json(run("plan", digits, *DIGITS, *options, "--json").out)

    assert (found.n_workers, found.threads) == (3, 2)
    assert (found.block, found.batch_size) == (16, 8)
    assert found.allowed_mem == 3 * 2**30
    assert sum(found.nbytes.values()) == 100 * 10 * 2


def test_a_dry_run_is_the_plan_of_that_run(run, digits, tmp_path, monkeypatch):
    """The same words; no store, no worker."""
    monkeypatch.setattr(workers, "_available", lambda: 8 * 2**30)
    call = (digits, *DIGITS, "--workers", 0, "-o", tmp_path / "s.zarr")

    dry = run("extract", *call, "--dry-run")

    assert dry.out == run("plan", *call).out
    assert dry.out.startswith("100 images, ")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--memory-limit", "100 MiB", r"need \d"),
        ("--time-budget", "1 ms", r"time_budget is 0\.001 s"),
        ("--disk-budget", "1 kB", r"disk_budget is 1000 B"),
        ("--max-files", "5", r"max_files is 5"),
    ],
)
def test_what_cannot_fit_ends_with_remedies(run, digits, tmp_path, option, value, said):
    """One line for both commands, exit code 1, nothing written."""
    call = (digits, *DIGITS, "--workers", 0, "-o", tmp_path / "s.zarr", option, value)

    refused = [run("plan", *call, expect=1), run("extract", *call, expect=1)]

    for each in refused:
        (line,) = (x for x in each.err.splitlines() if x.startswith("Error: "))
        assert said.replace(r"\.", ".").replace(r"\d", "") in line
        assert "what would fit is (1) " in line
    assert list(tmp_path.iterdir()) == []


def test_a_run_within_limits_says_and_keeps_its_plan(run, digits, tmp_path):
    """Two lines before it begins; done again, there is nothing to plan."""
    path = tmp_path / "s.zarr"
    call = ("extract", digits, *DIGITS, "--workers", 0, "-o", path)

    first = run(*call, "--max-files", 400)
    again = run(*call, "--max-files", 400)

    assert "\n1 worker with 1 thread, " in first.err
    assert "in flight" not in again.err
    store = ek.open_store(path)
    plan = Plan.from_json(read_plan(store.files, store.schema.passes[0].key))
    files = sum(each.is_file() for each in path.rglob("[!.]*"))
    assert plan.files == files <= 400


def test_a_finished_store_has_no_plan(run, digits, store):
    """Said in one line."""
    ran = run("plan", digits, *DIGITS, "-o", store, expect=1)

    assert "has all of these layers for all images" in ran.err


@pytest.mark.parametrize("strategy", ["staged", "lazy"])
def test_a_strategy_is_planned_and_told(run, digits, tmp_path, strategy):
    """By ``plan`` and ``--dry-run`` alike; the run that has limits follows it."""
    path = tmp_path / "s.zarr"
    call = (digits, *DIGITS, "--workers", 0, "-o", path, "--strategy", strategy)

    dry = run("extract", *call, "--dry-run")
    plan = run("plan", *call)
    run("extract", *call, "--max-files", 10_000)

    lines = [line.strip() for line in plan.out.splitlines()]
    assert (
        len([line for line in dry.out.splitlines() if "; chosen, asked" in line]) == 1
    )
    assert any(
        line.startswith(f"{strategy}: ") and line.endswith("; chosen, asked for")
        for line in lines
    )
    store = ek.open_store(path)
    kept = Plan.from_json(read_plan(store.files, store.schema.passes[0].key))
    assert kept.strategy == strategy
    assert len(store.schema.passes) == len(store) > 1
