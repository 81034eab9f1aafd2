"""The README's own commands and code, run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import embedkit as ek
from embedkit.networks.bundled.held_out import write_held_out


@pytest.fixture(scope="session")
def readme(root):
    """The text."""
    return (root / "README.md").read_text("utf-8")


def _blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _environment(**more):
    scripts = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}"} | more


def test_it_is_short_and_its_links_lead_somewhere(readme, root):
    """At most 150 lines; every picture and file that it names is there."""
    assert len(readme.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)]+)\)", readme):
        assert target.startswith("https://") or (root / target).is_file(), target
    for target in re.findall(r"^make (\w+)", readme, flags=re.MULTILINE):
        assert f"\n{target}: " in (root / "Makefile").read_text("utf-8")


def test_the_floors_it_draws_are_the_folders(readme, root):
    """No floor is missing from the picture, none is drawn that is not there."""
    (drawing,) = re.findall(r"```\n(cli .*?)```", readme, flags=re.DOTALL)
    drawn = {
        name
        for line in drawing.splitlines()
        for name in re.split(r"\s{2,}", line)[0].split(" · ")
    }
    package = root / "embedkit"
    folders = {each.parent.name for each in package.glob("*/__init__.py")}

    assert drawn == folders | {"config", "errors", "tasks", "workers"}


@pytest.mark.slow
def test_the_python_runs(readme, tmp_path):
    """Twenty lines, copied into a file, give a store and a picture."""
    (code,) = _blocks(readme, "python")
    write_held_out(_folder(tmp_path / "demo") / "digits")
    (tmp_path / "try.py").write_text(code)

    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "try.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert len([x for x in code.splitlines() if x.strip()]) <= 25
    assert (tmp_path / "digits.png").stat().st_size > 10_000
    assert ek.open_store(tmp_path / "digits.zarr").results[0].startswith("map/stage3")
    with_noise, without = eval(done.stdout.splitlines()[-1])
    assert 0.5 < with_noise <= without <= 1


@pytest.mark.slow
def test_the_commands_run(readme, tmp_path, shared_data):
    """Each command as printed, on sixty real photographs.

    The one thing a test cannot do is download: a checkpoint with random weights lies
    where torchvision looks for the downloaded one.
    """
    (commands,) = _blocks(readme, "bash")
    for place in sorted((shared_data / "clothing_cc0" / "train").iterdir()):
        target = _folder(tmp_path / "photos" / place.name)
        for file in sorted(place.iterdir())[:6]:
            shutil.copy(file, target)
            shutil.copy(file, tmp_path / "query.jpg")
    weights = torchvision.models.ResNet50_Weights.DEFAULT
    checkpoints = _folder(tmp_path / "torch" / "hub" / "checkpoints")
    network = torchvision.models.resnet50(weights=None)
    torch.save(network.state_dict(), checkpoints / Path(weights.url).name)

    done = subprocess.run(
        ["bash", "-euxc", commands],
        cwd=tmp_path,
        env=_environment(TORCH_HOME=str(tmp_path / "torch")),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    store = ek.open_store(tmp_path / "photos.zarr")
    assert store.complete
    assert store.images["label"].nunique() == 10
    assert (tmp_path / "photos.png").stat().st_size > 10_000
    assert set(store.results) == {
        "probe/label",
        *(f"{each}/layer4.2.relu_2" for each in ("neighbors", "communities")),
        *(f"{each}/layer4.2.relu_2" for each in ("cluster", "map", "duplicates")),
    }


def _folder(path):
    path.mkdir(parents=True)
    return path
