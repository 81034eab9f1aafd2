"""Settings from Dask's configuration."""

import dask
import pytest

from embedkit.config import Settings, settings
from embedkit.errors import InputError


def test_the_defaults_are_those_of_the_yaml_file():
    """Without any configuration the shipped values hold."""
    assert settings() == Settings(batch_size=32, decode_threads=2, window=3, retries=2)


def test_dask_configuration_overrides_a_default():
    """A setting is an ordinary Dask configuration key."""
    with dask.config.set({"embedkit.batch-size": 64}):
        assert settings().batch_size == 64
    assert settings().batch_size == 32


@pytest.mark.parametrize("value", [0, -1, "many", 2.5, True])
def test_a_useless_value_is_refused_by_name(value):
    """The message names the key, the value and what to give."""
    with (
        dask.config.set({"embedkit.batch-size": value}),
        pytest.raises(
            InputError, match=r"embedkit\.batch-size is .*: give a whole number of 1"
        ),
    ):
        settings()


def test_no_retries_is_a_setting():
    """Zero retries is allowed, unlike zero threads."""
    with dask.config.set({"embedkit.retries": 0}):
        assert settings().retries == 0
