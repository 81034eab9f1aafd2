"""Networks of timm: names, taps, transforms, weights, and what happens without it."""

from __future__ import annotations

import builtins
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import embedkit.networks
from embedkit.errors import MissingDependencyError, NetworkError
from embedkit.networks.identity import describe_transform
from embedkit.networks.load import load_network

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "blocks", "last", "features"),
    [
        ("vit_tiny_patch16_224", 12, "blocks.11.add_1", 192),
        ("convnext_atto", 12, "stages.3.blocks.1.add", 320),
        ("resnet10t", 4, "layer4.0.act2", 512),
    ],
)
def test_taps_are_what_timm_computes(name, blocks, last, features, noise):
    """Blocks are found, and the tap before the head is what timm's own hook sees."""
    network = load_network(f"timm/{name}", weights="none")
    assert network.name == network.asked == f"timm/{name}"
    found = network.resolve("blocks")
    assert (len(found), found[-1]) == (blocks, last)
    assert network.layers.loc[last, "features"] == features
    batch = noise(2, *network.input_shape)
    module, seen = network.module, []
    path = last.rpartition(".")[0]
    handle = module.get_submodule(path).register_forward_hook(
        lambda part, args, out: seen.append(out.clone())
    )
    with torch.inference_mode():
        scores = module(torch.tensor(batch))
    handle.remove()
    taps = network.taps([last, "last"], pool="none").forward(batch)
    np.testing.assert_array_equal(taps[last], seen[0])
    np.testing.assert_array_equal(taps[network.layers.index[-1]], scores)


def test_transform_is_timms():
    """It is the one of the network's settings, and survives being sent elsewhere."""
    network = load_network("timm/resnet10t", weights=None)
    again = load_network("timm/resnet10t", weights=None)
    image = Image.effect_noise((300, 200), 50).convert("RGB")
    expected = timm.data.create_transform(
        **timm.data.resolve_model_data_config(network.module), is_training=False
    )(image)
    np.testing.assert_array_equal(network.prepare(image), expected)
    sent = pickle.loads(pickle.dumps(network.transform))
    np.testing.assert_array_equal(sent(image), expected)
    text = describe_transform(network.transform)
    assert describe_transform(sent) == describe_transform(again.transform) == text
    assert text.startswith("Compose( Resize(size=201")
    assert again.identity == network.identity


@pytest.mark.slow
def test_identity_is_the_same_in_another_process(run_python):
    """No address gets into it."""
    script = (
        "import warnings\n"
        "from embedkit.networks.load import load_network\n"
        "warnings.simplefilter('ignore')\n"
        "print(load_network('timm/resnet10t', weights=None).identity)\n"
    )
    expected = load_network("timm/resnet10t", weights=None).identity
    assert run_python(script) == expected


def test_weights_from_a_file(tmp_path):
    """The weights are those of the state dict, not the random ones."""
    module = timm.create_model("resnet10t", pretrained=False)
    module.conv1[0].weight.data.add_(1)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    network = load_network("timm/resnet10t", weights=tmp_path / "w.pt")
    random = load_network("timm/resnet10t", weights=None)
    assert network.module.conv1[0].weight.equal(module.conv1[0].weight)
    assert not random.module.conv1[0].weight.equal(module.conv1[0].weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm/resnet10",
            r"no network 'timm/resnet10' in timm\. Did you mean 'timm/resn",
        ),
        ("timm/", r"no network 'timm/' in timm\. "),
        (
            "timm/resnet10t.c4_in1k",
            r"no weights 'timm/resnet10t.c4_in1k'\. Did you mean",
        ),
    ],
)
def test_unknown_names_are_told_with_the_nearest(name, message):
    """What timm does not have is refused before anything is asked of the internet."""
    with pytest.raises(NetworkError, match=message) as caught:
        load_network(name, weights=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("none")])
def test_failed_downloads_are_explained(monkeypatch, capsys, error):
    """The remedy is named, and standard output stays clean."""

    def fails(name, *, pretrained):
        assert pretrained
        sys.stdout.write("Downloading")
        raise error

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(
        NetworkError, match=r"weights of timm/resnet10t could not .*pass weights=PATH"
    ) as caught:
        load_network("timm/resnet10t")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_missing_timm_is_explained(monkeypatch):
    """The extra is named."""
    monkeypatch.delitem(sys.modules, "embedkit.networks.timm_adapter", raising=False)
    monkeypatch.delattr(embedkit.networks, "timm_adapter", raising=False)
    genuine = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == "timm":
            raise ImportError("No module named 'timm'")
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedkit\[timm\]'"):
        load_network("timm/resnet10t")
