"""The main job, end to end, from the command line, on real data."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import embedkit as ek

pytestmark = pytest.mark.slow


def _embedkit(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "embedkit", *(str(each) for each in arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONWARNINGS": "error::UserWarning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo ran once, and what it said."""
    folder = tmp_path_factory.mktemp("journey")
    return folder, _embedkit("demo", cwd=folder)


def test_the_demo_tells_all_and_the_second_time_is_quick(demo):
    """Everything promised is printed; the second run finds its store finished."""
    folder, first = demo
    second = _embedkit("demo", cwd=folder)

    for told in (
        *("images/s with 2 workers", "31 layers of 450 images", "accuracy", "← best"),
        *("nearest neighbors name the digit", "HDBSCAN clusters", "Leiden communities"),
        *("demo.zarr", "map.png", "dashboard: http://127.0.0.1"),
    ):
        assert told in first.stdout
    assert "extracting: 450 of 450 images" in first.stderr
    assert "is finished: nothing to extract" in second.stderr
    assert "finished before" in second.stdout
    numbers = [x for x in first.stdout.splitlines() if "Rand index" in x]
    assert numbers == [x for x in second.stdout.splitlines() if "Rand index" in x]
    with Image.open(folder / "demo" / "map.png") as picture:
        assert picture.size == (1440, 1120)


def test_an_interrupted_demo_goes_on(demo):
    """Blocks that are there already are kept; the demo finishes the others."""
    folder, ended = demo
    path = folder / "demo" / "demo.zarr"
    bytes_before = ek.open_store(path)["fc"].values
    (records,) = (path / "_embedkit" / "commits").glob("*.jsonl")
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:3] + lines[4:7] + lines[8:]))

    again = _embedkit("demo", "--json", cwd=folder)

    assert "31 layers" in ended.stdout
    assert json.loads(again.stdout)["store"]["complete"]
    assert "images/s" in json.loads(again.stdout)["extraction"]
    np.testing.assert_array_equal(ek.open_store(path)["fc"].values, bytes_before)


def test_real_photographs_from_folder_to_map(tmp_path, shared_data):
    """972 photographs through SqueezeNet: extract, probe, cluster and project."""
    photos = shared_data / "clothing_cc0"
    weights = shared_data / "weights" / "squeezenet1_0_imagenet_deepcompression.pt"
    labels = photos / "labels.csv"

    _embedkit(
        *("extract", photos, "-n", "squeezenet1_0", "--weights", weights),
        *("-l", "stages", "-o", "photos.zarr"),
        cwd=tmp_path,
    )
    probe = _embedkit(
        *("probe", "photos.zarr", "--target", "label", "--table", labels),
        *("--split", "split", "--json"),
        cwd=tmp_path,
    )
    layer = ("-l", "features.12.cat")
    clusters = _embedkit("cluster", "photos.zarr", *layer, "--json", cwd=tmp_path)
    _embedkit("project", "photos.zarr", *layer, "-o", "map.png", cwd=tmp_path)

    scores = {x["layer"]: x for x in json.loads(probe.stdout)["layers"]}
    deep, early = scores["features.12.cat"], scores["features.1"]
    assert deep["n_test"] == 372
    assert deep["n_train"] == 600
    assert deep["accuracy"] > 0.6  # ten classes; a coin of ten sides gives 0.1
    assert deep["accuracy"] > early["accuracy"] + 0.1
    assert json.loads(clusters.stdout)["layer"] == "features.12.cat"
    assert (tmp_path / "map.png").stat().st_size > 10_000
    store = ek.open_store(tmp_path / "photos.zarr")
    assert store.images["split"].value_counts().to_dict() == {"train": 600, "test": 372}
    assert not np.isnan(store["flatten"].values).any()
