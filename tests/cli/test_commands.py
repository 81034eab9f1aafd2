"""Every command, on a real store, in both kinds of output."""

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from PIL import Image

import embedkit as ek
from embedkit.cli.main import COMMANDS, cli
from embedkit.cli.output import emit
from embedkit.errors import StoreError
from embedkit.planning.units import told_bytes
from embedkit.store.commits import Halving, compact
from embedkit.store.plans import write_plan


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_and_shows_an_example(run, command):
    """Each command has a sentence, an example, --json and --debug."""
    shown = run(command, "--help").out

    assert "Example: embedkit " + command in shown
    assert "--json" in shown
    assert "--debug" in shown


def test_the_overview_lists_the_commands_without_loading_them():
    """The overview is instant: no command's file is imported for it."""
    code = (
        "import sys; from click.testing import CliRunner; "
        "from embedkit.cli.main import cli; "
        "out = CliRunner().invoke(cli, ['--help']).stdout; "
        "print([m for m in sys.modules if m in ('numpy', 'dask', 'torch', 'xarray')]); "
        "print(out)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[0] == "[]"
    assert all(command in done.stdout for command in COMMANDS)


def test_fast_decoding_says_how_far_off_it_is(run, tmp_path):
    """After the extraction, and whenever the store is looked at; other rules differ."""
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((240, 180)).save(tmp_path / f"{i}.jpg")
    arguments = (tmp_path, "-n", "embedkit/digits", "--workers", 0)
    fast = (*arguments, "-o", tmp_path / "f.zarr", "--decode", "fast")

    told = run("extract", *fast).out
    exact = run("extract", *arguments, "-o", tmp_path / "e.zarr").out
    shown = run("info", tmp_path / "f.zarr").out
    found = run("info", tmp_path / "f.zarr", "--json").json

    line = "decoded by pil-rgb-1-draft-16, against all pixels on 3 images: input of the"
    assert f"embedkit/digits: {line}" in told
    assert line in shown
    assert "decoded by" not in exact
    assert found["decode"] == "pil-rgb-1-draft-16"
    assert "fc=" in found["networks"]["embedkit/digits"]["deviations"]
    mismatch = run("extract", *arguments, "-o", tmp_path / "f.zarr", expect=1)
    assert "made with other decode" in mismatch.err


def test_dask_finds_the_command_too():
    """``dask embedkit`` is the same group, by the entry point of the package."""
    from importlib.metadata import entry_points

    (found,) = entry_points(group="dask_cli", name="embedkit")

    assert found.load() is cli


def test_layers_are_listed_with_sizes(run):
    """Names, shapes and totals, before any image is read."""
    text = run("layers", "embedkit/digits").out
    document = run("layers", "embedkit/digits", "--pick", "stage3", "--json").json

    assert "stage1.add" in text
    assert "16×16×16" in text
    assert "31 layers" in text
    assert [each["layer"] for each in document["layers"]] == ["stage3.relu_1"]
    assert document["layers"][0]["shape"] == [64, 4, 4]


def test_random_weights_can_be_listed(run):
    """Without weights a torchvision network needs no download."""
    text = run("layers", "squeezenet1_1", "--weights", "none", "--pick", "last").out

    assert "squeezenet1_1" in text
    assert "1 layers" in text or "1000" in text


def test_extracting_reports_and_names_the_bad_image(run, digits, tmp_path):
    """Progress is on stderr, the report on stdout, with the unreadable image."""
    path = tmp_path / "d.zarr"
    arguments = ("extract", digits, "-n", "embedkit/digits", "-o", path, "--workers", 0)

    ran = run(*arguments)
    again = run(*arguments, "--json")

    assert "100 images, 4 layers" in ran.out
    assert "1 image could not be read" in ran.out
    assert "extracting: 100 of 100 images" in ran.err
    assert again.json["complete"]
    assert again.json["unreadable"] == 1


def test_several_layers_can_be_named(run, digits, tmp_path):
    """The option repeats; pooling is passed on."""
    run(
        *("extract", digits, "-n", "embedkit/digits", "-o", tmp_path / "d.zarr"),
        *("-l", "stage1", "-l", "fc", "--pool", "max", "--batch-size", 8),
        *("--workers", 0),
    )

    store = ek.open_store(tmp_path / "d.zarr")
    assert list(store) == ["stage1.relu_1", "fc"]
    assert store["fc"].attrs["pool"] == "max"
    assert store.schema.passes[0].batch_size == 8


def test_a_table_of_paths_keeps_its_columns(run, digits, tmp_path):
    """Columns of a CSV become coordinates of every layer."""
    files = sorted(digits.rglob("*.png"))[:40]
    table = pd.DataFrame(
        {
            "where": [str(each) for each in files],
            "code": [f"digit-{i}" for i in range(40)],
            "weight": range(40),
        }
    )
    table.to_csv(tmp_path / "digits.csv", index=False)

    run(
        *("extract", tmp_path / "digits.csv", "-n", "embedkit/digits", "-l", "last"),
        *("-o", tmp_path / "d.zarr", "--path-column", "where", "--id-column", "code"),
        *("--workers", 0),
    )

    x = ek.open_store(tmp_path / "d.zarr")["fc"]
    assert x["image"].values[3] == "digit-3"
    assert x["weight"].values.tolist() == list(range(40))


def test_extract_reads_one_of_several_arrays(run, tmp_path):
    """--array names it, and the store's images are its rows."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    group = zarr.open_group(tmp_path / "photos.zarr")
    for name, each in (("one", pixels), ("two", 255 - pixels)):
        group.create_array(name, data=each)

    run(
        *("extract", tmp_path / "photos.zarr", "--array", "two", "-n"),
        *("embedkit/digits", "-l", "last", "-o", tmp_path / "d.zarr"),
        *("--workers", 0),
    )

    uris = ek.open_store(tmp_path / "d.zarr").images["uri"].tolist()
    assert uris[5] == f"zarr:{tmp_path}/photos.zarr#two/5"


def test_info_tells_what_there_is(run, store):
    """Layers, blocks, origin and results."""
    run("cluster", store)

    text = run("info", store).out
    document = run("info", store, "--json").json

    assert "complete, 4 of 4 blocks, 100 images, 1 unreadable" in text
    assert "network embedkit/digits" in text
    assert "cluster/fc" in text
    assert document["layers"]["fc"]["shape"] == [10]
    assert document["results"] == ["cluster/fc"]


def test_info_tells_what_was_planned_and_where_batches_were_smaller(run, store):
    """Projected beside measured, and why memory was short."""
    opened = ek.open_store(store)
    (one,) = opened.schema.passes
    commits = opened.commits(one)
    peak = max(each.peak_mem for each in commits.values())
    total = opened.info()["seconds"]["total"]
    plan = {
        "n_images": 100,
        "parts": [{"name": "all", "nbytes": 2 * peak}],
        "stages": {"forward": total / 2},
        "waits_for": "write",
    }
    write_plan(opened.files, one.key, json.dumps(plan))
    halved = Halving(row=40, batch_size=8, why="900 MiB of 1.0 GiB in use")
    commits[1] = replace(commits[1], halvings=(halved,))
    compact(opened.files, one, commits)

    text = run("info", store).out
    document = run("info", store, "--json").json

    assert "planned for embedkit/digits, 100 images written:" in text
    assert (
        f"{told_bytes(2 * peak)} projected, {told_bytes(peak)} measured (50%)" in text
    )
    assert f"{total:.1f} s measured (200%)" in text
    assert "waits for: write projected" in text
    assert (
        "smaller batches: 8 instead of 32 for embedkit/digits in 1 block, first in "
        "block 1 from row 40 on (900 MiB of 1.0 GiB in use)"
    ) in text
    assert document["planned"][0]["memory_ratio"] == pytest.approx(0.5)
    assert document["halved"][0]["why"] == halved.why


def test_info_says_when_the_peak_is_not_known(run, store):
    """Some systems do not tell it."""
    opened = ek.open_store(store)
    (one,) = opened.schema.passes
    commits = {
        block: replace(each, peak_mem=-1, seconds={})
        for block, each in opened.commits(one).items()
    }
    compact(opened.files, one, commits)
    plan = {"n_images": 100, "parts": [], "stages": {}, "waits_for": "write"}
    write_plan(opened.files, one.key, json.dumps(plan))

    text = run("info", store).out

    assert "memory of a worker: 0 B projected, not measured" in text
    assert "time in tasks: 0.0 s projected, not measured" in text
    assert "waits for: write projected, nothing measured" in text


def test_neighbors_are_saved_and_shown(run, store):
    """The saved result has the asked neighbors; a query lists them by id."""
    query = ek.open_store(store).images.index[5]

    text = run("neighbors", store, "-k", 5, "--query", query).out
    document = run("neighbors", store, "-k", 5, "--query", query, "--json").json

    saved = ek.open_store(store).load("neighbors/fc")
    assert saved["indices"].shape == (100, 5)
    assert f"neighbors of {query}" in text
    assert document["label_accuracy"] > 0.9
    assert [each["image"] for each in document["hits"]] == [
        saved["image"].values[i] for i in saved["indices"].values[5]
    ]


def test_a_saved_result_is_used_again_and_replaced_when_asked_otherwise(run, store):
    """Same parameters: not computed again. Other parameters: the new result is kept."""
    run("neighbors", store, "-k", 5)
    file = store / "results" / "neighbors" / "fc" / "zarr.json"
    first = file.stat().st_mtime_ns

    run("neighbors", store, "-k", 5)
    second = file.stat().st_mtime_ns
    run("neighbors", store, "-k", 6)

    assert first == second
    assert file.stat().st_mtime_ns > second
    assert ek.open_store(store).load("neighbors/fc").sizes["neighbor"] == 6


@pytest.mark.slow
def test_communities_tell_sizes_and_agreement(run, store):
    """Leiden's groups, their modularity, and the adjusted Rand index."""
    text = run("communities", store, "-l", "stage3").out
    document = run("communities", store, "-l", "stage3", "--json").json

    assert "communities in stage3.relu_1" in text
    assert "modularity" in text
    assert document["adjusted_rand"] > 0.5
    assert document["communities"] >= 5
    assert sum(document["sizes"].values()) + document["noise"] == 100


def test_clusters_tell_noise_and_agreement(run, store):
    """HDBSCAN's clusters, the noise, and the adjusted Rand index both ways."""
    text = run("cluster", store, "--min-cluster-size", 4).out
    document = run("cluster", store, "--min-cluster-size", 4, "--json").json

    assert "clusters in fc" in text
    assert "commonest label" in text
    assert document["adjusted_rand_without_noise"] >= document["adjusted_rand"]
    assert sum(document["sizes"].values()) + document["noise"] == 100


@pytest.mark.slow
@pytest.mark.parametrize("color", [None, "label", "cluster", "status"])
def test_a_map_is_saved_and_drawn(run, store, tmp_path, color):
    """Coordinates in the store and a picture where it was asked for."""
    picture = tmp_path / "map.png"
    run("cluster", store)
    options = () if color is None else ("--color", color)

    text = run("project", store, "-o", picture, "--thumbnails", *options).out

    assert str(picture) in text
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000
    xy = ek.open_store(store).load("map/fc")["map"]
    assert xy.dims == ("image", "axis")
    assert int(np.isnan(xy.values).all(axis=1).sum()) == 1


@pytest.mark.slow
def test_a_map_of_images_in_shards_and_of_none(run, digits, tmp_path):
    """Pictures come from where the store says; those of an array are gone."""
    with tarfile.open(tmp_path / "d-0.tar", "w") as tar:
        for file in sorted(digits.rglob("*.png"))[:40]:
            tar.add(file, f"{file.parent.name}-{file.name}")
    shards, array = tmp_path / "shards.zarr", tmp_path / "array.zarr"
    options = ("-n", "embedkit/digits", "-l", "last", "--workers", 0)
    run("extract", f"{tmp_path}/d-{{0..0}}.tar", *options, "-o", shards)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    with dask.config.set(scheduler="synchronous"):
        ek.extract(pixels, "embedkit/digits", array, layers="last")

    run("project", shards, "-o", tmp_path / "map.png", "--thumbnails")
    refused = run("project", array, "-o", tmp_path / "a.png", "--thumbnails", expect=1)

    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.size[0] > 1000
    assert "from an array or a dataset, whose pixels it does not hold" in refused.err


def test_probe_scores_every_layer_and_marks_the_best(run, store):
    """Accuracy with an interval, by layer; saved beside the data."""
    text = run("probe", store, "--folds", 3).out
    document = run("probe", store, "--folds", 3, "--json").json

    assert "← best" in text
    assert [each["layer"] for each in document["layers"]] == list(ek.open_store(store))
    for each in document["layers"]:
        assert each["interval"][0] <= each["accuracy"] <= each["interval"][1]
    saved = xr.open_zarr(store, group="results/probe/label")
    assert saved.attrs["best_layer"] == document["best_layer"]


def test_probe_takes_labels_and_a_split_from_a_table(run, store, tmp_path):
    """Rows are joined by id, whatever their order; one fold trains on train."""
    ids = ek.open_store(store).images.index
    table = pd.DataFrame(
        {
            "path": ids,
            "even": ["yes" if int(each[0]) % 2 == 0 else "no" for each in ids],
            "part": ["test" if i % 4 == 0 else "train" for i in range(len(ids))],
        }
    ).sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "labels.csv", index=False)

    document = run(
        *("probe", store, "--target", "even", "--table", tmp_path / "labels.csv"),
        *("--split", "part", "--layers", "stage*", "--json"),
    ).json

    assert document["result"] == "probe/even"
    assert len(document["layers"]) == 3
    assert document["layers"][-1]["accuracy"] > 0.8


