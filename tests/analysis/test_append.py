"""Images added to exact neighbors, against a search anew."""

import numpy as np
import pytest
import xarray as xr

import embedkit as ek
from embedkit.errors import InputError


def _rows(n=500):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 6)).astype(np.float32)
    rows[40:70] = rows[0]
    rows[5], rows[n - 3] = np.nan, np.inf
    rows[[7, n - 7]] = 0
    return rows


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
@pytest.mark.parametrize("old", [30, 400, 499])
def test_equals_a_search_anew_byte_for_byte(as_images, metric, old):
    """Copies, zero rows and rows that are not finite on either side."""
    x = as_images(_rows(), chunk=90)
    before = ek.neighbors(x[:old], n_neighbors=8, metric=metric)

    found = ek.append_neighbors(before, x[:old], new=x[old:])

    wanted = ek.neighbors(x, n_neighbors=8, metric=metric)
    for name in ("indices", "distances"):
        assert found[name].dtype == wanted[name].dtype
        assert found[name].values.tobytes() == wanted[name].values.tobytes()
    assert found["image"].values.tolist() == x["image"].values.tolist()
    assert (
        found["certified"].values.tolist()
        == (found["indices"] >= 0).any("neighbor").values.tolist()
    )
    assert found.attrs["metric"] == metric
    assert found.attrs["n_appended"] == 500 - old


def test_longer_and_larger_rows(as_images, tmp_path):
    """New rows of another size change neither the order nor the proof."""
    rows = np.concatenate([_rows()[:300], 1e6 * _rows()[300:]])
    x = as_images(rows)
    before = ek.neighbors(x[:300], n_neighbors=4, metric="inner_product")

    found = ek.append_neighbors(
        before, x[:300], new=x[300:], scratch=tmp_path / "a" / "b"
    )

    wanted = ek.neighbors(x, n_neighbors=4, metric="inner_product")
    assert (found["indices"] == wanted["indices"]).all()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_on_a_cluster(as_images, client):
    """Workers give the same bytes."""
    x = as_images(_rows())
    before = ek.neighbors(x[:400], n_neighbors=8)

    found = ek.append_neighbors(before, x[:400], new=x[400:])

    wanted = ek.neighbors(x, n_neighbors=8)
    assert found["indices"].values.tobytes() == wanted["indices"].values.tobytes()


def test_rows_without_ids():
    """Ids are not needed."""
    x = xr.DataArray(_rows(), dims=("image", "feature"))

    found = ek.append_neighbors(
        ek.neighbors(x[:450], n_neighbors=3), x[:450], new=x[450:]
    )

    assert found.sizes == {"image": 500, "neighbor": 3}


def test_refuses_what_does_not_fit(as_images):
    """Each reason has its message."""
    x = as_images(_rows())
    nn = ek.neighbors(x[:400], n_neighbors=5)

    with pytest.raises(InputError, match="of 400 images and 399 old rows"):
        ek.append_neighbors(nn, x[:399], new=x[400:])
    with pytest.raises(InputError, match="two orders of images"):
        ek.append_neighbors(nn, x[1:401], new=x[401:])
    with pytest.raises(InputError, match=r"exact=False; run neighbors with recall=1.0"):
        ek.append_neighbors(nn.assign_attrs(exact=False), x[:400], new=x[400:])
    with pytest.raises(InputError, match=r"6 features, float32, and new ones .* of 5"):
        ek.append_neighbors(nn, x[:400], new=x[400:, :5])
    with pytest.raises(InputError, match="'img0399' among the old rows and the new"):
        ek.append_neighbors(nn, x[:400], new=x[399:])


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
@pytest.mark.parametrize("row", [3, 5])
def test_refuses_neighbors_of_rows_that_have_changed(as_images, metric, row):
    """The same ids, and one row that is another now, or was not finite before."""
    rows = _rows()
    before = ek.neighbors(as_images(rows[:400]), n_neighbors=8, metric=metric)
    rows[row] = np.linspace(1, 2, 6)
    x = as_images(rows)

    with pytest.raises(
        InputError, match=r"not those of the old rows \(image 'img\d+' is .*run neigh"
    ):
        ek.append_neighbors(before, x[:400], new=x[400:])


def test_neighbors_of_almost_nothing_grow():
    """The only finite row has no neighbors yet, and that is no change."""
    rows = np.full((5, 3), np.nan, np.float32)
    rows[1], rows[3:] = 1, [[2, 2, 2], [4, 4, 4]]
    x = xr.DataArray(rows, dims=("image", "feature"))
    before = ek.neighbors(x[:3], n_neighbors=2)

    found = ek.append_neighbors(before, x[:3], new=x[3:])

    assert found["indices"].values.tolist()[1] == [3, 4]


def test_rows_that_changed_are_told_by_number():
    """Where there are no ids."""
    x = xr.DataArray(_rows(), dims=("image", "feature"))
    before = ek.neighbors(x[:400], n_neighbors=3)
    x = x.copy()
    x[0] += 1

    with pytest.raises(InputError, match=r"\(image '\d+' is the first found\)"):
        ek.append_neighbors(before, x[:400], new=x[400:])
