"""The suite is as violent as it says."""

import pytest


def test_at_least_thirty_processes_were_killed(request, kills):
    """Every kill was recorded where it was seen to work."""
    here = request.path.parent
    ran = {item.path.name for item in request.session.items if item.path.parent == here}
    if ran != {file.name for file in here.glob("test_*.py")}:
        pytest.skip("only a part of the suite runs")

    assert len(kills) >= 30
    assert len(set(kills)) == len(kills)  # a number alone may come again
