"""Ids as hashes."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.store import ids as module
from embedkit.store.ids import candidates, digest, hashes, sorted_rows

TEXT = st.text(st.characters(codec="utf-8"))
UNIQUE = st.lists(TEXT, unique=True, max_size=30)


def _blake(name):
    raw = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big")


@given(st.lists(TEXT))
def test_hashes_are_those_of_the_standard(names):
    """BLAKE2b of the UTF-8 of each, as a big-endian number."""
    found = hashes(names)

    assert found.dtype == np.uint64
    assert found.tolist() == [_blake(name) for name in names]


def test_text_that_is_no_unicode_has_a_hash():
    """File names may hold bytes of no encoding; whoever asks for one is answered."""
    assert len(set(hashes(["a\udcff", "a\udcfe", "a"]).tolist())) == 3


def test_a_digest_tells_lists_apart():
    """Order, length and where one id ends all count."""
    lists = [["a", "b"], ["b", "a"], ["ab"], ["a"], [], ["a", "b", ""]]

    assert len({digest(each) for each in lists}) == len(lists)
    assert digest(["a", "b"]) == digest(("a", "b"))
    assert len(digest(["a"])) == 16


@given(UNIQUE)
def test_sorted_rows_are_a_permutation(names):
    """Hashes ascend, and each stands beside the row of its id."""
    hashed, rows = sorted_rows(names)

    assert (hashed[1:] >= hashed[:-1]).all()
    assert sorted(rows.tolist()) == list(range(len(names)))
    assert hashed.tolist() == [_blake(names[row]) for row in rows]
    assert rows.dtype == np.int64


@given(known=UNIQUE, wanted=st.lists(TEXT, max_size=30), data=st.data())
def test_candidates_are_what_a_pandas_index_finds(known, wanted, data):
    """Ids that are there, in any order and number, and ids that are not."""
    if known:
        wanted = wanted + data.draw(st.lists(st.sampled_from(known), max_size=30))

    found = candidates(wanted, *sorted_rows(known))

    rows = [each[0] if len(each) else -1 for each in found]
    assert rows == pd.Index(known, dtype=object).get_indexer(wanted).tolist()


@given(known=UNIQUE, wanted=st.lists(TEXT, max_size=30))
def test_ids_of_one_hash_are_all_candidates(known, wanted):
    """Where hashes collide, every row of that hash is given, in order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module,
            "hashes",
            lambda names: np.array([len(name) % 3 for name in names], np.uint64),
        )
        found = candidates(wanted, *sorted_rows(known))

    expected = [
        [row for row, other in enumerate(known) if len(other) % 3 == len(name) % 3]
        for name in wanted
    ]
    assert [each.tolist() for each in found] == expected


def test_hundreds_of_thousands_of_ids():
    """Every tenth of 200,000 is found in its row, and as many others nowhere."""
    names = [f"folder/{i:08d}.jpg" for i in range(200_000)]
    rows = np.random.default_rng(0).permutation(200_000)[:20_000]

    index = sorted_rows(names)
    found = candidates([names[row] for row in rows], *index)
    lost = candidates([f"{names[row]}x" for row in rows], *index)

    assert np.array_equal(np.concatenate(found), rows)
    assert sum(map(len, lost)) == 0
