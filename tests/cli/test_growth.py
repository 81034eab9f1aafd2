"""Growing and proving a store from the command line."""

import shutil
import sys

import pytest

import embedkit as ek


@pytest.fixture
def folder(digits, tmp_path):
    """A copy of the digits that may be changed."""
    return shutil.copytree(digits, tmp_path / "digits")


@pytest.fixture
def arguments(folder, tmp_path):
    """The call that makes a store of them."""
    out = tmp_path / "d.zarr"
    return (
        "extract",
        folder,
        "-n",
        "embedkit/digits",
        "-l",
        "last",
        "-o",
        out,
        "--workers",
        0,
    )


def _shard(path, layer="fc", block=0):
    return path / "layers" / layer / "activation" / f"c.{block}.0"


def test_the_same_command_adds_images_and_layers(run, arguments, folder):
    """No option is needed for what takes nothing away."""
    run(*arguments)
    shutil.copy(next((folder / "4").iterdir()), folder / "4" / "new.png")

    said = run(*arguments, "-l", "stages", "--json").json

    assert said["images"] == 101
    assert said["complete"]
    assert len(said["layers"]) > 1


def test_changed_images_need_update(run, arguments, folder):
    """The error names the option; with it, the row that is gone says why."""
    path = arguments[-3]
    run(*arguments)
    next(iter(sorted((folder / "5").iterdir()))).unlink()

    refused = run(*arguments, expect=1)
    run(*arguments, "--update")

    assert "1 gone" in refused.err
    assert "--update" in refused.err
    table = ek.open_store(path).images
    assert (table["status"] == "removed").sum() == 1
    assert "no longer among the images" in table["error"].tolist()


@pytest.mark.slow
def test_a_second_network_needs_its_option(run, arguments):
    """It stands behind its name, and `info` tells both."""
    path = arguments[-3]
    run(*arguments)
    other = [
        each if each != "embedkit/digits" else "squeezenet1_1" for each in arguments
    ]
    # random weights differ in every process, but here it is one
    added = ("--weights", "none", "--add-network")

    refused = run(*other, "--weights", "none", expect=1)
    run(*other, *added)

    assert "add_network=True" in refused.err
    told = run("info", path).out
    assert "network embedkit/digits" in told
    assert "network squeezenet1_1" in told
    assert "weights: none" in told
    assert any(name.startswith("squeezenet1_1/") for name in ek.open_store(path))


def test_verify_tells_what_is_there(run, arguments):
    """A sound store exits with 0, in both kinds of output."""
    path = arguments[-3]
    run(*arguments)

    text = run("verify", path, "--sample", 5).out
    document = run("verify", path, "--json").json

    assert "all as written" in text
    assert "5 rows computed again, largest relative difference 0.0e+00" in text
    assert document["ok"] is True
    assert document["damage"] == []


@pytest.mark.slow
def test_verify_lists_and_repairs_damage(run, arguments):
    """Exit status 3, a table of what is damaged; repaired, 0 again."""
    path = arguments[-3]
    run(*arguments)
    data = bytearray(_shard(path).read_bytes())
    data[7] ^= 1
    _shard(path).write_bytes(data)

    found = run("verify", path, expect=3)
    document = run("verify", path, "--json", expect=3).json
    repaired = run("verify", path, "--repair")

    assert "1 damaged" in found.out
    assert "unreadable" in found.out
    assert [(each["layer"], each["block"]) for each in document["damage"]] == [
        ("fc", 0)
    ]
    assert "1 repaired" in repaired.out
    assert run("verify", path, "--workers", 2).out.count("all as written") == 1


def test_verify_takes_the_network_that_is_given(run, arguments):
    """Another one is refused by name of what differs."""
    path = arguments[-3]
    run(*arguments)

    run("verify", path, "--sample", 2, "-n", "embedkit/digits")
    refused = run(
        "verify",
        path,
        "--sample",
        2,
        "-n",
        "squeezenet1_1",
        "--weights",
        "none",
        expect=1,
    )

    assert "give the network that it was made with" in refused.err


def test_a_lost_file_is_told_with_its_cure(run, arguments):
    """Analyses refuse to read NaN for numbers that were there."""
    path = arguments[-3]
    run(*arguments)
    _shard(path).unlink()

    said = run("neighbors", path, expect=1).err

    assert "embedkit verify --repair" in said


def test_blocks_that_are_given_up_are_told_with_the_command(
    run, arguments, monkeypatch
):
    """The command line that goes on is printed as it can be typed."""
    network = ek.Network
    true_prepare = network.prepare
    monkeypatch.setattr(
        sys, "argv", ["embedkit", "extract", "my photos", "-o", "d.zarr"]
    )
    calls = []

    def prepare(self, image):
        calls.append(1)
        if len(calls) > 40 and len(calls) % 50 == 0:
            raise ZeroDivisionError("now and then")
        return true_prepare(self, image)

    monkeypatch.setattr(network, "prepare", prepare)

    import dask

    with dask.config.set({"embedkit.retries": 0}):
        said = run(*arguments, expect=1).err

    assert "Retry: embedkit extract 'my photos' -o d.zarr" in said
    assert "ZeroDivisionError: now and then" in said


def test_neighbors_of_other_numbers_are_not_taken_again(
    run, arguments, folder, tmp_path
):
    """After images were added or changed, saved results are made anew; else reused."""
    path = arguments[-3]
    run(*arguments)
    run("neighbors", path, "-k", 3)
    before = ek.open_store(path).load("neighbors/fc").compute()
    same = run("neighbors", path, "-k", 3, "--json").json

    picture = next(iter(sorted((folder / "6").iterdir())))
    shutil.copy(next(iter(sorted((folder / "1").iterdir()))), picture)
    run(*arguments, "--update")
    run("neighbors", path, "-k", 3)

    after = ek.open_store(path).load("neighbors/fc")
    assert same
    assert before.attrs["content"] != after.attrs["content"]
    expected = ek.neighbors(ek.open_store(path)["fc"], n_neighbors=3, metric="cosine")
    assert after["indices"].values.tolist() == expected["indices"].values.tolist()
    assert before["indices"].values.tolist() != after["indices"].values.tolist()


@pytest.mark.slow
def test_two_networks_in_one_command(run, folder, tmp_path):
    """Both are in the store, the second one's layers behind its name."""
    networks = ("-n", "embedkit/digits", "-n", "squeezenet1_0", "--weights", "none")

    said = run(
        "extract",
        folder,
        *networks,
        "-l",
        "last",
        "-o",
        tmp_path / "two.zarr",
        "--json",
    ).json

    assert [*said["networks"]] == ["embedkit/digits", "squeezenet1_0"]
    assert [*said["layers"]] == ["fc", "squeezenet1_0/flatten"]
