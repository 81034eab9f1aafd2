"""Codecs of a plan's layers, and what writing takes with them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.codecs import (
    CODECS,
    USUAL,
    CodecChoice,
    LayerTrial,
    WriteRate,
    most_careful,
)
from embedkit.planning.correction import Factors
from embedkit.planning.joined import corrected, most_demanding, together
from embedkit.planning.layer_codecs import STORED, layer_codecs, with_codecs
from embedkit.planning.measurement import Measurement
from embedkit.planning.plan import Plan, make_plan

SPARSE = {
    "none": WriteRate(400e6, 1.0),
    "zstd-1": WriteRate(80e6, 0.4),
    "blosc-zstd": WriteRate(90e6, 0.6),
}
DENSE = {
    "none": WriteRate(400e6, 1.0),
    "zstd-1": WriteRate(80e6, 0.93),
    "blosc-zstd": WriteRate(160e6, 0.75),
}


def _trial(layer, rates, zeros=0.0):
    return LayerTrial(layer=layer, zeros=zeros, rates=rates, float16="halved")


@pytest.fixture
def tried(measured):
    """A measurement whose first layer is sparse, and whose last one is dense."""
    trials = (_trial("layer0", SPARSE, 0.66), _trial("layer3", DENSE))
    return replace(measured, trials=trials)


def test_every_layer_has_the_codec_of_its_own_trial(question, tried):
    """Those of which nothing is known have none; names of no layer are left out."""
    asked = replace(question, measured=tried)

    found = layer_codecs(asked)

    assert {name: each.codec for name, each in found.items()} == {
        "layer0": "zstd-1",
        "layer3": "blosc-zstd",
    }
    assert found["layer0"].why.startswith("66% zeros; bytes left: zstd-1 0.40")
    assert layer_codecs(question) == {}
    begun = {"layer3": "zstd-3", "layer1": "none", "gone": "none"}
    kept = layer_codecs(replace(asked, codecs=begun))
    assert kept["layer3"] == CodecChoice("zstd-3", STORED)
    assert kept["layer1"] == CodecChoice("none", STORED)
    assert kept.keys() == {"layer0", "layer1", "layer3"}


def test_writing_may_take_a_quarter_of_a_task(question, measured, layers):
    """Maps that are written faster than they are computed need a fast codec."""
    seconds = measured.forward_seconds(8)  # the best batch
    entries = round(0.25 * seconds * 100e6 / 4)  # 100 MB/s are needed
    (maps,) = (replace(layers[0], shape=(entries,)),)
    network = replace(measured.networks[0], layers=(maps,), flops=maps.flops)
    for rate, expected in ((80e6, "none"), (300e6, "zstd-1")):
        rates = {**SPARSE, "zstd-1": WriteRate(rate, 0.4)}
        found = replace(
            measured, networks=(network,), trials=(_trial("layer0", rates),)
        )

        choice = layer_codecs(replace(question, measured=found))["layer0"]

        assert choice.codec == expected


def test_a_plan_names_codecs_and_what_to_expect(question, tried):
    """Bytes before compression stay exact; where a layer was not tried nothing is said."""
    plain = make_plan(question)
    plan = make_plan(replace(question, measured=tried))

    first, *middle, last = plan.layers
    assert plan.nbytes == plain.nbytes
    assert (first.codec, last.codec) == ("zstd-1", "blosc-zstd")
    assert first.expected == round(0.4 * first.nbytes)
    assert last.expected == round(0.75 * last.nbytes)
    assert {(each.codec, each.why, each.expected) for each in middle} == {
        (USUAL, "", None)
    }
    assert {each.dtype for each in plan.layers} == {"float32"}
    assert (first.float16, middle[0].float16) == ("halved", "")
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_tells_codecs_in_few_words(question, tried):
    """A line for each layer, and why for two codecs; all of it once all are known."""
    plan = make_plan(replace(question, measured=tried))

    lines = plan.describe().splitlines()

    assert "written, before compression:" in lines
    (layer,) = (each for each in lines if each.startswith("  layer3 "))
    assert layer.endswith(" × 512; blosc-zstd, 73.2 MiB expected")
    (other,) = (each for each in lines if each.startswith("  layer1 "))
    assert other.endswith(" × 128")
    why = "blosc-zstd for layer3: 0% zeros; bytes left: blosc-zstd 0.75 at 152.6 MiB/s"
    assert [each[: len(why)] for each in lines if " for layer3" in each] == [why]
    assert sum("bytes left" in each for each in lines) == 2
    assert len(lines) < 30
    assert max(map(len, lines)) < 130
    html = plan._repr_html_()
    assert "<td>blosc-zstd, 73.2 MiB expected</td>" in html
    assert why in html
    every = tuple(_trial(f"layer{at}", DENSE) for at in range(4))
    whole = make_plan(replace(question, measured=replace(tried, trials=every)))
    assert "before compression (137.3 MiB expected after it):" in whole.describe()


@given(st.dictionaries(st.sampled_from(CODECS), st.floats(1e6, 1e9), min_size=1))
def test_writing_takes_what_the_chosen_codec_took(measured, rates):
    """Of one layer exactly in proportion; where the usual one was not tried, as it was."""
    layer = measured.layers[0]
    network = replace(measured.networks[0], layers=(layer,))
    tried = {codec: WriteRate(rate, 0.5) for codec, rate in rates.items()}
    one = replace(measured, networks=(network,), trials=(_trial(layer.name, tried),))
    for codec in rates:
        found = with_codecs(one, {layer.name: CodecChoice(codec, "")})

        times = rates[codec] / rates[USUAL] if USUAL in rates else 1.0
        assert found.write_rate == pytest.approx(one.write_rate * times)
        assert replace(found, write_rate=1.0) == replace(one, write_rate=1.0)
    assert with_codecs(one, {}) is one


def test_faster_writing_is_in_the_seconds_of_the_plan(question, tried):
    """The stage and the rate agree."""
    plain = make_plan(question)
    plan = make_plan(replace(question, measured=tried))

    assert plan.stages["write"] < plain.stages["write"]
    assert plan.stages["forward"] == plain.stages["forward"]


def test_a_slower_machine_chooses_alike(question, tried):
    """All seconds are corrected, those of the trials too."""
    slower = corrected(tried, Factors(time=1.7))

    before = layer_codecs(replace(question, measured=tried))
    after = layer_codecs(replace(question, measured=slower))

    assert {name: each.codec for name, each in after.items()} == {
        name: each.codec for name, each in before.items()
    }
    assert slower.trials[0].rates["none"].rate == pytest.approx(400e6 / 1.7)


def test_of_unlike_machines_the_slowest_and_largest_count(tried):
    """Of codecs and layers that all have tried."""
    trial = _trial(
        "layer0", {"none": WriteRate(9e8, 1.1), "zstd-1": WriteRate(1e6, 0.3)}
    )
    other = replace(tried, trials=(trial,))

    (found,) = most_demanding([tried, other]).trials

    assert found == most_careful([tried.trials[0], trial])
    assert found.rates == {"none": WriteRate(400e6, 1.1), "zstd-1": WriteRate(1e6, 0.4)}
    assert found.zeros == 0.0
    assert together([tried, other]).trials == (*tried.trials, trial)


def test_trials_are_read_again(tried):
    """Every rate and ratio."""
    assert Measurement.from_json(tried.to_json()) == tried
