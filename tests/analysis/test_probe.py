"""Probes against a loop written by hand with sklearn."""

from __future__ import annotations

import json

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
)
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from embedkit.analysis import probe as module
from embedkit.analysis.probe import probe
from embedkit.errors import InputError


@pytest.fixture
def noisy() -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 40 that overlap; rows 5 and 50 are unreadable."""
    rng = np.random.default_rng(0)
    labels = np.array(["ant", "bee", "cat"])[rng.permutation(np.arange(120) % 3)]
    rows = (
        rng.normal(size=(120, 6))
        + (labels == "bee")[:, None]
        - (labels == "cat")[:, None]
    )
    rows[[5, 50]] = np.nan
    return rows.astype(np.float32), labels


@pytest.fixture
def store(noisy, as_images) -> dict[str, xr.DataArray]:
    """Three layers: two features, all features, and a map-shaped one."""
    rows, labels = noisy
    wide = as_images(rows, labels, chunk=50)
    maps = np.repeat(np.repeat(rows[:, :, None, None], 2, axis=2), 3, axis=3)
    tilt = np.linspace(-1, 1, 6).reshape(2, 3)  # averages to nothing
    conv = xr.DataArray(
        maps + tilt, dims=("image", "channel", "y", "x"), coords=wide.coords
    )
    return {"stem": wide[:, :2], "block.1": wide, "block.2": conv.chunk(image=40)}


def scores_by_hand(
    rows: np.ndarray, labels: np.ndarray, folds
) -> dict[str, list[float]]:
    """The study as one would write it on one evening."""
    found: dict[str, list[float]] = {
        "accuracy": [],
        "balanced_accuracy": [],
        "f1": [],
        "hits": [],
    }
    for train, test in folds:
        scaler = StandardScaler().fit(rows[train])
        model = LogisticRegression(max_iter=5000).fit(
            scaler.transform(rows[train]), labels[train]
        )
        predicted = model.predict(scaler.transform(rows[test]))
        found["accuracy"].append(accuracy_score(labels[test], predicted))
        found["balanced_accuracy"].append(
            balanced_accuracy_score(labels[test], predicted)
        )
        found["f1"].append(f1_score(labels[test], predicted, average="macro"))
        found["hits"].append(int(np.sum(labels[test] == predicted)))
    return found


def test_equals_a_loop_by_hand(store, noisy) -> None:
    """Every score of every layer and fold, to 1e-12."""
    rows, labels = noisy
    kept = np.delete(np.arange(120), [5, 50])
    result = probe(store, target="label", folds=4, seed=3)
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    for layer, width in (("stem", 2), ("block.1", 6), ("block.2", 6)):
        part = rows[kept, :width].astype(np.float64)
        by_hand = scores_by_hand(part, labels[kept], folds.split(part, labels[kept]))
        for name in ("accuracy", "balanced_accuracy", "f1"):
            np.testing.assert_allclose(
                result[name].sel(layer=layer), by_hand[name], atol=1e-12
            )
        pooled = stats.binomtest(sum(by_hand["hits"]), 118).proportion_ci(
            method="wilson"
        )
        np.testing.assert_allclose(
            result["interval"].sel(layer=layer), pooled, atol=1e-12
        )
    assert result["converged"].all()
    np.testing.assert_array_equal(
        result["n_train"] + result["n_test"], np.full((3, 4), 118)
    )


def test_labels_and_attrs(store) -> None:
    """Layers in network order; attrs that JSON can hold."""
    result = probe(store, target="label")
    assert result["layer"].values.tolist() == ["stem", "block.1", "block.2"]
    assert result["accuracy"].dims == ("layer", "fold")
    assert result["interval"].dims == ("layer", "bound")
    assert result["bound"].values.tolist() == ["low", "high"]
    attrs = json.loads(json.dumps(result.attrs))
    assert attrs["best_layer"] == "block.1"  # equal to block.2, and earlier
    assert attrs["classes"] == ["ant", "bee", "cat"]
    assert (attrs["target"], attrs["task"]) == ("label", "classification")
    assert (attrs["n_images"], attrs["n_excluded"], attrs["n_unlabelled"]) == (
        118,
        2,
        0,
    )


def test_rows_are_loaded_in_tasks_only(store, nothing_computes) -> None:
    """All layers are read by one computation, the last step."""
    with (
        pytest.raises(AssertionError, match="something was computed"),
        nothing_computes(),
    ):
        probe(store, target="label")


def test_a_bad_row_without_a_status_is_left_out(noisy) -> None:
    """Without a status column NaN rows are noticed when they are read."""
    rows, labels = noisy
    x = xr.DataArray(
        rows, dims=("image", "feature"), coords={"label": ("image", labels)}
    )
    result = probe({"a": x}, target="label")
    assert (result.attrs["n_images"], result.attrs["n_excluded"]) == (118, 2)
    assert int(result["n_test"].sum()) == 118


def test_layers_by_pattern(store) -> None:
    """Globs and lists choose layers; order stays the network's."""
    assert probe(store, target="label", layers="block.*")["layer"].values.tolist() == [
        "block.1",
        "block.2",
    ]
    assert probe(store, target="label", layers=["block.1", "st*"])[
        "layer"
    ].values.tolist() == ["stem", "block.1"]


