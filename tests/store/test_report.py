"""Plans beside what became of them."""

import json

import pandas as pd
import pytest

from embedkit.store.commits import Halving, write_commit
from embedkit.store.plans import write_plan
from embedkit.store.report import Followed, followed, report
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store

STAGES = {"decode": 9.0, "transform": 3.0, "wait": 0.5, "forward": 6.0, "write": 3.5}


def _plan(**changes):
    """Return the parts of a plan that are read, and one that is not."""
    plan = {
        "n_images": 70,
        "parts": [{"name": "a", "nbytes": 900}, {"name": "b", "nbytes": 1100}],
        "stages": STAGES,
        "waits_for": "write",
        "seconds": 1e6,
    }
    return json.dumps(plan | changes)


def _commits(store):
    return {one.key: store.commits(one) for one in store.schema.passes}


def test_a_plan_stands_beside_what_was_measured(files, fill, one):
    """Peak against the sum of the parts, seconds of tasks against those of its stages."""
    fill()
    write_plan(files, one.key, _plan())

    (row,) = report(open_store(files.url)).to_dict("records")

    assert row["networks"] == ["tiny"]
    assert row["images"] == 70
    assert (row["projected_mem"], row["peak_mem"]) == (2000, 1002)
    assert row["memory_ratio"] == pytest.approx(1002 / 2000)
    assert (row["projected_seconds"], row["seconds"]) == (10.0, 3.0)
    assert row["time_ratio"] == pytest.approx(0.3)
    assert row["projected_stages"] == STAGES
    assert (row["waits_for"], row["bottleneck"]) == ("write", "forward")


def test_of_a_run_on_its_way_as_many_seconds_count_as_images(files, fill, one):
    """Thirty-eight of seventy images are written."""
    fill([0, 2])
    write_plan(files, one.key, _plan())

    (row,) = report(open_store(files.url)).to_dict("records")

    assert row["images"] == 38
    assert row["projected_seconds"] == pytest.approx(10 * 38 / 70)
    assert row["seconds"] == 2.0


@pytest.mark.parametrize("blocks", [[], [0]], ids=["no block", "no plan"])
def test_without_plan_or_blocks_there_is_nothing_to_tell(blocks, files, fill, one):
    """The table is empty and has its columns."""
    fill(blocks)
    if not blocks:
        write_plan(files, one.key, _plan())

    found = report(open_store(files.url))

    assert len(found) == 0
    assert {"memory_ratio", "projected_mem"} <= set(found.columns)
    assert open_store(files.url).info()["planned"] == []


def test_networks_of_one_plan_are_one_run(tmp_path, create, one, other, write_blocks):
    """Images are read for both at once, so their seconds are one sum."""
    schema = StoreSchema(n_images=70, passes=(one, other))
    files = create(tmp_path / "two.zarr", schema)
    for each in schema.passes:
        write_blocks(files, schema, each)
        write_plan(files, each.key, _plan())

    (both,) = followed(files, schema, _commits(open_store(files.url)))
    write_plan(files, other.key, _plan(waits_for="decode"))
    apart = followed(files, schema, _commits(open_store(files.url)))

    assert both.networks == ("tiny", "resnet18")
    assert both.images == 70
    assert both.seconds == 3.0 + 5.0
    assert [each.waits_for for each in apart] == ["write", "decode"]
    assert [each.seconds for each in apart] == [3.0, 5.0]


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        _plan(stages=[1]),
        _plan(parts=[{}]),
        _plan(n_images=0),
        _plan(n_images=None),
    ],
)
def test_a_plan_of_another_form_is_passed_over(text, files, fill, one):
    """A store is read by embedkits older and newer than the one that planned it."""
    fill()
    write_plan(files, one.key, text)

    assert open_store(files.url).info()["planned"] == []


@pytest.mark.parametrize(
    ("changes", "ratios"),
    [
        ({}, (0.5, 2.0)),
        ({"peak_mem": -1}, (None, 2.0)),
        ({"projected_mem": 0}, (None, 2.0)),
        ({"seconds": 0.0}, (0.5, None)),
        ({"projected_seconds": 0.0}, (0.5, None)),
    ],
)
def test_a_ratio_needs_both_numbers(changes, ratios):
    """What is not known is None, and never a division by nothing."""
    known = {
        "networks": ("n",),
        "images": 1,
        "projected_mem": 200,
        "peak_mem": 100,
        "projected_seconds": 1.0,
        "seconds": 2.0,
        "projected_stages": {},
        "stages": {},
        "waits_for": "forward",
        "bottleneck": "forward",
    }

    found = Followed(**(known | changes))

    assert (found.memory_ratio, found.time_ratio) == ratios


def test_smaller_batches_are_told_by_network_and_size(files, schema, one, record):
    """How many blocks, and where it began and why."""
    grid = schema.grid(one)
    first = Halving(row=16, batch_size=8, why="900 B of 1000 B in use")
    second = (
        Halving(row=32, batch_size=8, why="x"),
        Halving(row=40, batch_size=4, why="y"),
    )
    for block, halvings in enumerate([(first,), second, ()]):
        write_commit(files, one, grid, record(one, block, halvings=halvings))

    found = pd.DataFrame(open_store(files.url).info()["halved"])

    assert found.to_dict("records") == [
        {
            "network": "tiny",
            "batch_size": 8,
            "instead_of": 16,
            "blocks": 2,
            "block": 0,
            "row": 16,
            "why": "900 B of 1000 B in use",
        },
        {
            "network": "tiny",
            "batch_size": 4,
            "instead_of": 16,
            "blocks": 1,
            "block": 1,
            "row": 40,
            "why": "y",
        },
    ]
