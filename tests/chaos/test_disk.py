"""Disks that are full, and disks that cannot be written."""

import json
import os
import subprocess

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


@pytest.fixture
def play(namespace, photos, tmp_path, run_script):
    """Play a scene of disk.py and return what it told."""

    def play(scene, *, size="64m", **more):
        place = tmp_path / "disk"
        place.mkdir()
        asked = {
            "scene": scene,
            "photos": str(photos),
            "place": str(place),
            "size": size,
            "copy": str(tmp_path / "copy.zarr"),
            "told": str(tmp_path / "told"),
            **more,
        }
        done = run_script("disk.py", asked, before=namespace, within=240)
        assert done.returncode == 0, done.stdout
        assert os.listdir(place) == []  # the mount went with the process
        return json.loads((tmp_path / "told").read_text())

    return play


@pytest.fixture
def check(tmp_path, reference, contents):
    """Assert that the store came out whole, with nothing beside it."""

    def check(told):
        store = tmp_path / "copy.zarr"
        assert told["then"] is None
        assert ek.open_store(store).complete
        assert contents(store) == reference
        assert not [name for name in told["files"] if ".partial" in name]
        assert {name.split("/")[0] for name in told["files"]} == {"s.zarr"}

    return check


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk(workers, play, check):
    """One clear error in the middle of the run; with more room the same call goes on."""
    told = play("full", size="1500k", workers=workers)

    (message,) = told["failed"]
    assert "No space left on device" in message
    assert "\n" not in message
    assert 0 < told["blocks"] < 32
    check(told)


def test_a_disk_that_gains_room_a_few_pages_at_a_time(play, check):
    """Wherever the disk is full, the error is the same and the next call goes on."""
    told = play("ballast", size="5m", step=5 * 4096)

    assert len(told["failed"]) > 20
    assert [
        each for each in told["failed"] if "No space left on device" not in each
    ] == []
    assert [each for each in told["failed"] if "\n" in each] == []
    check(told)


def test_a_read_only_place(play, check):
    """One clear error, and not one file."""
    told = play("read_only")

    (message,) = told["failed"]
    assert "Read-only file system" in message
    assert "\n" not in message
    assert told["blocks"] == 0
    check(told)


def test_a_place_that_becomes_read_only(play, check):
    """The run ends with one clear error, so does the next; what is there stays."""
    told = play("read_only_half_way")

    assert len(told["failed"]) == 2
    for message in told["failed"]:
        assert "Read-only file system" in message
        assert "\n" not in message
    assert 0 < told["blocks"] < 32
    check(told)


def test_a_finished_store_on_a_read_only_disk(play, check):
    """It is read, and the call that made it hands it back."""
    check(play("complete_and_read_only"))
