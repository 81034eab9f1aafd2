"""How layers are compressed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.codecs import (
    CODECS,
    NOTICEABLE,
    USUAL,
    WriteRate,
    choose_codec,
    suggest_float16,
)

rates = st.floats(1e6, 1e9)
measured = st.dictionaries(
    st.sampled_from(CODECS),
    st.builds(WriteRate, rates, st.floats(0.05, 1.2)),
    min_size=1,
)
MEASURED = {
    "none": WriteRate(400e6, 1.0),
    "zstd-1": WriteRate(50e6, 0.40),
    "zstd-3": WriteRate(30e6, 0.39),
    "blosc-lz4": WriteRate(100e6, 0.85),
}


@pytest.mark.parametrize(
    ("needed", "expected"),
    [(0.0, "zstd-1"), (40e6, "zstd-1"), (60e6, "blosc-lz4"), (200e6, "none")],
)
def test_the_faster_writing_has_to_be_the_less_is_compressed(needed, expected):
    """Of those that are fast enough, the smallest; of nearly equal ones the fastest."""
    assert choose_codec(0.6, MEASURED, needed_rate=needed).codec == expected


def test_where_none_is_fast_enough_the_fastest_is_taken():
    """And it says so."""
    found = choose_codec(0.6, MEASURED, needed_rate=2**30)

    assert found.codec == "none"
    assert "none writes the 1.0 GiB/s that are needed" in found.why


def test_the_reason_has_the_numbers_of_all():
    """The chosen one first."""
    why = choose_codec(0.63, MEASURED, needed_rate=45e6).why

    assert why.startswith("63% zeros; bytes left: zstd-1 0.40 at 47.7 MiB/s, blosc-lz4")
    assert why.endswith("; 1 that would hold the run up left out")


@given(st.floats(0, 1), measured, st.floats(0, 1e9))
def test_no_other_would_be_better(zeros, found, needed):
    """None that is fast enough is noticeably smaller; none as small is faster."""
    codec = choose_codec(zeros, found, needed_rate=needed).codec
    chosen = found[codec]
    fast = [each for each in found.values() if each.rate >= needed]

    if chosen.rate < needed:
        assert not fast
        assert chosen.rate == max(each.rate for each in found.values())
    else:
        smallest = min(each.ratio for each in fast)
        assert chosen.ratio <= (1 + NOTICEABLE) * smallest
        assert codec == USUAL or not any(
            each.rate > chosen.rate and each.ratio <= (1 + NOTICEABLE) * smallest
            for each in fast
        )


@given(st.floats(0, 1), measured, st.floats(0, 1e9))
def test_the_usual_codec_stays_where_it_is_nearly_as_good(zeros, found, needed):
    """Timings of a busy machine do not make stores differ."""
    fast = {k: v for k, v in found.items() if v.rate >= needed}
    smallest = min((each.ratio for each in fast.values()), default=0)

    codec = choose_codec(zeros, found, needed_rate=needed).codec

    if USUAL in fast and fast[USUAL].ratio <= (1 + NOTICEABLE) * smallest:
        assert codec == USUAL


@given(measured, st.floats(0, 1e9), st.sampled_from([0.25, 4.0]))
def test_a_faster_machine_with_more_to_write_chooses_alike(found, needed, factor):
    """Only proportions count."""
    scaled = {k: WriteRate(v.rate * factor, v.ratio) for k, v in found.items()}

    before = choose_codec(0.5, found, needed_rate=needed).codec
    after = choose_codec(0.5, scaled, needed_rate=needed * factor).codec

    assert before == after


@given(measured)
def test_the_order_of_the_measurements_says_nothing(found):
    """A choice can be made again."""
    turned = dict(reversed(found.items()))

    assert choose_codec(0.5, found) == choose_codec(0.5, turned)


@pytest.mark.parametrize(("zeros", "expected"), [(0.69, USUAL), (0.0, "blosc-zstd")])
def test_without_a_measurement_the_zeros_decide(zeros, expected):
    """Zstandard for what a ReLU gave, shuffled bytes for dense numbers."""
    found = choose_codec(zeros, {})

    assert found.codec == expected
    assert found.why == f"{zeros:.0%} zeros; no codec was tried"


def test_half_the_bytes_are_suggested_with_what_they_cost():
    """It is for the user to choose."""
    assert suggest_float16(2.4e-4, tolerance=1e-3) == (
        "dtype='float16' would halve it and round by 2.4e-04 of a row's largest number, "
        "within the tolerance of 1e-03"
    )
    assert "beyond the tolerance" in suggest_float16(2.4e-4, tolerance=1e-4)
    assert "beyond 65,504" in suggest_float16(math.inf, tolerance=1e-4)
