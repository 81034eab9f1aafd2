"""Disks that are full, and disks that cannot be written."""

import json
import subprocess
from pathlib import Path

import pytest

import embedkit as ek


@pytest.fixture(scope="module")
def namespace():
    """The command that gives a process mounts of its own, as root or as anybody."""
    for flags in (["-m"], ["-rm"]):
        command = ["unshare", *flags, "--propagation", "private"]
        probe = [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no private mounts here: unshare -m and unshare -rm are refused")


SCENES = {
    "full": {"size": "1500k"},
    "ballast": {"size": "5m", "step": 8 * 4096},
    "read_only": {"size": "64m"},
    "read_only_half_way": {"size": "64m"},
    "complete_and_read_only": {"size": "64m"},
}


@pytest.fixture(scope="module")
def play(namespace, photos, tmp_path_factory, run_script):
    """Play scenes of disk.py in one process; return what each told, and its store."""

    def play(names, **more):
        folder = tmp_path_factory.mktemp("disks")
        scenes = [_scene(folder, name) for name in names]
        asked = {"photos": str(photos), "scenes": scenes, **more}
        done = run_script("disk.py", asked, before=namespace, within=240)
        assert done.returncode == 0, done.stdout
        for scene in scenes:  # the mounts went with the process
            assert list(Path(scene["place"]).iterdir()) == []
        return {
            scene["scene"]: (json.loads(Path(scene["told"]).read_text()), scene["copy"])
            for scene in scenes
        }

    return play


def _scene(folder, name):
    """Return what a scene is asked; make the place of its disk."""
    place = folder / name
    place.mkdir()
    return {
        "scene": name,
        "place": str(place),
        "copy": str(folder / f"{name}.zarr"),
        "told": str(folder / f"{name}.json"),
        **SCENES[name],
    }


@pytest.fixture(scope="module")
def played(play):
    """Every scene, block after block in one process."""
    return play(list(SCENES))


@pytest.fixture
def check(reference, contents):
    """Check that a store came out whole, with nothing beside it; return the story."""

    def check(told, store):
        assert "broken" not in told, told["broken"]
        assert told["then"] is None
        assert ek.open_store(store).complete
        assert contents(store) == reference
        assert not [name for name in told["files"] if ".partial" in name]
        assert {name.split("/")[0] for name in told["files"]} == {"s.zarr"}
        return told

    return check


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk(workers, play, played, check):
    """One clear error in the middle of the run; with more room the same call goes on."""
    told = check(*(play(["full"], workers=workers) if workers else played)["full"])

    (message,) = told["failed"]
    assert "No space left on device" in message
    assert "\n" not in message
    assert 0 < told["blocks"] < 32


def test_a_disk_that_gains_room_a_few_pages_at_a_time(played, check):
    """Wherever the disk is full, the error is the same and the next call goes on."""
    told = check(*played["ballast"])

    assert len(told["failed"]) > 20
    assert [
        each for each in told["failed"] if "No space left on device" not in each
    ] == []
    assert [each for each in told["failed"] if "\n" in each] == []


def test_a_read_only_place(played, check):
    """One clear error, and not one file."""
    told = check(*played["read_only"])

    (message,) = told["failed"]
    assert "Read-only file system" in message
    assert "\n" not in message
    assert told["blocks"] == 0


def test_a_place_that_becomes_read_only(played, check):
    """The run ends with one clear error, so does the next; what is there stays."""
    told = check(*played["read_only_half_way"])

    assert len(told["failed"]) == 2
    for message in told["failed"]:
        assert "Read-only file system" in message
        assert "\n" not in message
    assert 0 < told["blocks"] < 32


def test_a_finished_store_on_a_read_only_disk(played, check):
    """It is read, and the call that made it hands it back."""
    check(*played["complete_and_read_only"])
