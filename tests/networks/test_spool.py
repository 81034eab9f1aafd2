"""A network reaches other threads and processes whole, once, or not at all."""

from __future__ import annotations

import hashlib
import pickle
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import CorruptStore, NetworkError
from embedkit.files.files import files_at
from embedkit.networks import spool
from embedkit.networks.load import load_network
from embedkit.networks.spool import Spooled, load_spooled
from embedkit.networks.spool_file import read_spool, write_spool


def path_of(spooled):
    """Where a local file lies."""
    return Path(spooled.url, spooled.name)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A process that has loaded nothing yet."""
    monkeypatch.setattr(spool, "_loaded", {})


def test_round_trip(digits, tmp_path, noise):
    """What comes back is the same network, to the bit."""
    spooled = digits.spool(files_at(tmp_path / "new" / "folder"))
    assert path_of(spooled).name == f"network-{spooled.sha256[:16]}.pkl"
    again = load_spooled(spooled)
    batch = noise(4, 1, 16, 16)
    assert again.identity == digits.identity
    assert again.name == digits.name
    expected = digits.taps("all").forward(batch)
    found = again.taps("all").forward(batch)
    assert all(np.array_equal(found[layer], expected[layer]) for layer in expected)


def test_spooled_is_small_and_travels(digits, tmp_path):
    """Path and digest are all that is sent around."""
    spooled = digits.spool(files_at(tmp_path))
    assert len(pickle.dumps(spooled)) < 400
    assert pickle.loads(pickle.dumps(spooled)) == spooled
    assert Path(spooled.url).is_absolute()


def test_present_file_is_left_alone(digits, tmp_path):
    """Writing again changes nothing; a file with other content is replaced."""
    spooled = digits.spool(files_at(tmp_path))
    path = path_of(spooled)
    inode = path.stat().st_ino
    assert digits.spool(files_at(tmp_path)) == spooled
    assert path.stat().st_ino == inode
    path.write_bytes(b"something else")
    assert digits.spool(files_at(tmp_path)) == spooled
    assert path.stat().st_size > 1000
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_any_place_will_do(digits):
    """An object store takes networks as a folder does, and a damaged one is replaced."""
    files = files_at("memory://networks")
    spooled = digits.spool(files)
    assert spooled.url == "memory://networks"
    assert load_spooled(spooled).identity == digits.identity
    files.write(spooled.name, b"something else")
    with pytest.raises(CorruptStore, match=r"'memory://networks/network-\w+\.pkl' has"):
        read_spool(spooled)
    assert digits.spool(files) == spooled
    assert read_spool(spooled)[2] == "embedkit/digits"
    files.delete(spooled.name)
    with pytest.raises(NetworkError, match="cannot be read here"):
        read_spool(spooled)


def test_equal_networks_give_equal_files(digits, tmp_path):
    """Nothing in the file depends on where the weights lie in memory."""
    one = digits.spool(files_at(tmp_path / "one"))
    other = load_network("embedkit/digits").spool(files_at(tmp_path / "other"))
    assert one.sha256 == other.sha256


def test_unequal_pickles_get_their_own_files(tmp_path):
    """What one process wrote is not replaced under the feet of its workers."""
    ones = [
        write_spool((nn.Flatten(), flat, name), files_at(tmp_path)) for name in "ab"
    ]
    assert ones[0].name != ones[1].name
    assert [read_spool(each)[2] for each in ones] == ["a", "b"]


def test_interrupted_write_leaves_nothing(digits, tmp_path, monkeypatch):
    """A full disk leaves neither a file nor a part of one."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        digits.spool(files_at(tmp_path))
    assert list(tmp_path.iterdir()) == []


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


