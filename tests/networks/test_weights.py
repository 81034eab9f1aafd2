"""Weights files: good ones, damaged ones, foreign ones and malicious ones."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from embedkit.errors import NetworkError
from embedkit.networks.weights import load_strictly, read_weights, weights_digest


@pytest.fixture
def state():
    """The state of a small module."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).state_dict()


def assert_same(found, expected):
    assert list(found) == list(expected)
    assert all(found[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_state_dicts_come_back(tmp_path, state, suffix):
    """What PyTorch saved is read, whatever the file is called."""
    path = tmp_path / f"weights{suffix}"
    torch.save(state, path)
    assert_same(read_weights(path), state)
    assert_same(read_weights(str(path)), state)


def test_safetensors_come_back(tmp_path, state):
    """The other format is read by its suffix."""
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    found = read_weights(path)
    assert_same(found, {name: state[name] for name in found})
    assert found.keys() == state.keys()


def test_training_wrappers_are_taken_off(tmp_path, state):
    """Checkpoints of training scripts and of parallel training are understood."""
    path = tmp_path / "checkpoint.pt"
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": parallel}, path)
    assert_same(read_weights(path), state)


def test_prefix_stays_where_not_all_have_it(tmp_path):
    """A network may well have a part that is called module."""
    path = tmp_path / "weights.pt"
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, path)
    assert list(read_weights(path)) == ["module.a", "b"]


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda obj, path: Path(path).write_bytes(pickle.dumps(obj))]
)
def test_code_in_files_is_not_run(tmp_path, save):
    """A pickle that would run code is refused before it does."""
    path, trace = tmp_path / "evil.pt", tmp_path / "owned"
    save({"weight": Evil(trace)}, path)
    with pytest.raises(
        NetworkError, match=r"cannot be read .*would run code is refused"
    ):
        read_weights(path)
    assert not trace.exists()


def test_whole_modules_are_refused(tmp_path):
    """A pickled module needs code, and the message names the reason in one line."""
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(
        NetworkError, match=r"Unsupported global.*torch\.save\(module\.state_dict"
    ) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_truncated_files_are_refused(tmp_path, state, suffix, keep):
    """A download that broke off is told with its size."""
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    data = path.read_bytes()
    kept = data[: int(len(data) * keep) if isinstance(keep, float) else keep]
    path.write_bytes(kept)
    with pytest.raises(
        NetworkError, match=rf"of {len(kept)} bytes cannot be read \(.+\)"
    ):
        read_weights(path)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_garbage_is_refused(tmp_path_factory, data, suffix):
    """Any bytes at all give one and the same kind of error, in one line."""
    path = tmp_path_factory.mktemp("garbage") / f"weights{suffix}"
    path.write_bytes(data)
    with pytest.raises(NetworkError, match=r"weights file") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [[torch.ones(1)], {"a": 1}, {1: torch.ones(1)}, torch.ones(2)]
)
def test_other_content_is_refused(tmp_path, content):
    """A file that holds something else says what."""
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(NetworkError, match=r"holds a \w+ that is no state dict: save"):
        read_weights(path)


def test_missing_files_are_named(tmp_path):
    """A path that leads nowhere says what weights may be."""
    with pytest.raises(
        NetworkError, match=r"there is no weights file '.*nowhere\.pt': pass"
    ):
        read_weights(tmp_path / "nowhere.pt")


def test_shared_cifar_weights_are_read(weights_folder):
    """A checkpoint as its author published it is understood."""
    state = read_weights(weights_folder / "resnet20_cifar10.pt")
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    assert not any(name.startswith("module.") for name in state)


def test_strict_loading_loads():
    """Weights that fit arrive."""
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    load_strictly(target, source.state_dict(), name="toy", source="file")
    assert target.weight.equal(source.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), r"1 missing \(0\.bias\)\. Pass"),
        (lambda s: s.update(extra=torch.ones(1)), r"1 unexpected \(extra\)\. Pass"),
        (
            lambda s: s.update({"0.bias": torch.ones(9)}),
            r"1 of another shape \(0\.bias \(9,\) instead of \(2,\)\)",
        ),
        (
            lambda s: [s.pop(name) for name in list(s)[:-1]],
            r"network toy: 6 missing \(0\.weight, 0\.bias, 1\.weight, \.\.\.\)",
        ),
    ],
    ids=["missing", "unexpected", "shape", "many"],
)
def test_strict_loading_refuses(state, change, message):
    """What does not fit is counted and the first few are named."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    change(state)
    with pytest.raises(NetworkError, match=message):
        load_strictly(module, state, name="toy", source="file.pt")


def test_names_in_files_do_not_break_lines():
    """What a file calls its tensors is told in one line."""
    state = {"weight\nlike": torch.ones(1)}
    with pytest.raises(NetworkError, match=r"1 unexpected \(weight like\)") as caught:
        load_strictly(nn.Flatten(), state, name="toy", source="file")
    assert "\n" not in str(caught.value)


def test_digest_covers_names_types_shapes_and_bytes():
    """Each of the four makes another digest."""
    base = nn.ParameterDict({"a": torch.ones(4)})
    others = [
        nn.ParameterDict({"b": torch.ones(4)}),
        nn.ParameterDict({"a": torch.ones(4, dtype=torch.float64)}),
        nn.ParameterDict({"a": torch.ones(2, 2)}),
        nn.ParameterDict({"a": torch.tensor([1, 1, 1, 1 + 2**-23])}),
    ]
    digests = {weights_digest(module) for module in (base, *others)}
    assert len(digests) == 5
    assert weights_digest(nn.ParameterDict({"a": torch.ones(4)})) in digests


def test_digest_does_not_depend_on_order_or_layout():
    """Insertion order and strides are not content."""
    values = {"a": torch.randn(3, 4), "b": torch.tensor(1.0)}
    swapped = {
        name: values[name].t().contiguous().t() if name == "a" else values[name]
        for name in ("b", "a")
    }
    assert weights_digest(nn.ParameterDict(values)) == weights_digest(
        nn.ParameterDict(swapped)
    )


def test_digest_of_marked_views_is_that_of_their_values():
    """A conjugate that is only marked as one counts as what it reads."""
    number = torch.tensor([1 + 2j, 3 - 1j])
    marked, plain = number.conj(), number.conj().resolve_conj()
    assert marked.is_conj()
    assert not plain.is_conj()
    digests = {
        weights_digest(nn.ParameterDict({"a": nn.Parameter(each, requires_grad=False)}))
        for each in (marked, plain, number)
    }
    assert len(digests) == 2


class WithState(nn.Module):
    """Keeps a buffer out of its state, and something else in it."""

    def __init__(self, hidden, extra):
        super().__init__()
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)
        self.extra = extra

    def get_extra_state(self):
        return self.extra


def test_digest_covers_hidden_buffers_and_extra_state():
    """What is not a saved tensor but enters the result counts as well."""
    digests = {
        weights_digest(WithState(hidden, extra))
        for hidden in (1.0, 2.0)
        for extra in ("a", "b")
    }
    assert len(digests) == 4
    assert np.unique(list(digests)).size == 4
