"""A small store of digits, and the command run in this process."""

import json
import shutil
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from embedkit.cli.main import cli
from embedkit.networks.bundled.held_out import write_held_out


@dataclass
class Ran:
    """What a command said and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch):
    """Run ``embedkit`` with arguments; `expect` is the exit code."""
    monkeypatch.delenv("EMBEDKIT_DEBUG", raising=False)

    def call(*arguments, expect=0):
        found = CliRunner().invoke(cli, [str(each) for each in arguments])
        assert found.exit_code == expect, found.output
        return Ran(found.exit_code, found.stdout, found.stderr)

    return call


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A hundred held-out digits in class folders, one of them no picture."""
    folder = write_held_out(tmp_path_factory.mktemp("digits") / "digits")
    for place in sorted(folder.iterdir()):
        for file in sorted(place.iterdir())[10:]:
            file.unlink()
    next(iter(sorted((folder / "3").iterdir()))).write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def finished(digits, tmp_path_factory):
    """A store of those digits by the stages of the bundled network."""
    path = tmp_path_factory.mktemp("finished") / "digits.zarr"
    arguments = ["extract", digits, "-n", "embedkit/digits", "-o", path, "--workers", 0]
    found = CliRunner().invoke(cli, [str(each) for each in arguments])
    assert found.exit_code == 0, found.output
    return path


@pytest.fixture
def store(finished, tmp_path):
    """A copy of the store to save results in."""
    return shutil.copytree(finished, tmp_path / "digits.zarr")
