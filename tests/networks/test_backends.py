"""Every backend gives the values of the reference, or says that it cannot."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from embedkit.errors import InputError, NetworkError
from embedkit.networks.backends import BACKENDS, Taps
from embedkit.networks.load import load_network

CPU = [name for name in BACKENDS if name not in ("torch", "cuda_amp")]

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("backend", CPU)
def test_in_place_work_reaches_no_tap(backend, noise, little, assert_agrees):
    """Rectifiers, sums and views in place leave every layer as it was."""
    batch = noise(3, 3, 8, 8)
    before = batch.copy()
    assert_agrees(little("Nasty"), batch, backend)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("backend", ["torch_channels_last", "torch_fused"])
def test_writing_to_a_view_reaches_the_whole(backend, noise, little, assert_agrees):
    """PyTorch's backends write through a window; all layers are as they were."""
    assert_agrees(little("WritesToView"), noise(3, 3, 8, 8), backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_networks_agree(name, backend, noise, assert_agrees, sized):
    """All layers of residual and dense networks are the reference's."""
    network = load_network(name, weights=None, transform=sized(64))
    assert_agrees(network, noise(2, 3, 64, 64), backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("squeezenet1_0", "squeezenet1_0_imagenet_deepcompression.pt"),
        ("mobilenet_v2", "mobilenet_v2_tf2ptq_torchvision.pt"),
    ],
)
def test_trained_networks_agree(
    name, file, backend, weights_folder, noise, assert_agrees, sized
):
    """All layers of trained networks are the reference's."""
    network = load_network(name, weights=weights_folder / file, transform=sized(96))
    assert_agrees(network, noise(2, 3, 96, 96), backend)


@pytest.mark.parametrize("backend", CPU)
def test_rows_do_not_depend_on_other_rows(backend, digits, noise):
    """A row is the same bit by bit among others and in a batch filled with zeros."""
    taps = digits.taps("all", backend=backend)
    one, two = noise(4, 1, 16, 16), noise(4, 1, 16, 16, seed=1)
    two[1], two[2:] = one[1], 0
    first, second = taps.forward(one), taps.forward(two)
    for layer in taps.layers:
        np.testing.assert_array_equal(first[layer][1], second[layer][1])


def test_channels_last_starts_with_the_same_bits(digits, noise):
    """From a stored map, channels last gives what the whole run gives."""
    batch, backend = noise(3, 1, 16, 16), "torch_channels_last"
    start, rest = "stage1.relu_1", ["stage2.add", "stage3", "fc"]
    raw = digits.taps([start], pool="none", backend=backend).forward(batch)[start]
    whole = digits.taps(rest, backend=backend).forward(batch)
    found = digits.taps(rest, start=start, backend=backend).forward(raw)
    for layer, value in whole.items():
        np.testing.assert_array_equal(found[layer], value)


def test_views_of_maps_fail_with_channels_last(noise, little):
    """Why channels last is no reference: a view may fail, and says so."""
    batch = noise(2, 3, 8, 8)
    taps = little("Views").taps("all", backend="torch_channels_last")
    message = r"'torch_channels_last' cannot run this network \(.*use backend='torch'"
    with pytest.raises(NetworkError, match=message) as caught:
        taps.forward(batch)
    assert "\n" not in str(caught.value)


def test_backends_leave_the_module_alone(noise, little):
    """Neither the module given nor the network's own is laid out anew."""
    module = copy.deepcopy(little("Nasty").module)
    network = little(module)
    for backend in CPU:
        network.taps("relu", backend=backend).forward(noise(2, 3, 8, 8))
    for one in (module, network.module):
        assert one.conv.weight.is_contiguous()
        assert list(dict(one.named_modules())) == ["", "conv", "norm", "relu"]


def test_unknown_backends_are_named(digits):
    """A typing error gets the nearest backend."""
    with pytest.raises(
        InputError, match=r"no backend 'openvin'\. Did you mean 'openvino"
    ):
        digits.taps("fc", backend="openvin")


def test_tap_graphs_are_taps(digits):
    """Every backend has what the protocol names."""
    names = [name for name in vars(Taps)["__annotations__"] if not name.startswith("_")]
    for backend in ("torch", *CPU):
        taps = digits.taps("fc", backend=backend)
        assert all(hasattr(taps, name) for name in names)
