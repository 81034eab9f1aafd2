"""Building a pipeline computes nothing."""

import dask
import numpy as np
import pytest

import embedkit as ek
from embedkit.networks.bundled.digits_data import digits_split


class _ComputedError(Exception):
    pass


def _raise(*_args, **_kwargs):
    raise _ComputedError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store of 120 digits and their labels."""
    split = digits_split()
    pixels = np.repeat(split.test_images[:120, ..., None], 3, axis=-1)
    path = tmp_path_factory.mktemp("lazy") / "digits.zarr"
    ek.extract(pixels, "embedkit/digits", path, layers="stages")
    return path


def test_a_whole_pipeline_is_built_without_computing(path):
    """From the neighbors, which are found at once, to the map: later if asked for."""
    with dask.config.set(scheduler=_raise):
        x = ek.open_store(path)["stage3"]
    nn = ek.neighbors(x, n_neighbors=10, metric="cosine")
    with dask.config.set(scheduler=_raise):
        graph = ek.neighbor_graph(nn)
        communities = ek.communities(graph)
        clusters = ek.cluster(x, neighbors=nn)
        xy = ek.project(graph)

        with pytest.raises(_ComputedError):
            xy.compute()

    assert nn["indices"].shape == (120, 10)
    assert communities.shape == clusters["label"].shape == (120,)
    assert xy.shape == (120, 2)


@pytest.mark.slow
def test_the_pipeline_computes_when_asked(path):
    """The same objects give numbers with an ordinary scheduler."""
    x = ek.open_store(path)["stage3"]
    nn = ek.neighbors(x, n_neighbors=10)

    communities = ek.communities(ek.neighbor_graph(nn)).compute()

    assert communities.min() == 0
    assert 2 <= communities.max() < 60
