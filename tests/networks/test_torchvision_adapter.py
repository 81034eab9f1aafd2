"""What happens where torchvision is missing, broken, or simply asked."""

from __future__ import annotations

import builtins
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
import torchvision

import embedkit.networks
from embedkit.errors import MissingDependencyError, NetworkError
from embedkit.networks import torchvision_adapter
from embedkit.networks.load import load_network

NMS = "operator torchvision::nms does not exist"


@pytest.fixture
def broken(monkeypatch):
    """Make every import of torchvision fail in a way of one's choice."""
    monkeypatch.delitem(sys.modules, "embedkit.networks.torchvision_adapter")
    monkeypatch.delattr(embedkit.networks, "torchvision_adapter")
    genuine = builtins.__import__

    def by(error):
        def fails(name, *args, **kwargs):
            if name.partition(".")[0] == "torchvision":
                raise error
            return genuine(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", fails)

    return by


@pytest.mark.parametrize(
    "error", [RuntimeError(NMS), ImportError("libc10.so: cannot open")]
)
def test_broken_pair_is_explained(broken, error):
    """Both versions and the remedy are named, whatever was to be loaded."""
    broken(error)
    message = (
        rf"torchvision cannot be loaded \(.*\): found torch {version('torch')} and "
        rf"torchvision {version('torchvision')}; install both from the same index"
    ).replace("+", r"\+")
    with pytest.raises(MissingDependencyError, match=message):
        load_network("resnet18")
    with pytest.raises(MissingDependencyError, match=str(error)):
        load_network("embedkit/digits")


def test_missing_torchvision_is_explained(broken, monkeypatch):
    """Where there is none, the message says so."""

    def absent(package):
        if package == "torchvision":
            raise PackageNotFoundError(package)
        return "2.0"

    monkeypatch.setattr("importlib.metadata.version", absent)
    broken(ImportError("No module named 'torchvision'"))
    with pytest.raises(
        MissingDependencyError, match=r"found torch 2\.0 and no torchvision"
    ):
        importlib.import_module("embedkit.networks.torchvision_adapter")


def test_other_failures_are_not_disguised(broken):
    """An error that has nothing to do with the pair stays itself."""
    broken(RuntimeError("out of patience"))
    with pytest.raises(RuntimeError, match="out of patience"):
        importlib.import_module("embedkit.networks.torchvision_adapter")


def test_packages_load_nothing_heavy(run_python):
    """Neither the package nor the public name brings PyTorch along."""
    script = (
        "import sys, embedkit, embedkit.networks, embedkit.networks.bundled\n"
        "print([name for name in ('torch', 'torchvision') if name in sys.modules])"
    )
    assert run_python(script) == "[]"


@pytest.mark.slow
def test_data_of_the_demo_needs_no_torch(run_python):
    """The digits can be had without PyTorch."""
    script = (
        "import sys\n"
        "from embedkit.networks.bundled.digits_data import digits_split\n"
        "digits_split()\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(script) == "False"


@pytest.mark.slow
def test_loading_names_does_not_load_torchvision(run_python):
    """Only a network that is asked for brings torchvision along."""
    script = (
        "import sys, embedkit.networks.load, embedkit.networks.spool\n"
        "print('torchvision' in sys.modules)"
    )
    assert run_python(script) == "False"


def test_names_are_classification_networks():
    """Detection and segmentation networks are not among them."""
    names = torchvision_adapter.names()
    assert {"resnet50", "vit_b_16", "squeezenet1_0"} <= set(names)
    assert not any("rcnn" in name or "deeplab" in name for name in names)


def test_unknown_weights_are_told_with_the_nearest():
    """The table itself answers for names that are not in it."""
    with pytest.raises(
        NetworkError, match=r"no network 'resnet1'\. Did you mean 'resnet1"
    ):
        torchvision_adapter.find_weights("resnet1")


def test_a_download_is_announced_on_stderr(monkeypatch, capsys) -> None:
    """Standard output belongs to what a command computes."""

    def talking(name, **kwargs):
        sys.stdout.write("Downloading: https://example.org/w.pth")
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", talking)
    entry = torchvision.models.get_model_weights("resnet18").DEFAULT

    with pytest.raises(NetworkError, match="no network"):
        torchvision_adapter.download("resnet18", entry)

    said = capsys.readouterr()
    assert said.out == ""
    assert "Downloading" in said.err
