"""Tables joined on image ids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from embedkit.analysis.table import join_table
from embedkit.errors import InputError

IDS = pd.Index(["001", "002", "010"])


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"path": ["010", "zzz", "001"], "kind": ["c", "z", "a"], "id": [1, 2, 3]}
    )


def check(joined: pd.DataFrame) -> None:
    """Two of three ids are known."""
    assert joined.index.tolist() == IDS.tolist()
    assert joined["kind"].fillna("?").tolist() == ["a", "?", "c"]


def test_the_column_that_matches_most_is_found(table) -> None:
    """`path` holds ids here, though `id` is a likelier name."""
    check(join_table(table, IDS))


def test_index_with_ids(table) -> None:
    """An index does as well, named or not."""
    check(join_table(table.set_index("path"), IDS))
    check(join_table(table.set_index("path").rename_axis(None), IDS))
    check(join_table(table.set_index("path"), IDS, on="path"))


def test_files(table, tmp_path) -> None:
    """CSV, TSV and Parquet; leading zeros of ids survive."""
    table = table.rename(columns={"path": "key"})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.tsv", "t.parquet"):
        check(join_table(str(tmp_path / name), IDS, on="key"))
    table.rename(columns={"key": "image"}).to_csv(tmp_path / "u.csv", index=False)
    check(join_table(tmp_path / "u.csv", IDS))


def test_integer_ids_match_their_text() -> None:
    """Numbers in the table, text in the store."""
    joined = join_table(
        pd.DataFrame({"id": [2, 1], "v": [20, 10]}), pd.Index(["1", "2"])
    )
    np.testing.assert_array_equal(joined["v"], [10, 20])


def test_a_row_twice_that_no_image_asks_for_is_harmless(table) -> None:
    """Only rows that would be ambiguous are refused."""
    check(join_table(pd.concat([table, table.iloc[[1]]]), IDS))


def test_an_image_twice(table) -> None:
    """The image is named."""
    with pytest.raises(
        InputError, match=r"1 rows too many: image '010' stands in more"
    ):
        join_table(pd.concat([table, table.iloc[[0]]]), IDS)


def test_nothing_matches(table) -> None:
    """An id of each side is shown."""
    with pytest.raises(
        InputError, match=r"none of the 1 image ids: .*'0'.* called 'cat.jpg'.*on="
    ):
        join_table(table, pd.Index(["cat.jpg"]))
    with pytest.raises(InputError, match="has no rows"):
        join_table(table.iloc[:0], IDS)


def test_unknown_id_column(table) -> None:
    """The nearest column is offered, the index included."""
    with pytest.raises(InputError, match=r"no column 'pth'\. Did you mean 'path'"):
        join_table(table, IDS, on="pth")
    with pytest.raises(InputError, match=r"Did you mean 'path'"):
        join_table(table.set_index("path"), IDS, on="pth")


def test_files_that_cannot_be_read(tmp_path) -> None:
    """Missing files and unknown suffixes are named."""
    with pytest.raises(InputError, match=r"none\.csv' does not exist"):
        join_table(tmp_path / "none.csv", IDS)
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(InputError, match=r"has suffix '\.xlsx'; pass \.csv"):
        join_table(tmp_path / "t.xlsx", IDS)
