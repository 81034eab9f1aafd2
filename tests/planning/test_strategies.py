"""The names of the ways to compute several layers."""

import pytest

from embedkit.errors import InputError
from embedkit.planning.strategies import check_strategy


@pytest.mark.parametrize("strategy", ["auto", "fused", "staged", "lazy"])
def test_a_strategy_is_one_of_four(strategy):
    """It comes back as it was given."""
    assert check_strategy(strategy) == strategy


def test_another_one_is_refused():
    """The nearest way is named."""
    with pytest.raises(InputError, match=r"computed 'lasy'. Did you mean 'lazy'"):
        check_strategy("lasy")