class Fails:
    """Cannot be made again."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return getattr, (1, self.text)


def test_changed_files_are_not_opened(digits, tmp_path):
    """The digest is compared before anything in the file can run."""
    spooled, trace = digits.spool(files_at(tmp_path)), tmp_path / "owned"
    path_of(spooled).write_bytes(pickle.dumps(Evil(trace)))
    with pytest.raises(
        CorruptStore, match=r"has SHA-256 \w{12}… and .* was written: delete it"
    ):
        load_spooled(spooled)
    assert not trace.exists()


def test_one_changed_byte_is_noticed(digits, tmp_path):
    """A flipped bit in the weights is not a network."""
    spooled = digits.spool(files_at(tmp_path))
    data = bytearray(path_of(spooled).read_bytes())
    data[len(data) // 2] ^= 1
    path_of(spooled).write_bytes(data)
    with pytest.raises(CorruptStore, match="SHA-256"):
        load_spooled(spooled)


def test_long_reasons_are_cut_to_a_line(tmp_path):
    """What foreign code says in many lines is told in one."""
    lost = pickle.dumps(Fails("one\ntwo"))
    path = tmp_path / "network.pkl"
    path.write_bytes(lost)
    spooled = Spooled(
        url=str(tmp_path), name=path.name, sha256=hashlib.sha256(lost).hexdigest()
    )
    with pytest.raises(NetworkError, match=r"\(AttributeError: .*one\): its") as caught:
        load_spooled(spooled)
    assert "\n" not in str(caught.value)


def test_missing_file_is_explained(tmp_path):
    """A worker that does not see the folder says so."""
    lost = Spooled(url=str(tmp_path), name="gone.pkl", sha256="0" * 64)
    with pytest.raises(
        NetworkError,
        match=r"gone\.pkl' cannot be read here \([Nn]o such file\): put it where all",
    ):
        load_spooled(lost)


def test_foreign_classes_are_explained(tmp_path, monkeypatch):
    """A class whose file the worker lacks is named."""
    module = types.ModuleType("only_here")
    exec("from torch import nn\nclass Mine(nn.Flatten): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    spooled = load_network(module.Mine(), transform=flat).spool(files_at(tmp_path))
    monkeypatch.delitem(sys.modules, "only_here")
    with pytest.raises(
        NetworkError, match=r"No module named 'only_here'.*importable on every worker"
    ):
        load_spooled(spooled)


def flat(image):
    """A transform for modules that take anything."""
    return torch.zeros(1, 2, 2)


def test_threads_share_one_load(digits, tmp_path, monkeypatch):
    """Eight threads that ask at once get one object, read once."""
    spooled, reads = digits.spool(files_at(tmp_path)), []
    barrier = threading.Barrier(8)

    def counted(which):
        reads.append(which)
        return read_spool(which)

    def ask(_):
        barrier.wait()
        return load_spooled(spooled)

    monkeypatch.setattr(spool, "read_spool", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(reads) == 1
    assert len({id(network) for network in found}) == 1


def test_threads_run_one_network(digits, tmp_path, noise):
    """Threads that load, measure and run at once do not disturb each other."""
    spooled = digits.spool(files_at(tmp_path))
    batches = [noise(3, 1, 16, 16, seed=seed) for seed in range(6)]
    expected = [digits.taps("stages").forward(batch) for batch in batches]

    def work(batch):
        return load_spooled(spooled).taps("stages").forward(batch)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, batches))
    for one, other in zip(found, expected, strict=True):
        assert all(np.array_equal(one[layer], other[layer]) for layer in other)


def test_few_networks_are_kept(tmp_path):
    """A process that sees many networks forgets the oldest."""
    spools = [
        load_network(nn.Flatten(start), transform=flat).spool(files_at(tmp_path))
        for start in range(6)
    ]
    first = [load_spooled(each) for each in spools]
    assert len(spool._loaded) == 4
    assert load_spooled(spools[-1]) is first[-1]
    assert load_spooled(spools[0]) is not first[0]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3).t(),
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.arange(3),
        torch.tensor([True, False]),
        torch.randn(4).to(torch.bfloat16),
        torch.eye(3).to_sparse(),
        nn.Parameter(torch.ones(2)),
    ],
    ids=[
        "strided",
        "scalar",
        "empty",
        "int",
        "bool",
        "bfloat16",
        "sparse",
        "parameter",
    ],
)
def test_tensors_of_all_kinds_survive(tmp_path, tensor):
    """Type, shape and values of any tensor come back."""
    module = nn.Flatten()
    module.constant = tensor
    spooled = write_spool((module, flat, "toy"), files_at(tmp_path))
    found = read_spool(spooled)[0].constant
    assert type(found) is type(tensor)
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert found.to_dense().equal(tensor.to_dense())


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag],
    ids=["conjugate", "negative"],
)
def test_marked_views_survive(tmp_path, tensor):
    """A value that is only marked as conjugate or negative comes back as it reads."""
    assert tensor.is_conj() or tensor.is_neg()
    module = nn.Flatten()
    module.constant = tensor
    found = read_spool(write_spool((module, flat, "toy"), files_at(tmp_path)))[
        0
    ].constant
    assert found.equal(tensor)


def test_tied_weights_stay_tied(tmp_path):
    """Two names of one parameter are one parameter afterwards."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    spooled = write_spool((module, flat, "toy"), files_at(tmp_path))
    found = read_spool(spooled)[0]
    assert found[0].weight is found[1].weight


def test_digest_names_the_network(digits, tmp_path):
    """Another digest for the same file is another network, and refused."""
    spooled = replace(digits.spool(files_at(tmp_path)), sha256="f" * 64)
    with pytest.raises(CorruptStore, match="ffffffffffff… was written"):
        load_spooled(spooled)


WRITER = """
import sys, torch
from torch import nn
from embedkit.files.files import files_at
from embedkit.networks.load import load_network

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
    def forward(self, x):
        x = self.conv(x)
        x += 1
        return x.relu_()

def prepare(image):
    return torch.full((1, 8, 8), SIDE)

SIDE = 0.5
torch.manual_seed(0)
network = load_network(Own(), transform=prepare)
spooled = network.spool(files_at(sys.argv[1]))
value = network.taps("last").forward(network.prepare(None)[None])["relu_"]
print(spooled.url, spooled.name, spooled.sha256, network.identity, value.tobytes().hex())
"""

READER = """
import sys
from embedkit.networks.spool import Spooled, load_spooled

network = load_spooled(Spooled(*sys.argv[1:]))
value = network.taps("last").forward(network.prepare(None)[None])["relu_"]
print(network.name, value.tobytes().hex())
"""


@pytest.mark.slow
def test_classes_of_a_script_reach_another_process(tmp_path, run_python):
    """A module and a transform defined in a notebook work where they were not defined."""
    *spooled, _, value = run_python(WRITER, str(tmp_path / "one")).split()
    assert run_python(READER, *spooled) == f"Own {value}"


@pytest.mark.slow
def test_identity_of_a_script_is_the_same_each_time(tmp_path, run_python):
    """A function of a script has one identity in every run of it."""
    runs = [run_python(WRITER, str(tmp_path / str(i))).split() for i in range(2)]
    assert runs[0][3] == runs[1][3]


def test_pickle_of_this_file_stays_readable(digits, tmp_path):
    """Any pickle reader that has the classes can read the file: no hidden format."""
    with path_of(digits.spool(files_at(tmp_path))).open("rb") as file:
        module, transform, name = cloudpickle.load(file)
    assert name == "embedkit/digits"
    assert transform == digits.transform
    assert module.fc.bias.equal(digits.module.fc.bias)
