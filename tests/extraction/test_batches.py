"""Batches that become smaller: the same rows, in other company."""

import uuid
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import embedkit as ek
from embedkit.errors import NetworkError, SourceError
from embedkit.extraction.block import batches
from embedkit.extraction.block.batches import Batches, Input, Look
from embedkit.networks.taps import TapGraph
from embedkit.store.attempts import begin
from embedkit.store.commits import Halving


class Net(nn.Module):
    """A convolution and a wide product, whose last bits depend on the batch."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.conv = nn.Conv2d(3, 16, 3)
            self.wide = nn.Linear(16 * 100, 64)

    def forward(self, x):
        return self.wide(torch.relu(self.conv(x)).flatten(1))


@pytest.fixture
def greedy(network):
    """The network."""
    return ek.load_network(Net(), transform=network.transform)


@pytest.fixture
def at_most(monkeypatch):
    """Let networks run out of memory with more than so many images at once."""
    true_run = TapGraph._run

    def limit(most):
        def run(self, values):
            if len(values) > most:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 TB")
            return true_run(self, values)

        monkeypatch.setattr(TapGraph, "_run", run)

    return limit


def _values(store):
    return {layer: store[layer].values.tobytes() for layer in store}


@pytest.mark.slow
def test_out_of_memory_gives_the_bits_of_a_run_with_smaller_batches(
    photos, greedy, tmp_path, at_most
):
    """Rows are computed again until they fit, and are those of batches that fit."""
    at_most(4)
    small = ek.extract(
        photos, greedy, tmp_path / "4.zarr", layers="all", pool="none", batch_size=4
    )

    big = ek.extract(
        photos, greedy, tmp_path / "16.zarr", layers="all", pool="none", batch_size=16
    )

    assert _values(big) == _values(small)
    (one,) = big.schema.passes
    assert one.batch_size == 16
    assert [list(each.batch_sizes(16)) for each in big.commits(one).values()] == [
        [(0, 4)],
        [(32, 4)],
    ]
    for commit in big.commits(one).values():
        (halved,) = commit.halvings
        assert halved.why.startswith("out of memory: DefaultCPUAllocator: can't")
    assert not any(each.halvings for each in small.commits(one).values())


@pytest.mark.slow
def test_rows_of_smaller_batches_are_verified_in_such(
    photos, greedy, tmp_path, at_most
):
    """Sixteen would not fit there either, and give other bits where they do."""
    at_most(4)
    store = ek.extract(photos, greedy, tmp_path / "s.zarr", layers="all", batch_size=16)

    report = ek.verify(store, network=greedy, sample=100)

    assert report.ok
    assert report.sampled == 39
    assert report.max_error == 0.0


@pytest.mark.slow
def test_one_image_that_does_not_fit_ends_the_run_with_what_to_do(
    photos, greedy, tmp_path, at_most
):
    """The message has the sizes of layers and the ways out, in one line."""
    at_most(0)

    with pytest.raises(
        NetworkError,
        match=r"Net runs out of memory with a single image of 3×12×12 \(DefaultCPU.*9 TB"
        r"\); of its 1 layers the largest are wide 64 \(256 B\) an image: ask for fewer "
        r"layers or pool them, give workers more memory",
    ) as caught:
        ek.extract(photos, greedy, tmp_path / "s.zarr", layers=["wide"])

    assert "\n" not in str(caught.value)


def test_other_errors_of_the_network_are_its_own(photos, greedy, tmp_path, monkeypatch):
    """Only a lack of memory is met with a smaller batch."""

    def fail(self, batch):
        raise RuntimeError(f"no batch of {len(batch)}")

    monkeypatch.setattr("embedkit.networks.taps.TapGraph.forward", fail)

    with pytest.raises(ek.errors.IncompleteStore, match="no batch of 32"):
        ek.extract(photos, greedy, tmp_path / "s.zarr", layers=["wide"])


@pytest.mark.parametrize(("deaths", "size"), [(1, 16), (2, 8)])
def test_a_block_in_which_workers_died_is_begun_with_smaller_batches(
    deaths, size, photos, network, tmp_path, monkeypatch
):
    """The others are not, and the values are those of such batches."""
    halved = ek.extract(photos, network, tmp_path / "h.zarr", batch_size=size)
    true_begin = ek.extraction.run.Jobs.of

    def of(self, *passes):
        for _ in range(deaths):
            begin(self._store.files, passes[0], 0, memory=0.9)
        return true_begin(self, *passes)

    monkeypatch.setattr(ek.extraction.run.Jobs, "of", of)
    store = ek.extract(photos, network, tmp_path / "s.zarr", batch_size=32)

    (one,) = store.schema.passes
    commits = store.commits(one)
    why = f"{deaths} worker{'s' * (deaths > 1)} died in this block"
    assert commits[0].halvings == (Halving(row=0, batch_size=size, why=why),)
    assert commits[1].halvings == ()
    np.testing.assert_array_equal(store["fc"].values[:32], halved["fc"].values[:32])


class Steps:
    """A guard that lets so many passes go by before each halving."""

    def __init__(self, steps):
        self.steps, self.passes = list(steps), 0

    def begin(self, key, size):
        return size, ""

    def before(self):
        self.passes += 1

    def after(self, key, size):
        if self.steps and self.passes == self.steps[0]:
            self.steps.pop(0)
            self.passes = 0
            return max(1, size // 2), "full"
        return size, ""

    def halve(self, key, size, why):
        return max(1, size // 2), why


class Taps:
    """Gives every image's own mean, and notes how many came."""

    pool_seconds = 0.5

    def __init__(self, most=10**9):
        self.most, self.widths = most, []

    def forward(self, batch):
        if len(batch) > self.most:
            raise MemoryError
        self.widths.append(len(batch))
        return {"mean": batch.mean((1, 2, 3))[:, None]}


