"""Three ways to compute several layers, and the choice between them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError, PlanError
from embedkit.planning.measurement import LayerSize
from embedkit.planning.strategies import Rates, strategy_costs, worth_reading
from embedkit.planning.strategy_choice import choose_strategy

RATES = Rates(image_seconds=0.006, flops_rate=1e11, read_rate=4e8, write_rate=2e8)

SIZES = st.builds(
    LayerSize,
    name=st.just("layer"),
    shape=st.tuples(st.integers(1, 4096)),
    itemsize=st.sampled_from([2, 4]),
    flops=st.integers(1, 10**11),
    raw_entries=st.integers(4096, 10**6),
    channels=st.integers(1, 4096),
)


def _stack(*gmacs):
    """Layers whose prefixes take so many billions of multiplications."""
    return [
        LayerSize(
            name=f"layer{at}",
            shape=(8,),
            itemsize=4,
            flops=round(2e9 * each),
            raw_entries=10_000,
            channels=8,
        )
        for at, each in enumerate(gmacs)
    ]


@given(st.lists(SIZES, min_size=1, max_size=6))
def test_the_fused_way_repeats_nothing(layers):
    """It has the operations of the deepest layer, and lazy those of all prefixes."""
    fused, staged, lazy = strategy_costs(layers, RATES)

    deepest = max(each.flops for each in layers)
    assert fused.flops == staged.flops == deepest
    assert lazy.flops == sum(each.flops for each in layers)
    assert fused.seconds <= min(staged.seconds, lazy.seconds) * (1 + 1e-12)
    assert lazy.buffer_bytes <= fused.buffer_bytes


@given(SIZES)
def test_of_one_layer_all_ways_are_one(layer):
    """There is nothing to repeat and nothing to keep."""
    fused, staged, lazy = strategy_costs([layer], RATES)

    assert fused.seconds == staged.seconds == lazy.seconds
    assert staged.scratch_bytes == 0


def test_rates_are_those_that_were_measured(measured):
    """The deepest layer's operations take as long as its forward pass did."""
    network = measured.networks[0]

    rates = Rates.of(measured, network, batch=8)

    assert 3600e6 / rates.flops_rate == pytest.approx(network.seconds(8))
    assert rates.image_seconds == 0.006


def test_a_network_of_unknown_work_has_no_rate(measured, layers):
    """Without operations the ways differ by images and bytes alone."""
    unknown = tuple(replace(each, flops=0) for each in layers)
    network = replace(measured.networks[0], layers=unknown)

    rates = Rates.of(measured, network, batch=8)

    assert {each.forward for each in strategy_costs(unknown, rates)} == {0.0}


def test_lazy_has_the_redundancy_of_the_prefixes():
    """Three equal layers of VGG-16 cost threefold, as they do in the paper."""
    fused, _, lazy = strategy_costs(_stack(15.2, 15.4, 15.5), RATES)

    assert lazy.forward / fused.forward == pytest.approx(2.97, abs=0.01)


def test_staged_writes_and_reads_the_maps():
    """Every map but the last is stored, pooled and gone on from; two lie there at a time."""
    layers = [
        replace(each, raw_entries=size)
        for each, size in zip(_stack(1, 2, 3), (300, 200, 100), strict=True)
    ]

    staged = strategy_costs(layers, RATES)[1]

    assert staged.scratch_bytes == 4 * (300 + 200)
    assert staged.read == pytest.approx(2 * 4 * 500 / 4e8)
    assert staged.write == pytest.approx((3 * 32 + 4 * 500) / 2e8)


def test_maps_that_were_asked_for_are_written_once():
    """Where the raw map is the stored layer, the staged way writes nothing besides."""
    layers = [replace(each, shape=(10_000,)) for each in _stack(1, 2)]

    fused, staged, _ = strategy_costs(layers, RATES)

    assert staged.scratch_bytes == 0
    assert staged.write == fused.write
    assert staged.read == pytest.approx(4 * 10_000 / 4e8)


def test_what_is_impossible_is_not_chosen():
    """Be it the cheapest or the one asked for; the line says why."""
    why = {"fused": "this cannot be", "lazy": "nor this"}

    chosen = choose_strategy(_stack(1, 2), RATES, n_images=10, impossible=why)

    assert chosen.strategy == "staged"
    assert chosen.explanation.splitlines()[0].endswith("; this cannot be")
    with pytest.raises(PlanError, match=r"no way .* fits: fused this cannot be: allow"):
        choose_strategy(
            _stack(1, 2), RATES, n_images=10, strategy="fused", impossible=why
        )


def test_auto_says_what_every_way_takes():
    """The fused way wins and the explanation has a line for each."""
    chosen = choose_strategy(_stack(1, 2, 3), RATES, n_images=1000)

    first, second, third = chosen.explanation.splitlines()
    assert chosen.strategy == "fused"
    assert first.startswith("fused: 1.1 min on one thread (images 6 s, forward 1.0 min")
    assert first.endswith("chosen")
    assert second.startswith("staged: ")
    assert second.endswith("slower")
    assert third.startswith("lazy: 2.3 min")


def test_a_limit_on_rows_leaves_the_lazy_way():
    """Where neither the rows of all layers fit nor a map, one pooled layer does."""
    layers = [
        replace(each, shape=(10_000,), raw_entries=20_000) for each in _stack(1, 2)
    ]

    chosen = choose_strategy(layers, RATES, n_images=10, buffer_limit=50_000)

    assert chosen.strategy == "lazy"
    assert "fused: " in chosen.explanation
    assert "holds 78.1 KiB of rows an image, 48.8 KiB allowed" in chosen.explanation


def test_equally_cheap_ways_are_told_apart():
    """Of one layer the fused way is taken and no other is called slower."""
    chosen = choose_strategy(_stack(1), RATES, n_images=10)

    assert [line.rpartition("; ")[2] for line in chosen.explanation.splitlines()] == [
        "chosen",
        "no faster",
        "no faster",
    ]


@pytest.mark.parametrize("strategy", ["fused", "staged", "lazy"])
def test_a_way_that_is_asked_for_is_taken(strategy):
    """Whatever it costs."""
    chosen = choose_strategy(_stack(1, 2), RATES, n_images=9, strategy=strategy)

    assert chosen.strategy == strategy


def test_a_way_that_does_not_fit_is_refused():
    """Disk for the maps is a limit of the staged way."""
    with pytest.raises(PlanError, match=r"staged needs 390.6 KiB of disk besides, 9 B"):
        choose_strategy(
            _stack(1, 2), RATES, n_images=10, strategy="staged", scratch_limit=9
        )


def test_no_such_way_and_no_layer_are_refused():
    """The nearest way is named."""
    with pytest.raises(InputError, match=r"computed 'lasy'. Did you mean 'lazy'"):
        choose_strategy(_stack(1), RATES, n_images=1, strategy="lasy")
    with pytest.raises(InputError, match="no layer is to be computed"):
        choose_strategy([], RATES, n_images=1)


@pytest.mark.parametrize(
    ("raw_entries", "flops", "worth"),
    [(10**5, 10**10, True), (10**9, 10**9, False)],
)
def test_a_map_is_read_where_that_is_sooner(raw_entries, flops, worth):
    """Half a megabyte beats ten billion operations, four gigabytes do not."""
    assert worth_reading(4 * raw_entries, flops, RATES) is worth