def test_split_column(store, noisy) -> None:
    """Train and test as marked, validation ignored: one fold."""
    rows, labels = noisy
    split = np.array(["train", "train", "test", "val"] * 30)
    marked = {name: x.assign_coords(part=("image", split)) for name, x in store.items()}
    result = probe(marked, target="label", split="part")
    good = ~np.isnan(rows).any(axis=1)
    fold = (
        np.flatnonzero(good & (split == "train")),
        np.flatnonzero(good & (split == "test")),
    )
    by_hand = scores_by_hand(rows.astype(np.float64), labels, [fold])
    np.testing.assert_allclose(
        result["f1"].sel(layer="block.1"), by_hand["f1"], atol=1e-12
    )
    assert result.sizes["fold"] == 1
    assert int(result["n_train"][0, 0]) == len(fold[0])
    assert result.attrs["n_images"] == len(fold[0]) + len(fold[1])


def test_table_from_shuffled_csv(store, noisy, tmp_path) -> None:
    """Joined by id, whatever the order; absent and empty labels are counted."""
    labels = pd.Series(noisy[1], name="species")
    table = pd.DataFrame(
        {"x": 1, "image": store["stem"]["image"].values, "species": labels}
    )
    table.loc[3, "species"] = None
    table = table.drop(index=[10, 11]).sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "labels.csv", index=False)
    result = probe(store, target="species", table=tmp_path / "labels.csv")
    assert (result.attrs["n_images"], result.attrs["n_unlabelled"]) == (115, 3)
    same = {
        n: x.assign_coords(
            species=(
                "image",
                np.where(np.isin(np.arange(120), [3, 10, 11]), "", noisy[1]),
            )
        )
        for n, x in store.items()
    }
    xr.testing.assert_identical(result, probe(same, target="species"))


def test_numbers_as_classes_survive_gaps(store, noisy) -> None:
    """Integers that a missing row turned into floats are still classes."""
    table = pd.DataFrame(
        {"k": pd.factorize(noisy[1])[0]},
        index=pd.Index(store["stem"]["image"].values, name="image"),
    )
    result = probe(store, target="k", table=table.iloc[:100])
    assert result.attrs["classes"] == ["0", "1", "2"]


def test_regression_equals_a_loop_by_hand(store, noisy) -> None:
    """Ridge on standardised features, automatic for a continuous target."""
    rows = noisy[0].astype(np.float64)
    size = np.nan_to_num(rows).sum(axis=1) + np.random.default_rng(1).normal(size=120)
    size[9] = np.nan
    sized = {name: x.assign_coords(size=("image", size)) for name, x in store.items()}
    result = probe(sized, target="size", layers="block.1", seed=1)
    kept = np.delete(np.arange(120), [5, 9, 50])
    r2, mae = [], []
    for train, test in KFold(5, shuffle=True, random_state=1).split(kept):
        scaler = StandardScaler().fit(rows[kept[train]])
        model = Ridge().fit(scaler.transform(rows[kept[train]]), size[kept[train]])
        predicted = model.predict(scaler.transform(rows[kept[test]]))
        r2.append(r2_score(size[kept[test]], predicted))
        mae.append(mean_absolute_error(size[kept[test]], predicted))
    np.testing.assert_allclose(result["r2"][0], r2, atol=1e-12)
    np.testing.assert_allclose(result["mae"][0], mae, atol=1e-12)
    expected = stats.t.interval(0.95, 4, loc=np.mean(r2), scale=stats.sem(r2))
    np.testing.assert_allclose(result["interval"][0], expected, atol=1e-12)
    assert (result.attrs["task"], result.attrs["classes"]) == ("regression", [])
    assert result.attrs["n_unlabelled"] == 1


def test_regression_on_a_split_has_no_interval(store) -> None:
    """One fold says nothing of its own spread."""
    columns = {
        "size": ("image", np.linspace(0, 1.5, 120)),
        "part": ("image", ["train", "test"] * 60),
    }
    sized = {name: x.assign_coords(columns) for name, x in store.items()}
    result = probe(sized, target="size", split="part")
    assert np.isnan(result["interval"]).all()
    assert result["r2"].shape == (3, 1)


