"""Lines through measured points."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError
from embedkit.planning.fit import Line, between, fit_line

POINTS = st.lists(
    st.tuples(st.integers(1, 512), st.integers(0, 10**12)), min_size=1, max_size=12
)


@given(POINTS, st.integers(1, 2000), st.integers(0, 2000))
def test_no_measured_point_lies_above_the_line(points, batch, more):
    """Whatever was measured, the line projects at least that, and never falls."""
    line = fit_line(points)

    assert all(line.at(images) >= peak for images, peak in points)
    assert line.at(batch + more) >= line.at(batch) >= 0
    assert (line.fixed, line.per_image) >= (0, 0)


@given(
    st.integers(0, 10**10),
    st.integers(0, 10**8),
    st.lists(st.integers(1, 256), min_size=2, unique=True),
)
def test_a_line_without_noise_is_found_exactly(fixed, per_image, sizes):
    """Points of a line give that line."""
    line = fit_line([(size, fixed + per_image * size) for size in sizes])

    assert line == Line(fixed=fixed, per_image=per_image)


def test_noise_raises_the_line_by_no_more_than_itself():
    """Peaks of a hundred images with 5 MB of noise are met within that."""
    noise = [0, 5, 1, 4, 0, 3]
    points = [(2**at, (100 + 8 * 2**at + up) * 10**6) for at, up in enumerate(noise)]

    line = fit_line(points)

    assert max(line.at(batch) - peak for batch, peak in points) < 10 * 10**6


def test_one_batch_size_is_read_both_ways():
    """Of one size, smaller batches cost as much and larger ones in proportion more."""
    assert fit_line([(8, 790), (8, 800)]) == Line(fixed=800, per_image=100)


@pytest.mark.parametrize("points", [[], [(0, 4)], [(1, -1)]])
def test_no_measurement_is_refused(points):
    """A line needs a batch of one image or more."""
    with pytest.raises(InputError, match="measure one batch or more"):
        fit_line(points)


@given(
    st.dictionaries(st.integers(1, 512), st.floats(0, 100), min_size=1),
    st.floats(1, 1000),
)
def test_between_points_is_between_their_values(points, at):
    """No value is outside those measured, and measured ones are kept."""
    known = list(points.items())

    found = between(known, at)

    assert min(points.values()) - 1e-9 <= found <= max(points.values()) + 1e-9
    assert all(between(known, x) == y for x, y in known)
