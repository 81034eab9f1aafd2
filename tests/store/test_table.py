"""The image table as arrays."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError
from embedkit.store.table import (
    REMOVED,
    as_coordinates,
    joint_status,
    same_status,
    status_columns,
    text,
    to_dataset,
    to_frame,
    with_status,
)


def test_every_kind_of_column_becomes_an_array(table):
    """Text, categories, nullable integers, booleans and dates keep their values."""
    found = to_dataset(table)

    assert found["label"].dtype.kind == "T"
    assert found["note"].values[:2].tolist() == ["é", ""]
    assert np.isnan(found["size"].values[0])
    assert found["size"].values[1:3].tolist() == [1.0, 2.0]
    assert found["sharp"].dtype == bool
    assert found["taken"].values[0] == np.datetime64("2024-02-29T10:00:00")
    assert set(found["status"].values.tolist()) == {"pending"}


def test_the_table_comes_back_in_a_readable_order(table):
    """What and where first, how it went last."""
    frame = to_frame(to_dataset(table))

    assert frame.index.name == "image"
    assert frame.columns[:2].tolist() == ["uri", "label"]
    assert frame.columns[-2:].tolist() == ["status", "error"]
    assert frame["label"].tolist() == table["label"].tolist()


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 3], dtype="int8"),
        pd.Series([1.5, None, 3.0], dtype="float32"),
        pd.Series([True, False, True], dtype="boolean"),
        pd.Series([1, 2, 3], dtype="Int32"),
        pd.Series(["2020-01-01", None, "2021-01-01"], dtype="datetime64[ns]"),
        pd.Series([7, 8, 7], dtype="category"),
        pd.Series([7, None, 8], dtype="category"),
        pd.Series([True, None, False], dtype="boolean"),
    ],
    ids=str,
)
def test_numbers_booleans_and_dates_keep_their_values(column):
    """Compared as float64 (dates as such), nothing changes and NaN stays NaN."""
    frame = pd.DataFrame({"uri": list("abc"), "x": column.to_numpy(object)})
    frame["x"] = column.array
    frame.index = pd.Index(list("abc"), name="image")

    found = to_dataset(frame)["x"].values

    if found.dtype.kind == "M":
        np.testing.assert_array_equal(found, column.to_numpy())
    else:
        expected = column.to_numpy(np.float64, na_value=np.nan)
        np.testing.assert_array_equal(found.astype(np.float64), expected)


@pytest.mark.parametrize(
    "name",
    [
        *("status", "error", "image", "layers", "axis", "a/b", "", ".x", "a\nb"),
        *("_embedkit", "zarr.json"),
    ],
)
def test_a_column_that_cannot_be_stored_is_named(name):
    """Reserved names and names that are no path get one clear error."""
    frame = pd.DataFrame({"uri": ["u"], name: [1]}, index=pd.Index(["a"], name="image"))

    with pytest.raises(InputError, match="of the image table cannot be stored: rename"):
        to_dataset(frame)


def test_a_column_of_objects_is_refused_with_the_value():
    """Lists in a column are named, not stored as text by accident."""
    frame = pd.DataFrame(
        {"uri": ["u", "v"], "tags": ["a", ["b", "c"]]}, index=["i", "j"]
    )

    with pytest.raises(InputError, match=r"'tags' .* holds \['b', 'c'\] \(list\)"):
        to_dataset(frame)


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
        min_size=1,
        unique=True,
    )
)
def test_any_text_is_an_id(ids):
    """Ids of any script and length come back as they were."""
    frame = pd.DataFrame({"uri": ids}, index=pd.Index(ids, name="image"))

    assert to_frame(to_dataset(frame)).index.tolist() == ids


def test_coordinates_have_no_index(table):
    """Millions of text ids are carried without building a search structure."""
    coords = as_coordinates(to_dataset(table), beside=["sharp"])

    array = xr.DataArray(np.zeros(len(table)), dims="image").assign_coords(coords)

    assert len(array.indexes) == 0
    assert array.coords["label"].values[1] == "dog"
    assert array.coords["image_sharp"].values[0]
    assert "sharp" not in array.coords


def test_status_follows_the_commit_records(record, one):
    """Committed rows are ok or unreadable with a reason; the others are pending."""
    ids = xr.DataArray([f"{i}" for i in range(6)], dims="image")
    commit = dataclasses.replace(
        record(one, 1), start=2, stop=5, failures={"3": "cut short"}
    )

    found = status_columns(ids, {1: commit})

    assert found["status"][1].tolist() == [
        *("pending", "pending", "ok", "unreadable", "ok", "pending"),
    ]
    assert found["error"][1].tolist() == ["", "", "", "cut short", "", ""]


@pytest.mark.parametrize("reason", ["cut short", REMOVED])
def test_rows_that_were_taken_out_say_so(record, one, reason):
    """A row of NaN whose image is gone is `removed`, not `unreadable`."""
    ids = xr.DataArray([f"a/{i}.jpg" for i in range(70)], dims="image")
    commit = record(one, 1, failures={"a/40.jpg": reason})

    status = status_columns(ids, {1: commit})["status"][1]

    assert status[40] == ("removed" if reason == REMOVED else "unreadable")
    assert set(status[32:64].tolist()) - {status[40]} == {"ok"}


WORDS = st.sampled_from(["ok", "pending", "unreadable"])


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1))
def test_the_joint_status_is_ok_where_all_are(rows):
    """Else somebody's trouble counts: first what could not be read, with its reason."""
    passes = []
    for number, states in enumerate(zip(*rows, strict=True)):
        errors = [f"by {number}" if each == "unreadable" else "" for each in states]
        passes.append(
            {"status": ("image", text(states)), "error": ("image", text(errors))}
        )

    joint = joint_status(passes)

    for row, states in enumerate(rows):
        bad = [number for number, each in enumerate(states) if each == "unreadable"]
        waits = "pending" in states
        expected = ("unreadable", f"by {bad[0]}") if bad else ("ok", "")
        expected = ("pending", "") if waits and not bad else expected
        assert (joint["status"][1][row], joint["error"][1][row]) == expected
    assert same_status(passes[0], passes[0])
    assert same_status(passes[0], joint) == (
        passes[0]["status"][1].tolist() == joint["status"][1].tolist()
        and passes[0]["error"][1].tolist() == joint["error"][1].tolist()
    )


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "pending", "unreadable"])), min_size=1)
)
def test_the_joint_status_of_one_is_its_own(rows):
    """A store of one network says what that one says."""
    states = [each[0] for each in rows]
    only = {"status": ("image", text(states)), "error": ("image", text(states))}

    joint = joint_status([only])

    assert same_status(only, joint)
    joint["status"][1][0] = "changed"
    assert only["status"][1][0] == states[0]


def test_another_status_reads_no_ids(table):
    """The table stays lazy and without an index."""
    columns = to_dataset(table)
    status = {
        "status": ("image", text(["ok"] * 70)),
        "error": ("image", text([""] * 70)),
    }

    found = with_status(columns, status)

    assert len(found.indexes) == 0
    assert set(found["status"].values.tolist()) == {"ok"}
    assert set(found.data_vars) == set(columns.data_vars)
    assert found["image"].values.tolist() == table.index.tolist()
    assert set(columns["status"].values.tolist()) == {"pending"}