def test_same_result_on_every_scheduler(store, client) -> None:
    """Client, threads and one thread agree to the byte."""
    results = []
    for scheduler in ("sync", "threads", client):
        with dask.config.set(scheduler=scheduler):
            results.append(probe(store, target="label"))
    for other in results[1:]:
        xr.testing.assert_identical(results[0], other)


def test_columns_that_are_not_loaded(store, noisy) -> None:
    """Target and status may be Dask-backed themselves."""
    lazy = {
        name: x.assign_coords(
            label=("image", da.from_array(noisy[1])),
            status=("image", da.from_array(x["status"].values)),
        )
        for name, x in store.items()
    }
    xr.testing.assert_identical(
        probe(lazy, target="label"), probe(store, target="label")
    )


def test_columns_of_variable_length_text(store) -> None:
    """Text as Zarr gives it means the same as text of fixed length."""
    marked = {
        n: x.assign_coords(part=("image", ["train", "test"] * 60))
        for n, x in store.items()
    }
    text = np.dtypes.StringDType()
    same = {
        name: x.assign_coords(
            {key: x[key].astype(text) for key in ("image", "label", "status", "part")}
        )
        for name, x in marked.items()
    }
    for split in (None, "part"):
        expected = probe(marked, target="label", split=split)
        xr.testing.assert_identical(probe(same, target="label", split=split), expected)


def test_unknown_layer(store) -> None:
    """The nearest name is offered."""
    with pytest.raises(InputError, match=r"no layer 'blok.1'\. Did you mean 'block.1'"):
        probe(store, target="label", layers=["stem", "blok.1"])


def test_no_layers(store) -> None:
    """An empty choice is refused."""
    with pytest.raises(InputError, match=r"got no layers; pass layers='\*'"):
        probe(store, target="label", layers=[])


def test_unknown_column(store) -> None:
    """Coordinates and table columns are offered."""
    with pytest.raises(
        InputError, match=r"no column 'lable'.*Did you mean 'label'.*table="
    ):
        probe(store, target="lable")
    table = pd.DataFrame({"species": "x"}, index=store["stem"]["image"].values)
    with pytest.raises(InputError, match="Did you mean 'species'"):
        probe(store, target="specie", table=table)


def test_one_class(store) -> None:
    """Nothing to tell apart."""
    same = {
        name: x.assign_coords(k=("image", ["a"] * 120)) for name, x in store.items()
    }
    with pytest.raises(
        InputError, match=r"found 1 classes of 'k' among 118 .* at least two"
    ):
        probe(same, target="k")


def test_small_classes(store) -> None:
    """Each class with too few images is named with its count."""
    values = ["a"] * 110 + ["b"] * 2 + ["c"] * 3 + ["d"] * 5
    few = {name: x.assign_coords(k=("image", values)) for name, x in store.items()}
    with pytest.raises(
        InputError, match=r"needs 5 images .* 'b' \(2\), 'c' \(3\); choose fewer"
    ):
        probe(few, target="k")
    with pytest.raises(InputError, match=r"'7' \(1\) and others"):
        probe(
            {
                n: x.assign_coords(k=("image", [*range(20)] * 6)).isel(image=slice(22))
                for n, x in store.items()
            },
            target="k",
            folds=2,
        )


def test_too_few_folds(store) -> None:
    """One fold cannot be held out."""
    with pytest.raises(InputError, match=r"folds=1; choose 2 or more"):
        probe(store, target="label", folds=1)


def test_too_few_values_to_regress_on(store) -> None:
    """R² needs two images per fold."""
    values = np.where(np.arange(120) < 9, np.arange(120) / 7, np.nan)
    few = {name: x.assign_coords(k=("image", values)) for name, x in store.items()}
    with pytest.raises(
        InputError, match=r"8 labelled, readable images for 5 folds; .* 10"
    ):
        probe(few, target="k", task="regression")


def test_names_cannot_be_regressed_on(store) -> None:
    """The value that is no number is shown."""
    with pytest.raises(
        InputError, match=r"cannot regress on 'label', which holds '(ant|bee|cat)'"
    ):
        probe(store, target="label", task="regression")


def test_unknown_task(store) -> None:
    """The choices are listed."""
    with pytest.raises(InputError, match=r"task='rank'; choose 'auto'"):
        probe(store, target="label", task="rank")  # type: ignore[arg-type]


def test_split_without_a_test_set(store) -> None:
    """Counts of both sides are given."""
    marked = {
        name: x.assign_coords(part=("image", ["train"] * 120))
        for name, x in store.items()
    }
    with pytest.raises(
        InputError, match=r"118 images to train on and 0 to test on in column 'part'"
    ):
        probe(marked, target="label", split="part")


