"""From names and modules to networks, and every way that can fail."""

from __future__ import annotations

import copy
import re
import urllib.error

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embedkit.errors import InputError, NetworkError
from embedkit.networks import torchvision_adapter
from embedkit.networks.bundled.digits import DigitsNetwork, DigitsTransform
from embedkit.networks.load import load_network


def picture(image):
    """A transform that ignores the image."""
    return torch.zeros(1, 16, 16)


def test_bundled_network():
    """The network that comes along needs nothing but its name."""
    network = load_network("embedkit/digits")
    assert network.name == "embedkit/digits"
    assert network.transform == DigitsTransform()
    assert isinstance(network.module, DigitsNetwork)


def test_random_weights_are_reproducible_and_leave_no_trace():
    """No generator is advanced, and every call draws the same weights."""
    torch.manual_seed(123)
    before = torch.get_rng_state()
    one = load_network("resnet18", weights=None)
    torch.manual_seed(7)
    other = load_network("resnet18", weights=None)
    assert one.identity == other.identity
    torch.manual_seed(123)
    load_network("embedkit/digits")
    assert torch.get_rng_state().equal(before)
    load_network("squeezenet1_0", weights=None)
    assert torch.get_rng_state().equal(before)
    assert load_network("embedkit/digits", weights=None).identity != one.identity


def test_bound_transform_is_the_weights_own():
    """Each variant of weights brings the crop it was trained with."""
    first = load_network("resnet50.IMAGENET1K_V1", weights=None)
    second = load_network("resnet50.DEFAULT", weights=None)
    assert first.transform.resize_size == [256]
    assert second.transform.resize_size == [232]
    assert (
        load_network("resnet18", weights=None, transform=picture).transform is picture
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", r"no network 'resnet51' in .*Did you mean 'resnet50'"),
        (
            "digits",
            r"no network 'digits' in torchvision or embedkit\. Did you mean 'embedkit/digits'",
        ),
        (
            "resnet50.IMAGENET1K_V3",
            r"'resnet50' has no weights 'IMAGENET1K_V3'\. Did you mean 'IMAGENET1K_V",
        ),
        ("resnet50.", r"'resnet50' has no weights ''\. There is 'IMAGENET1K_V1'"),
    ],
)
def test_unknown_names_are_told_with_the_nearest(name, message):
    """A slip of the pen is answered with what was meant."""
    with pytest.raises(NetworkError, match=message):
        load_network(name)


def test_other_things_are_refused():
    """What is neither name nor module is named by its type."""
    with pytest.raises(
        InputError, match=r"a network of type int was given: pass a name"
    ):
        load_network(3)


def test_module_needs_a_transform():
    """Nobody can guess what a module was trained with."""
    with pytest.raises(
        InputError,
        match=r"Linear was given without a transform: .*transform=torchvision",
    ):
        load_network(nn.Linear(1, 1))


def test_module_is_copied_not_changed():
    """The user's module stays in training, with gradients, and unshared."""
    module = DigitsNetwork().train()
    before = copy.deepcopy(module.state_dict())
    network = load_network(module, transform=picture)
    network.taps("all").forward(np.ones((2, 1, 16, 16), np.float32))
    assert module.training
    assert all(each.requires_grad for each in module.parameters())
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert network.module is not module
    assert network.name == "DigitsNetwork"
    assert network.transform is picture


@pytest.mark.parametrize("weights", ["default", None])
def test_module_keeps_its_weights(weights):
    """Without a file there is nothing better than what the module holds."""
    module = DigitsNetwork()
    network = load_network(module, weights=weights, transform=picture)
    assert network.module.fc.weight.equal(module.fc.weight)


def test_module_takes_weights_from_a_file(tmp_path):
    """A file fills the copy and not the original."""
    source, module = DigitsNetwork(), DigitsNetwork()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network = load_network(
        module, weights=tmp_path / "w.safetensors", transform=picture
    )
    assert network.module.fc.weight.equal(source.fc.weight)
    assert not module.fc.weight.equal(source.fc.weight)


def test_bundled_network_takes_weights_from_a_file(tmp_path):
    """Weights of one's own replace those that come along."""
    source = DigitsNetwork()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    network = load_network("embedkit/digits", weights=tmp_path / "w.pt")
    assert network.module.fc.weight.equal(source.fc.weight)


