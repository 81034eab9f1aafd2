"""The public surface: names, import cost, floors."""

import importlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import embedkit

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "faiss", "umap", "hdbscan", "zarr", "numba", "sklearn")


def test_every_public_name_resolves_and_is_listed():
    """`__all__` is sorted, complete, and each name is what its home defines."""
    assert embedkit.__all__ == sorted(embedkit.__all__)
    assert set(embedkit.__all__) == set(embedkit._HOME)
    assert set(embedkit.__all__) < set(dir(embedkit))
    for name in embedkit.__all__:
        home = importlib.import_module(embedkit._HOME[name])
        expected = home if name == "pl" else getattr(home, name)
        assert getattr(embedkit, name) is expected


def test_importing_the_homes_does_not_shadow_public_names():
    """No folder is called like a public function, which Python would put in its place."""
    folders = {each.name for each in (ROOT / "embedkit").iterdir() if each.is_dir()}
    modules = {each.stem for each in (ROOT / "embedkit").glob("*.py")}

    assert not (folders | modules) & set(embedkit.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """A typing mistake is told at once."""
    with pytest.raises(AttributeError, match="'embedkit' has no attribute 'extrac'"):
        _ = embedkit.extrac


@pytest.mark.parametrize("name", embedkit.__all__)
def test_every_public_name_is_documented(name):
    """Each has a docstring; functions name parameters, results and errors."""
    found = getattr(embedkit, name)

    assert found.__doc__
    if callable(found) and not isinstance(found, type):
        assert "Parameters\n" in found.__doc__
        assert "Returns\n" in found.__doc__


def test_import_loads_nothing_heavy():
    """A fresh process has none of the heavy libraries after the import."""
    code = (
        "import json, sys, embedkit; "
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == []


PLANTED = {
    "floors": ("embedkit/store/planted.py", "import embedkit.analysis.neighbors"),
    "siblings": ("embedkit/images/planted.py", "import embedkit.store.store"),
    "analyses know xarray": (
        "embedkit/analysis/planted.py",
        "import embedkit.store.store",
    ),
    "arithmetic": ("embedkit/planning/planted.py", "import numpy"),
    "torch": ("embedkit/analysis/planted.py", "import torch"),
    "torchvision": ("embedkit/networks/planted.py", "import torchvision"),
    "zarr": ("embedkit/store/planted.py", "import zarr"),
    "faiss": ("embedkit/analysis/planted.py", "import faiss"),
    "hdbscan": ("embedkit/analysis/planted.py", "import hdbscan"),
    "umap": ("embedkit/analysis/planted.py", "import umap"),
    "pynndescent": ("embedkit/analysis/planted.py", "import pynndescent"),
    "graspologic_native": ("embedkit/analysis/planted.py", "import graspologic_native"),
    "obstore": ("embedkit/files/planted.py", "import obstore"),
    "h5py": ("embedkit/images/planted.py", "import h5py"),
    "pyarrow": ("embedkit/store/planted.py", "import pyarrow"),
    "timm": ("embedkit/networks/planted.py", "import timm"),
    "openvino": ("embedkit/networks/planted.py", "import openvino"),
    "PIL": ("embedkit/store/planted.py", "import PIL"),
}


def _lint(folder):
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(command), "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the package to plant violations in."""
    folder = tmp_path_factory.mktemp("planted")
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "embedkit", folder / "embedkit", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.slow
def test_the_floors_hold(copied):
    """The package as it is keeps every contract."""
    done = _lint(copied)

    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_caught(copied, case):
    """Each contract breaks, by name, when a file imports what it may not."""
    path, line = PLANTED[case]
    planted = copied / path
    planted.write_text(f'"""Planted."""\n\n{line}\n')

    try:
        done = _lint(copied)
    finally:
        planted.unlink()

    broken = [each for each in done.stdout.splitlines() if each.endswith("BROKEN")]
    word = {"floors": "floors below", "siblings": "floors below"}.get(case, case)
    assert done.returncode == 1, done.stdout
    assert any(word in each for each in broken), done.stdout


def test_every_contract_has_a_planted_violation():
    """A contract that was never seen to fail may not work at all."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]

    for contract in contracts:
        words = [
            {"floors": "floors below", "siblings": "floors below"}.get(case, case)
            for case in PLANTED
        ]
        assert any(word in contract["name"] for word in words), contract["name"]