def test_train_set_of_one_class(store, noisy) -> None:
    """Found before or after the rows are read, the remedy is the same."""
    part = np.where(noisy[1] == "ant", "train", "test")
    marked = {name: x.assign_coords(part=("image", part)) for name, x in store.items()}
    with pytest.raises(InputError, match=r"one class among the \d+ images to train on"):
        probe(marked, target="label", split="part")


def test_layers_of_other_images(store) -> None:
    """Layers of two stores are not comparable."""
    mixed = {"a": store["stem"], "b": store["block.1"][::-1]}
    with pytest.raises(InputError, match=r"layers 'a' and 'b' of different images"):
        probe(mixed, target="label")


def test_layer_of_another_shape(store) -> None:
    """Tokens have no rule yet."""
    odd = {"vit": store["stem"].rename(feature="token").expand_dims(feature=2, axis=2)}
    with pytest.raises(
        InputError, match=r"layer 'vit' with dims \('image', 'token', 'feature'\)"
    ):
        probe(odd, target="label")


@pytest.mark.parametrize("task", ["auto", "regression"])
@pytest.mark.parametrize("kind", [float, object, str])
def test_infinite_targets_count_as_unlabelled(store, noisy, task, kind) -> None:
    """As numbers, mixed or text, an infinity is left out like a missing value."""
    size = np.nan_to_num(noisy[0]).sum(axis=1).astype(np.float64)
    size[[3, 9]] = np.nan
    expected = probe(
        {"a": store["block.1"].assign_coords(size=("image", size))},
        target="size",
        task="regression",
    )
    size[3], size[9] = np.inf, -np.inf
    infinite = store["block.1"].assign_coords(size=("image", size.astype(kind)))
    if kind is not float and task == "auto":
        infinite = infinite.assign_coords(size=("image", size))
    result = probe({"a": infinite}, target="size", task=task)
    xr.testing.assert_allclose(result, expected)
    assert result.attrs["n_unlabelled"] == 2


@pytest.mark.parametrize("name", ["folds", "seed"])
@pytest.mark.parametrize("value", [2.5, True])
def test_counts_that_are_not_whole(store, name, value) -> None:
    """Floats and booleans are refused."""
    with pytest.raises(InputError, match=rf"probe got {name}={value}; .*whole"):
        probe(store, target="label", **{name: value})


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_bad_seed(store, seed) -> None:
    """The range is scikit-learn's."""
    with pytest.raises(InputError, match=rf"seed={seed}; choose 0 to 2\^32 - 1"):
        probe(store, target="label", seed=seed)


def test_labels_are_sent_once(store, monkeypatch) -> None:
    """No task of a layer carries the target or the folds; it names who holds them."""
    seen: list[tuple[object, ...]] = []

    def spy(*tasks):
        seen.extend(task.__dask_graph__()[task.key].args for task in tasks)
        return dask.compute(*tasks)

    monkeypatch.setattr(module, "compute", spy)
    probe(store, target="label")
    assert len(seen) == 3
    assert not any(isinstance(each, np.ndarray) for args in seen for each in args)
    assert len({args[3:] for args in seen}) == 1  # after threads, work and rows


def test_ids_of_one_source_are_not_loaded_to_be_compared(store) -> None:
    """Equal names of Dask arrays are equal ids; others are loaded, each once."""
    loads: list[str] = []
    ids = store["stem"]["image"].values

    def load(layer: str) -> np.ndarray:  # in this process: a client would pickle it
        loads.append(layer)
        return ids

    def with_lazy_ids(x: xr.DataArray, name: str) -> xr.DataArray:
        block = dask.delayed(load, pure=False)(name)
        lazy = da.from_delayed(block, ids.shape, dtype=ids.dtype, name=name)
        return x.assign_coords(xr.Coordinates({"image": ("image", lazy)}, indexes={}))

    expected = probe(store, target="label")
    shared = {name: with_lazy_ids(x, "table") for name, x in store.items()}
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_identical(probe(shared, target="label"), expected)
    assert loads == []
    apart = {name: with_lazy_ids(x, name) for name, x in store.items()}
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_identical(probe(apart, target="label"), expected)
    assert sorted(loads) == sorted(store)


def test_layers_without_ids_need_only_be_as_many(store) -> None:
    """Row numbers stand in for ids, on both sides or on one."""
    bare = {n: x.drop_vars("image") for n, x in store.items()}
    expected = probe(store, target="label")
    xr.testing.assert_identical(probe(bare, target="label"), expected)
    with pytest.raises(InputError, match="of different images"):
        probe(bare | {"stem": store["stem"]}, target="label")
    with pytest.raises(InputError, match="of different images"):
        probe(bare | {"block.2": bare["block.2"][:50]}, target="label")