@pytest.fixture
def make():
    """Make batches of a network that is no network."""

    def batched(guard, *, n=20, size=8, most=10**9):
        layer = SimpleNamespace(name="mean", tap="mean", shape=(1,), row_bytes=4)
        one = SimpleNamespace(
            key=uuid.uuid4().hex, network="n", layers=(layer,), batch_size=size
        )
        taps = Taps(most)
        look = Look(
            one=one, network=SimpleNamespace(name="n"), taps=taps, input_shape=(1, 2, 2)
        )
        return Batches(look, [f"{i}" for i in range(n)], first=100, guard=guard), taps

    return batched


def _fill(filled, n=20, bad=()):
    """Give it images whose mean is their number, some of them unreadable."""
    seconds = 0.0
    for row in range(n):
        value = np.full((1, 2, 2), row, np.float32)
        given = SourceError("no") if row in bad else {"n": value}
        seconds += filled.add(Input(given, 0))
    return seconds + filled.flush()


def test_smaller_batches_are_filled_up_to_their_own_size(make):
    """Eight, then four, then two at a time; every row is there once."""
    filled, taps = make(Steps([1, 2]))

    seconds = _fill(filled, bad={5, 19})

    expected = np.arange(20, dtype=np.float32)
    expected[[5, 19]] = np.nan
    np.testing.assert_array_equal(filled.values["mean"][:, 0], expected)
    assert taps.widths == [8, 4, 4, 2, 2]
    assert seconds == 2.5
    assert filled.halvings == [
        Halving(row=108, batch_size=4, why="full"),
        Halving(row=116, batch_size=2, why="full"),
    ]


@pytest.mark.parametrize("size", [1, 3, 5, 8, 21])
@pytest.mark.parametrize("most", [1, 2, 4, 50])
def test_whatever_fits_every_row_is_computed_once(size, most, make):
    """Also where half of a batch is no divisor of it."""
    filled, taps = make(Steps([]), size=size, most=most)

    _fill(filled)

    np.testing.assert_array_equal(filled.values["mean"][:, 0], np.arange(20))
    fits = size
    while fits > most:
        fits = max(1, fits // 2)
    assert set(taps.widths) == {fits}
    assert [each.batch_size for each in filled.halvings] == [fits] * (fits != size)
    assert [each.row for each in filled.halvings] == [100] * (fits != size)


def test_an_error_without_words_has_a_name(make):
    """MemoryError often says nothing."""
    filled, _ = make(Steps([]), most=0)

    with pytest.raises(NetworkError, match=r"single image of 1×2×2 \(MemoryError\)"):
        _fill(filled)


def test_only_the_first_line_of_an_error_is_told():
    """PyTorch's have many."""
    assert batches._first_line(RuntimeError("\n one\ntwo")) == "one"