def test_real_weights_fit_strictly(weights_folder):
    """A published file fits its network, and no other."""
    path = weights_folder / "squeezenet1_0_imagenet_deepcompression.pt"
    network = load_network("squeezenet1_0", weights=path)
    assert (network.module.classifier[1].weight == 0).float().mean() > 0.3
    assert network.transform.crop_size == [224]
    with pytest.raises(
        NetworkError, match=r"does not fit network squeezenet1_1: \d+ of another shape"
    ):
        load_network("squeezenet1_1", weights=str(path))
    with pytest.raises(NetworkError, match=r"does not fit network alexnet: "):
        load_network("alexnet", weights=path)


def test_failed_download_says_what_to_do(monkeypatch):
    """No connection is no end: a file fetched by other means will do."""

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        NetworkError,
        match=r"could not be downloaded from https://.*no route to host.*pass weights=PATH",
    ) as caught:
        load_network("resnet18")
    assert "\n" not in str(caught.value)


def test_default_weights_are_the_tables(monkeypatch):
    """The default asks torchvision for the variant that was named."""
    asked = []

    def fake(url, **options):
        asked.append(url)
        return torchvision_adapter.build("resnet18").state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fake)
    network = load_network("resnet18.IMAGENET1K_V1")
    assert network.name == "resnet18.IMAGENET1K_V1"
    assert asked == ["https://download.pytorch.org/models/resnet18-f37072fd.pth"]


def test_old_densenet_files_are_understood(tmp_path):
    """The official files of DenseNets use names that no version writes today."""
    state = torchvision_adapter.build("densenet121").state_dict()
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")
        if "denselayer" in name
        else name: tensor
        for name, tensor in state.items()
    }
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "densenet.pth")
    network = load_network("densenet121", weights=tmp_path / "densenet.pth")
    assert network.module.classifier.weight.equal(state["classifier.weight"])


def test_networks_trained_on_other_inputs_get_them():
    """Inputs are normalised anew where the published weights expect it."""
    assert load_network("googlenet", weights=None).module.transform_input


@pytest.mark.parametrize("name", ["mine", "resnet18/layer 4", "größe.2", "a_b/c.d"])
def test_networks_can_be_named(name):
    """A name tells networks apart and leaves identity and origin as they are."""
    network = load_network("embedkit/digits", name=name)
    plain = load_network("embedkit/digits")
    own = load_network(nn.Flatten(), transform=picture, name=name)
    assert network.name == own.name == name
    assert plain.name == network.asked == "embedkit/digits"
    assert network.identity == plain.identity


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "_x",
        ".x",
        "a/../b",
        "a/_b",
        "/a",
        "a/",
        "a//b",
        "a\\b",
        "a\nb",
        3,
    ],
)
def test_unfit_names_are_refused(name):
    """What would hide a folder, or lead out of one, is no name."""
    message = f"name={name!r} was given: a network's name has to be printable text such"
    with pytest.raises(InputError, match=f"^{re.escape(message)}") as caught:
        load_network("embedkit/digits", name=name)
    assert "\n" not in str(caught.value)


def test_private_classes_name_themselves():
    """The default name of a module is its class, whatever that is called."""
    private = type("_Private", (nn.Flatten,), {})
    assert load_network(private(), transform=picture).name == "_Private"


@pytest.mark.parametrize("weights", ["default", "none", None, "file"])
def test_networks_can_be_loaded_again(weights, tmp_path, monkeypatch):
    """What a network knows of its origin leads back to it, from any folder."""
    torch.save(DigitsNetwork().state_dict(), tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    first = load_network(
        "embedkit/digits", weights="w.pt" if weights == "file" else weights, name="mine"
    )
    expected = {"file": str(tmp_path / "w.pt"), None: "none"}.get(weights, weights)
    monkeypatch.chdir("/")
    again = load_network(first.asked, weights=first.weights)
    assert (again.asked, again.weights) == (first.asked, first.weights)
    assert first.weights == expected
    assert again.identity == first.identity


def test_torchvision_networks_can_be_loaded_again():
    """Variants of weights are part of what was asked, and so of the transform."""
    first = load_network("resnet18.IMAGENET1K_V1", weights=None)
    again = load_network(first.asked, weights=first.weights)
    assert first.asked == "resnet18.IMAGENET1K_V1"
    assert first.weights == "none"
    assert again.identity == first.identity


@pytest.mark.parametrize("weights", ["default", "none", None])
def test_modules_cannot_be_loaded_again(weights):
    """A module has no name to ask for, and keeps its weights."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    network = load_network(module, transform=picture, weights=weights)
    assert network.asked is network.weights is None
    assert network.module[1].weight.equal(module[1].weight)
