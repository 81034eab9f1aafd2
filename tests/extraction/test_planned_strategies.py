"""Strategies in plans, and runs that follow them: the same numbers whichever it is."""

from dataclasses import replace

import dask
import numpy as np
import pytest
import torch
from torch import nn

import embedkit as ek
from embedkit.errors import InputError, PlanError
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans import followed, planned
from embedkit.extraction.strategy.links import Chains
from embedkit.extraction.understood import understood
from embedkit.planning.plan import Plan
from embedkit.store.plans import read_plan

MIB = 2**20
ALL = ("fused", "staged", "lazy")
MAPS = {"layers": ["conv1", "relu", "add", "fc"], "pool": "avg"}


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Rough numbers of a process that is small, so that maps are what counts."""

    def measure(looks, *, n_images=None, where=None, refresh=False):
        found = rough(looks)
        networks = [
            replace(
                each, loading=0, forward=_less(each.forward), alone=_less(each.alone)
            )
            for each in found.networks
        ]
        return replace(found, reserved=MIB, decoding=1, networks=tuple(networks))

    for each in (planned, followed):
        monkeypatch.setattr(each, "measure", measure)
    with dask.config.set(scheduler="synchronous"):
        yield


def _less(passes):
    """Return passes without what the rough numbers add to each of them."""
    fixed = 2 * passes[0].peak - passes[1].peak if passes else 0
    return tuple(replace(each, peak=each.peak - fixed) for each in passes)


@pytest.fixture
def tight(images, network):
    """A limit that one pass over all maps does not keep, and a layer at a time does."""
    asked = {"layers": "all", "pool": "none", "batch_size": 1}
    plans = {
        name: ek.plan(images, network, strategy=name, block=1, **asked) for name in ALL
    }
    needed = {name: each.needed_mem for name, each in plans.items()}
    assert needed["lazy"] < needed["fused"]
    return {**asked, "memory_limit": (needed["lazy"] + needed["fused"]) // 2}


def test_what_does_not_fit_in_one_pass_is_planned_and_run(
    images, network, tight, tmp_path
):
    """The plan says which strategy, the run has it, and the numbers are the same."""
    plan = ek.plan(images, network, **tight)
    limit = tight.pop("memory_limit")

    store = ek.extract(images, network, tmp_path / "s.zarr", plan=plan, **tight)

    plain = ek.extract(images, network, tmp_path / "p.zarr", plan=None, **tight)
    assert plan.strategy in ("staged", "lazy")
    assert plan.needed_mem <= limit
    assert plan.alternatives[0].seconds is None
    (about,) = store.info()["networks"].values()
    assert about["strategy"] == plan.strategy
    assert about["strategy_why"].startswith(f"planned: {plan.strategy}: ")
    assert len(store.schema.passes) == len(plain)
    for name in plain:
        assert store[name].values.tobytes() == plain[name].values.tobytes()


def test_extract_plans_by_itself(images, network, tight, tmp_path):
    """With the memory that it may have, and without a word about strategies."""
    store = ek.extract(images, network, tmp_path / "s.zarr", **tight)

    text = read_plan(store.files, store.schema.passes[0].key)
    (about,) = store.info()["networks"].values()
    assert Plan.from_json(text).strategy == about["strategy"] != "fused"


@pytest.mark.parametrize("strategy", ALL)
def test_the_strategy_of_a_plan_is_followed(images, network, tmp_path, strategy):
    """Files are as many as it says; the bits are those of one pass."""
    plan = ek.plan(images, network, strategy=strategy, block=8, batch_size=4, **MAPS)

    store = ek.extract(images, network, tmp_path / "s.zarr", plan=plan, **MAPS)

    plain = ek.extract(
        images, network, tmp_path / "p.zarr", plan=None, batch_size=4, **MAPS
    )
    assert plan.strategy == strategy
    assert len(store.schema.passes) == (1 if strategy == "fused" else 4)
    assert plan.files == sum(each.is_file() for each in store.path.rglob("*"))
    for name in plain:
        assert store[name].values.tobytes() == plain[name].values.tobytes()


def test_two_strategies_that_contradict_each_other(images, network, tmp_path):
    """It is said what the plan is for; "auto" contradicts nothing."""
    plan = ek.plan(images, network, strategy="lazy", **MAPS)

    with pytest.raises(
        InputError, match=r"is for strategy='lazy' and 'staged' was asked.*plan again"
    ):
        ek.extract(
            images, network, tmp_path / "s", plan=plan, strategy="staged", **MAPS
        )

    assert not (tmp_path / "s").exists()
    for at, strategy in enumerate(("auto", "lazy")):
        store = ek.extract(
            images, network, tmp_path / f"{at}", plan=plan, strategy=strategy, **MAPS
        )
        assert len(store.schema.passes) == 4


def test_a_named_strategy_is_planned(images, network, tmp_path, monkeypatch):
    """By `extract` as well, where it makes a plan; what was asked for is told."""
    monkeypatch.setattr(followed, "LONG", 0.0)

    store = ek.extract(images, network, tmp_path / "s", strategy="lazy", **MAPS)

    plan = Plan.from_json(read_plan(store.files, store.schema.passes[0].key))
    assert plan.strategy == "lazy"
    assert [each.why for each in plan.alternatives if each.chosen] == ["asked for"]


@pytest.mark.parametrize("strategy", ["staged", "lazy"])
def test_what_was_begun_goes_on_so(images, network, tmp_path, strategy):
    """A stopped run is planned as it was begun; with one pass it cannot be otherwise."""
    plan = ek.plan(images, network, strategy=strategy, block=8, **MAPS)
    plan = replace(plan, window=1)

    def stop(progress):
        if progress.images_done >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ek.extract(images, network, tmp_path / "s", plan=plan, on_progress=stop, **MAPS)

    rest = ek.plan(images, network, path=tmp_path / "s", **MAPS)
    assert rest.strategy == strategy
    store = ek.extract(images, network, tmp_path / "s", plan=rest, **MAPS)
    assert store.complete


def test_what_was_begun_in_one_pass_is_finished_so(
    images, network, tmp_path, monkeypatch
):
    """Whatever is asked for new layers; to plan it otherwise is an error."""
    plan = replace(ek.plan(images, network, block=8, **MAPS), window=1)

    def stop(progress):
        if progress.images_done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ek.extract(images, network, tmp_path / "s", plan=plan, on_progress=stop, **MAPS)

    with pytest.raises(PlanError, match="begun with several layers in one pass"):
        ek.plan(images, network, path=tmp_path / "s", strategy="lazy", **MAPS)
    assert ek.plan(images, network, path=tmp_path / "s", **MAPS).strategy == "fused"
    monkeypatch.setattr(followed, "LONG", 0.0)
    store = ek.extract(images, network, tmp_path / "s", strategy="lazy", **MAPS)
    assert store.complete


class Untraceable(nn.Module):
    """Looks at its values."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.first(x)
        return self.second(x) if x.sum() > 0 else self.second(-x)


def test_a_network_without_a_graph_is_never_staged(images):
    """The reason stands in the plan; asked for by name it is refused."""
    odd = ek.load_network(
        Untraceable(),
        transform=lambda image: torch.from_numpy(
            np.asarray(image.resize((8, 8)), np.float32).transpose(2, 0, 1).copy()
        ),
        name="odd",
    )

    plan = ek.plan(images, odd, layers="all")

    assert "odd cannot be traced" in plan.alternatives[1].why
    with pytest.raises(InputError, match="'staged' was asked for, and odd cannot"):
        ek.plan(images, odd, layers="all", strategy="staged")


def test_links_follow_the_graph(images, network):
    """A layer within a shortcut begins from the images, as the run has it."""
    looks = understood(
        images,
        network,
        layers=["conv1", "conv2", "fc"],
        pool="avg",
        dtype="float32",
        backend="torch",
        decode="exact",
        batch_size=None,
    )
    (measured,) = rough(looks).networks

    links = Chains(looks)(measured)

    written = [link.layer.name for link in links if not link.is_map]
    assert written == ["conv1", "conv2", "fc"]
    assert all(link.layer.itemsize == 4 for link in links)
    for link in links:
        if link.start is not None:
            assert network.can_start(link.start.name, [link.layer.name])