def test_version_is_that_of_the_package(run):
    """``--version`` prints it."""
    assert ek.__version__ in run("--version").out


def test_json_is_the_only_thing_on_stdout(finished):
    """In a process of its own, stdout parses as it is; people read stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "embedkit", "info", str(finished), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout)["images"] == 100


def test_json_has_null_where_there_is_no_number(capsys):
    """NaN is no JSON: strict readers refuse it."""
    emit({"a": float("nan"), "b": [1.5, float("inf")], "c": (1, None)})

    assert json.loads(capsys.readouterr().out) == {
        "a": None,
        "b": [1.5, None],
        "c": [1, None],
    }


def test_a_result_that_cannot_be_saved_is_still_shown(run, store, monkeypatch):
    """A read-only store can be analysed; it says that nothing was kept."""

    def read_only(self, name, result):
        raise StoreError("cannot save: read-only")

    monkeypatch.setattr(ek.Store, "save", read_only)

    ran = run("cluster", store)

    assert "clusters in fc" in ran.out
    assert "Not saved: cannot save: read-only" in ran.err


@pytest.mark.slow
def test_a_terminal_without_the_characters_still_gets_the_table(store):
    """Where a dash cannot be printed, a question mark is."""
    done = subprocess.run(
        [sys.executable, "-m", "embedkit", "probe", str(store), "-l", "fc"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


def test_pools_by_layer(run, digits, tmp_path):
    """One for the rest, and others for layers by name; two for one are refused."""
    out = tmp_path / "d.zarr"
    call = ("extract", digits, "-n", "embedkit/digits", "-o", out, "--workers", 0)
    pools = ("--pool", "max", "--pool", "stage1=random_projection(4, seed=2)")

    found = run(*call, *pools, "--json").json["layers"]

    assert found["stage1.relu_1"]["shape"] == [4]
    assert ek.open_store(out).layers.loc["stage2.relu_1", "pool"] == "max"
    twice = run(*call, "--pool", "avg", "--pool", "max", expect=2)
    assert "given twice for '*': 'avg' and 'max'" in twice.err


@pytest.mark.slow
def test_a_strategy_is_told_while_it_matters(run, digits, tmp_path):
    """In one line, after the extraction and by ``info``; nothing where it is fused."""
    arguments = ("extract", digits, "-n", "embedkit/digits", "--workers", 0)
    wanted = ("-l", "stage1", "-l", "fc", "-o")

    for strategy, said in {
        "staged": "layers computed staged, each from the raw map before it: asked for",
        "lazy": "layers computed lazy, each from the images: asked for",
    }.items():
        path = tmp_path / f"{strategy}.zarr"
        told = run(*arguments, *wanted, path, "--strategy", strategy).out
        assert f"embedkit/digits: {said}\n" in told
        assert f"  {said}\n" in run("info", path).out

    path = tmp_path / "auto.zarr"
    assert "computed" not in run(*arguments, *wanted, path).out
    assert "computed" not in run("info", path).out
    assert (
        "'stagged' is not one of"
        in run(*arguments, *wanted, path, "--strategy", "stagged", expect=2).err
    )
