"""Which kind of search index fits how many rows into how much memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from embedkit.errors import PlanError

Kind: TypeAlias = Literal["flat", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq"]

_FLAT = 4096  # rows that are searched as fast without any structure
_LEAST = 40  # rows that one list is trained on
_GRAPH = 2 * 32 * 4 * 1.1 + 16  # bytes of links per row, over all levels
_ID = 8
_PER_LIST = 64  # rows that a list is trained on

BYTES = 128
"""Features from which a graph is faster to search where it holds bytes (measured)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind of index and what follows from it.

    Attributes
    ----------
    kind : {"flat", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq"}
    sharded : bool
        Whether it lies in several files, whose lists stay on disk.
    nbytes : int
        Memory that the index takes; of a sharded one, its largest file while it is made.
    shard_rows : int
        Rows per file.
    n_lists : int
        Inverted lists, 0 for kinds without.
    code_bytes : int
        Bytes of a code: of the product codes in lists, or of the bytes in a graph; 0 for
        other kinds, and for a graph that holds whole rows.
    n_train : int
        Rows to train on, as many as memory allows.
    """

    kind: Kind
    sharded: bool
    nbytes: int
    shard_rows: int
    n_lists: int = 0
    code_bytes: int = 0
    n_train: int = 0


def choose(
    n_rows: int,
    features: int,
    *,
    memory_limit: int,
    sharded: Literal["auto"] | bool,
) -> Choice:
    """Choose the fastest kind that fits, from rules that are known beforehand.

    Up to a few thousand rows none is needed. A navigable graph answers most queries a
    second at high recall, of whole rows or of bytes; lists of whole rows need less than it
    beside the rows, lists of bytes a quarter of that, product codes what is left. Where
    not even they fit, lists of whole rows stay on disk, in files that are made one by one.

    Parameters
    ----------
    n_rows, features : int
    memory_limit : int
        Bytes.
    sharded : {"auto"} or bool
        Whether several files are wanted, or refused.

    Returns
    -------
    Choice

    Raises
    ------
    PlanError
        When `sharded` is False and nothing fits.
    """
    if n_rows <= _FLAT and sharded is not True:
        return Choice("flat", sharded=False, nbytes=0, shard_rows=n_rows)
    lists = max(1, min(int(4 * np.sqrt(n_rows)), n_rows // 40))
    room = memory_limit // (8 * features)  # the sample, and a copy of it
    n_train = max(lists, min(_PER_LIST * lists, room))
    if sharded is not True:
        for kind, width, code in _kinds(features):
            nbytes = int(n_rows * (width + _ID) + lists * features * 4)
            if nbytes <= memory_limit:
                n_lists = 0 if kind == "hnsw" else lists
                return Choice(
                    kind,
                    sharded=False,
                    nbytes=nbytes,
                    shard_rows=n_rows,
                    n_lists=n_lists,
                    code_bytes=code,
                    n_train=n_train,
                )
        if sharded is False:
            raise PlanError(
                f"build_index has no kind for {n_rows} rows of {features} features within "
                f"memory_limit={memory_limit} bytes (product codes need {nbytes}); raise "
                "it, or pass sharded='auto' to keep the index on disk."
            )
    # a file is made from its rows in float32 and in float64 pieces
    rows = min(n_rows, max(1024, memory_limit // (3 * (4 * features + _ID))))
    nbytes = rows * (4 * features + _ID)
    return Choice(
        "ivf_flat",
        sharded=True,
        nbytes=nbytes,
        shard_rows=rows,
        n_lists=lists,
        n_train=n_train,
    )


def is_small(n_usable: int, *, of: int) -> bool:
    """Tell whether too few rows can be found for the structure that was chosen for all.

    Parameters
    ----------
    n_usable : int
        Rows that are finite, and not zero where the cosine is the metric.
    of : int
        Rows in all.

    Returns
    -------
    bool
    """
    return n_usable < _LEAST or n_usable <= _FLAT < of


def of_bytes(choice: Choice, *, n_rows: int, features: int) -> Choice:
    """Return the choice of a graph that holds a byte for each feature.

    It is searched about twice as fast as one of whole rows, and a quarter of its size.

    Parameters
    ----------
    choice : Choice
        Of a graph.
    n_rows, features : int

    Returns
    -------
    Choice
    """
    nbytes = int(n_rows * (features + _GRAPH + _ID))
    return replace(choice, code_bytes=features, nbytes=nbytes)


def _kinds(features: int) -> list[tuple[Kind, float, int]]:
    """Kinds with the bytes that they take per row, and of these in a product code."""
    codes = [max(1, features // part) for part in (2, 4, 8)]
    small: list[tuple[Kind, float, int]] = []
    if features >= BYTES:
        small = [("hnsw", features + _GRAPH, features)]
    return [
        ("hnsw", 4 * features + _GRAPH, 0),
        *small,
        ("ivf_flat", 4 * features, 0),
        ("ivf_sq8", features, 0),
        *[("ivf_pq", code, code) for code in codes],
    ]
