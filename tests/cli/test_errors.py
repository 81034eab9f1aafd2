"""Bad input: one clear line, the right exit code, nothing left behind."""

import shutil
import subprocess
import sys

import dask
import pytest

import embedkit as ek
from embedkit.cli.main import UNEXPECTED
from embedkit.extraction import dispatch


@pytest.fixture
def texts(tmp_path):
    """A folder of text files."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text("x")
    return folder


@pytest.fixture
def empty(tmp_path):
    """An empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


EXTRACT_ERRORS = {
    "missing folder": (("extract", "{tmp}/nowhere"), "there is no file or folder"),
    "empty folder": (("extract", "{empty}"), "there is no file at all"),
    "text files": (("extract", "{texts}"), "found 3 files with extensions .txt, none"),
    "unknown network": (
        ("extract", "{digits}", "-n", "resnet5O"),
        "Did you mean 'resnet50'",
    ),
    "unknown layer": (("extract", "{digits}", "-l", "stge1"), "Did you mean 'stage1"),
    "corrupt weights": (
        ("extract", "{digits}", "-n", "resnet18", "--weights", "{tmp}/bad.pt"),
        "bad.pt",
    ),
    "missing weights": (
        ("extract", "{digits}", "-n", "resnet18", "--weights", "{tmp}/no.pt"),
        "no.pt",
    ),
}


@pytest.mark.parametrize("case", EXTRACT_ERRORS)
def test_a_refused_extraction_is_one_line_and_no_file(
    run, case, tmp_path, texts, empty, digits
):
    """What was found and what to do, exit code 1, and no store."""
    (tmp_path / "bad.pt").write_bytes(b"not weights at all")
    arguments, message = EXTRACT_ERRORS[case]
    names = {"tmp": tmp_path, "texts": texts, "empty": empty, "digits": digits}
    filled = [each.format(**names) for each in arguments]
    network = () if "-n" in filled else ("-n", "embedkit/digits")

    ran = run(
        *(*filled, *network, "-o", tmp_path / "out" / "o.zarr", "--workers", 0),
        expect=1,
    )

    lines = [each for each in ran.err.splitlines() if each.startswith("Error")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", ["info", "neighbors", "communities", "cluster", "project", "probe"]
)
def test_what_is_no_store_is_told_in_one_line(run, command, texts, tmp_path):
    """Every command that reads a store says what it found instead."""
    for path, message in (
        (tmp_path / "nothing.zarr", "nothing is there"),
        (texts, "is no embedkit store but a folder"),
        (texts / "0.txt", "is no embedkit store but a file"),
    ):
        ran = run(command, path, expect=1)

        assert message in ran.err
        assert ran.out == ""


def test_an_unfinished_store_is_not_analysed(run, digits, tmp_path, monkeypatch):
    """The message says how far it is and how to finish; info still works."""
    monkeypatch.setattr(dispatch, "CPU_COUNT", 1)
    path = tmp_path / "d.zarr"

    def interrupt(progress):
        raise KeyboardInterrupt

    with (
        dask.config.set({"scheduler": "synchronous", "embedkit.window": 1}),
        pytest.raises(KeyboardInterrupt),
    ):
        ek.extract(digits, "embedkit/digits", path, on_progress=interrupt)

    refused = run("probe", path, expect=1)
    info = run("info", path)

    assert "has 1 of its 4 blocks: run the same extract command" in refused.err
    assert "incomplete, 1 of 4 blocks" in info.out


def test_extracting_over_another_store_names_what_differs(run, digits, store):
    """Another pooling is another store."""
    ran = run(
        *("extract", digits, "-n", "embedkit/digits", "-o", store, "--pool", "max"),
        *("--workers", 0),
        expect=1,
    )

    assert "was made with other pool (pool stored avg, asked max)" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("neighbors", "-l", "fcc"), "Did you mean 'fc'"),
        (("neighbors", "-k", 100), "choose 1 to 99"),
        (("neighbors", "--query", "3/nope.png"), "no image '3/nope.png' in the store"),
        (("cluster", "--min-cluster-size", 1), "min_cluster_size"),
        (("project", "--color", "hue"), "nothing to colour by is called 'hue'"),
        (("project", "--color", "communities"), "no result 'communities/fc'"),
        (("project", "-o", "/nowhere/at/all.png"), "is no folder. Make it first"),
        (("project", "-o", "map"), "name a file that ends with .png"),
        (("probe", "--target", "weather"), "weather"),
        (("probe", "--layers", "zzz*"), "zzz"),
        (("probe", "--table", "/nowhere.csv"), "nowhere.csv"),
    ],
)
def test_bad_options_of_analyses(run, store, arguments, message, monkeypatch, tmp_path):
    """Each is one line with what to do."""
    monkeypatch.chdir(tmp_path)
    command, *options = arguments

    ran = run(command, store, *options, expect=1)

    assert message in ran.err
    assert len([each for each in ran.err.splitlines() if each.startswith("Error")]) == 1


def test_usage_errors_are_clicks_own(run):
    """A wrong option or a missing argument is exit code 2."""
    assert "No such option" in run("info", "x", "--nope", expect=2).err
    assert "Missing argument" in run("info", expect=2).err
    assert "No such command" in run("frobnicate", expect=2).err


def test_debug_shows_the_traceback(tmp_path):
    """With --debug the error is the Python one."""
    done = subprocess.run(
        [sys.executable, "-m", "embedkit", "info", str(tmp_path / "x"), "--debug"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "StoreError: no store at" in done.stderr


@pytest.mark.slow
def test_an_error_in_a_worker_process_is_one_line_too(finished, digits, tmp_path):
    """The message of a task in another process arrives without its traceback."""
    path = shutil.copytree(finished, tmp_path / "d.zarr")
    (records,) = (path / "_embedkit" / "commits").glob("*.jsonl")
    records.write_text("".join(records.read_text().splitlines(keepends=True)[1:]))
    (path / "uri" / "c.0").write_bytes(b"damaged")
    arguments = ["extract", str(digits), "-n", "embedkit/digits", "-o", str(path)]

    done = subprocess.run(
        [sys.executable, "-m", "embedkit", *arguments, "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "decompression error" in done.stderr
    assert "Traceback" not in done.stderr
    assert len([x for x in done.stderr.splitlines() if x.startswith("Error")]) == 1


def test_an_unexpected_error_is_one_line_with_another_exit_code(
    run, store, monkeypatch
):
    """A defect of ours is told as such, and --debug is pointed to."""

    def broken(*args, **kwargs):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(ek, "open_store", broken)

    ran = run("info", store, expect=UNEXPECTED)

    assert "Error: RuntimeError: two lines (unexpected: --debug shows" in ran.err
