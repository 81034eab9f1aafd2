"""A network's names, identity and preparation of images."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from embedkit.errors import InputError, NetworkError
from embedkit.networks.bundled.digits import DigitsTransform
from embedkit.networks.load import load_network
from embedkit.networks.network import Network


def test_repr(digits, resnet18):
    """One line says what it is, in units that people read."""
    assert repr(digits) == (
        "embedkit/digits · 31 layers · 77.8 k parameters · input 1×16×16"
    )
    assert repr(resnet18) == (
        "resnet18 · 69 layers · 11.7 M parameters · input 3×224×224"
    )


def test_small_networks_count_plainly():
    """Few parameters need no unit."""
    network = load_network(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
        transform=lambda image: torch.zeros(1, 2, 2),
    )
    assert repr(network).startswith("Sequential · 2 layers · 10 parameters")


def test_prepare_is_the_transform(digits):
    """An image of any mode and size becomes a contiguous float32 array."""
    image = Image.new("RGB", (31, 57), (255, 255, 255))
    found = digits.prepare(image)
    assert found.shape == (1, 16, 16)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, 1.0)


def test_prepare_makes_other_floats_single():
    """Double precision and other layouts are brought into the promised form."""
    network = load_network(
        nn.Flatten(),
        transform=lambda image: torch.ones(4, 4, 3).double().permute(2, 0, 1),
    )
    found = network.prepare(Image.new("L", (1, 1)))
    assert found.dtype == np.float32
    assert found.shape == (3, 4, 4)
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (np.zeros((3, 4, 4), np.float32), "a ndarray"),
        (torch.zeros(4, 4), r"a tensor \(4, 4\) of torch.float32"),
        (
            torch.zeros(3, 4, 4, dtype=torch.uint8),
            r"a tensor \(3, 4, 4\) of torch.uint8",
        ),
    ],
)
def test_unfit_results_of_transforms_are_refused(result, found):
    """What is no picture of floats is named."""
    network = load_network(nn.Flatten(), transform=lambda image: result)
    message = f"the transform of network Flatten gave {found}: it has to give a float"
    with pytest.raises(NetworkError, match=message):
        network.prepare(Image.new("RGB", (8, 8)))


def test_module_is_frozen_and_cannot_be_replaced(digits):
    """Evaluation mode, no gradients, no other module."""
    assert not digits.module.training
    assert not any(each.requires_grad for each in digits.module.parameters())
    with pytest.raises(AttributeError):
        digits.module = nn.Identity()


def test_aliases_are_modules(digits):
    """Module paths, and nothing else, lead to taps."""
    assert digits.aliases["stage2"] == "stage2.relu_1"
    assert digits.aliases["stage2.shortcut"] == "stage2.shortcut.1"
    assert digits.aliases["conv1"] == "conv1"
    assert "stage2.add" not in digits.aliases
    assert set(digits.aliases) == {
        path for path, _ in digits.module.named_modules() if path
    }


def test_aliases_agree_with_resolve(resnet18):
    """A module path resolves to its alias."""
    for path, layer in resnet18.aliases.items():
        assert resnet18.resolve(path) == (layer,)


def test_resolve_defaults_to_stages(resnet18):
    """Without a wish there is one tap for each resolution and the scores."""
    assert resnet18.resolve() == (
        "relu",
        "layer1.1.relu_1",
        "layer2.1.relu_1",
        "layer3.1.relu_1",
        "layer4.1.relu_1",
        "fc",
    )


def test_taps_come_in_execution_order(digits):
    """The order of wishes does not matter, and repetition does not either."""
    assert digits.taps(["fc", "conv1", "fc"]).layers == ("conv1", "fc")
    with pytest.raises(NetworkError, match=r"no layer 'fd'. Did you mean 'fc'"):
        digits.taps(["fd"])


class NamesLikePresets(nn.Module):
    """Has taps that are called what presets are called."""

    def __init__(self):
        super().__init__()
        self.stages = nn.Flatten()
        self.last = nn.Linear(4, 3)
        self.soft = nn.Softmax(1)

    def forward(self, x):
        return self.soft(self.last(self.stages(x)))


def test_resolved_names_are_not_resolved_again():
    """What `resolve` returned means the same layers, whatever they are called."""
    network = load_network(
        NamesLikePresets(), transform=lambda image: torch.zeros(1, 2, 2)
    )
    assert network.resolve("las?") == ("last",)
    for asked in ("las?", "stage[s]", "*s*", "all", ["stage[s]", "las?"]):
        resolved = network.resolve(asked)
        assert network.taps(resolved).layers == resolved
    assert network.taps("last").layers == ("soft",)
    assert network.taps(["last", "all"]).layers == ("stages", "last", "soft")
    assert network.taps(network.layers.index[1:2]).layers == ("last",)
    with pytest.raises(NetworkError, match="no layer was asked of NamesLikePresets"):
        network.taps([])


def test_unknown_pools_are_refused(digits):
    """A way of pooling that is not there is not taken for another."""
    with pytest.raises(InputError, match=r"no pool 'average'\. Did you mean 'avg'"):
        digits.taps("fc", pool="average")


def test_input_shape(digits, resnet18):
    """What the transform gives is known without an image."""
    assert digits.input_shape == (1, 16, 16)
    assert resnet18.input_shape == (3, 224, 224)


def test_identity_has_three_parts(digits):
    """Loading again gives the same identity; its parts are as promised."""
    again = load_network("embedkit/digits")
    assert again.identity == digits.identity
    assert len(digits.identity) == 64
    assert list(digits.identity_parts) == ["architecture", "weights", "transform"]
    assert digits.identity_parts["transform"].startswith(
        "DigitsTransform(size=16, mean=0.5, std=0.5) sha256:"
    )


def test_one_bit_of_weights_changes_identity(digits):
    """Only the part that differs differs."""
    module = copy.deepcopy(digits.module)
    bits = module.fc.bias.data.view(torch.int32)
    bits[0] ^= 1
    other = Network(module, name="digits", transform=digits.transform)
    differ = {
        part
        for part, value in other.identity_parts.items()
        if value != digits.identity_parts[part]
    }
    assert differ == {"weights"}
    assert other.identity != digits.identity


def test_transform_changes_identity(digits):
    """Another normalisation is another network."""
    transform = replace(DigitsTransform(), std=0.25)
    other = load_network("embedkit/digits", transform=transform)
    assert other.identity_parts["transform"] != digits.identity_parts["transform"]
    assert other.identity_parts["weights"] == digits.identity_parts["weights"]
    assert other.identity != digits.identity


def test_name_is_no_part_of_identity(digits):
    """A network may be called anything."""
    other = Network(
        copy.deepcopy(digits.module), name="mine", transform=digits.transform
    )
    assert other.identity == digits.identity


@pytest.mark.slow
def test_identity_is_the_same_in_another_process(digits, resnet18, run_python):
    """No address, no order of hashing and no random weight gets into it."""
    script = (
        "from embedkit.networks.load import load_network\n"
        "print(load_network('embedkit/digits').identity)\n"
        "print(load_network('resnet18', weights=None).identity)\n"
    )
    assert run_python(script).split() == [digits.identity, resnet18.identity]
