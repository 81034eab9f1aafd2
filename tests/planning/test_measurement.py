"""Measurements as text, and several of them as one."""

import json
from dataclasses import replace

import pytest

from embedkit.errors import InputError
from embedkit.planning.correction import Factors
from embedkit.planning.costs import Layout, cost
from embedkit.planning.joined import corrected, most_demanding, together
from embedkit.planning.measurement import Forward, Measurement


def test_what_was_written_is_read_again(measured):
    """Every number and shape, also through what JSON makes of tuples."""
    assert Measurement.from_json(measured.to_json()) == measured


def test_keys_and_factors_are_read_again_and_may_lack(measured):
    """Older versions kept neither."""
    known = replace(measured, keys=("a",), factors=Factors(memory=1.5, runs=2))
    assert Measurement.from_json(known.to_json()) == known
    found = json.loads(measured.to_json())
    del found["keys"], found["factors"], found["trials"]

    assert Measurement.from_json(json.dumps(found)) == measured


@pytest.mark.parametrize("join", [together, most_demanding])
def test_several_measurements_are_remembered_under_all_their_keys(measured, join):
    """Each once."""
    keys = [("a",), ("b",), ("a",)]

    assert join([replace(measured, keys=each) for each in keys]).keys == ("a", "b")


@pytest.mark.parametrize(
    "text", ["no JSON", "[]", "{}", '{"format": 1, "networks": [{"forward": []}]}']
)
def test_what_is_no_measurement_is_refused(text):
    """It says what to give."""
    with pytest.raises(InputError, match=r"no measurement .*give what .*to_json wrote"):
        Measurement.from_json(text)


def test_a_measurement_of_another_format_is_refused(measured):
    """It says what to do."""
    text = json.dumps({**json.loads(measured.to_json()), "format": 99})

    with pytest.raises(InputError, match="format 99 and this embedkit reads 1"):
        Measurement.from_json(text)


def test_networks_of_one_run_decode_once_and_write_one_after_the_other(measured):
    """Seconds of a block and of writing add up, those of decoding do not."""
    other = replace(
        measured,
        write_rate=1e8,
        decode_seconds=0.006,
        reserved=1,
        speedup=((1, 1.0),),
        keep_seconds=2e-9,
    )

    both = together([measured, other])

    assert len(both.networks) == 2
    assert both.decode_seconds == 0.006
    assert both.reserved == measured.reserved
    assert both.block_seconds == 2 * measured.block_seconds
    alone = [each.row_bytes / each.write_rate for each in (measured, other)]
    assert both.row_bytes / both.write_rate == pytest.approx(sum(alone))
    assert both.speedup == ((1, 1.0), (2, 1.0), (4, 1.0))
    assert both.keep_seconds == 2e-9


def test_of_unlike_machines_the_most_demanding_numbers_count(measured):
    """The most memory of one, the most seconds of the other, batches that both ran."""
    network = measured.networks[0]
    slow = replace(
        measured,
        reserved=1,
        write_rate=1.0,
        held_seconds=1.0,
        keep_seconds=2e-9,
        networks=(
            replace(
                network,
                loaded=network.loaded + 1,
                loading=7,
                forward=tuple(
                    Forward(batch=b, peak=1, seconds=9.0) for b in (1, 4, 512)
                ),
            ),
        ),
    )

    worst = most_demanding([measured, slow])

    assert worst == most_demanding([slow, measured])
    assert (worst.reserved, worst.write_rate) == (measured.reserved, 1.0)
    assert (worst.held_seconds, worst.keep_seconds) == (1.0, 2e-9)
    assert worst.decode_seconds == measured.decode_seconds
    (net,) = worst.networks
    assert (net.loaded, net.loading) == (network.loaded + 1, 7)
    assert [each.batch for each in net.forward] == [1, 4]
    peaks = {each.batch: each.peak for each in network.forward}
    assert net.forward[1] == Forward(batch=4, peak=peaks[4], seconds=9.0)


@pytest.mark.parametrize("join", [together, most_demanding])
def test_one_alone_is_what_it_is(measured, join):
    """Nothing is rounded or copied."""
    assert join([measured]) is measured


def test_a_correction_makes_all_seconds_longer_and_no_bytes_more(measured):
    """Whoever it is from."""
    layout = Layout(workers=2, threads=1, batch=4, block=64, decode_threads=2)

    def seconds(found):
        return cost(found, layout, n_images=1000, cores=2).seconds

    found = corrected(measured, Factors(time=1.5))

    assert seconds(found) == pytest.approx(1.5 * seconds(measured))
    assert found.row_bytes == measured.row_bytes


def test_unlike_workers_are_as_slow_as_the_slowest(measured):
    """And rehearsed as often as the one that was rehearsed least."""
    slow = replace(measured, pace=1.4, rehearsed=2)

    for join in (most_demanding, together):
        found = join([measured, slow])
        assert (found.pace, found.rehearsed) == (1.4, 0)
