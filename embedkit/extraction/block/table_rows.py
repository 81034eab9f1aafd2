"""The image table beside the images of a block: ids and places, as a run joins them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy.typing as npt

from embedkit.files.files import Files
from embedkit.planning.table_join import JoinChoice, choose_join
from embedkit.store.arrays import DAMAGE, read

_HEADER = 16
"""Bytes of a text in NumPy's strings, besides those that are longer than it."""


class TableRows:
    """Reads columns of text of the image table, as `choose_join` finds best.

    Parameters
    ----------
    files : Files
        The store.
    n_images, block, n_workers : int
        See `choose_join`.
    """

    def __init__(
        self, files: Files, *, n_images: int, block: int, n_workers: int
    ) -> None:
        self._files, self._n_images = files, n_images
        self._block, self._n_workers = block, n_workers
        self._whole: dict[str, npt.NDArray[Any]] = {}
        self._reading = threading.Lock()
        self.choice: dict[str, JoinChoice] = {}

    def read(self, column: str, rows: slice) -> list[str]:
        """Return some rows of a column.

        The first ones are read by themselves: how long they are decides about the rest.
        """
        whole = self._all(column)
        if whole is not None:
            return _text(whole[rows])
        found = _text(read(self._files, column, rows=rows))
        self.choice.setdefault(column, self._choose(found))
        return found

    def _all(self, column: str) -> npt.NDArray[Any] | None:
        """Return the whole column where it is broadcast, read once."""
        with self._reading:
            if column in self._whole or column not in self.choice:
                return self._whole.get(column)
            if self.choice[column].join == "partitioned":
                return None
            damage: tuple[type[Exception], ...] = (*DAMAGE, *self._files.failures)
            try:
                rows = slice(0, self._n_images)
                self._whole[column] = read(self._files, column, rows=rows)
            except damage as error:  # which may concern the rows of other blocks alone
                why = f"the whole column cannot be read ({type(error).__name__})"
                self.choice[column] = JoinChoice("partitioned", why)
            return self._whole.get(column)

    def _choose(self, found: Sequence[str]) -> JoinChoice:
        letters = sum(len(each.encode()) for each in found)
        return choose_join(
            n_images=self._n_images,
            row_bytes=_HEADER + letters / max(1, len(found)),
            block=self._block,
            n_workers=self._n_workers,
        )


@lru_cache(maxsize=2)  # of two runs: a table is a few MB
def table_rows(
    files: Files,
    run: str,  # noqa: ARG001 - another run may have changed the table
    *,
    n_images: int,
    block: int,
    n_workers: int,
) -> TableRows:
    """Return what reads the table of a store, one for all tasks of a run in a process."""
    return TableRows(files, n_images=n_images, block=block, n_workers=n_workers)


def _text(values: npt.NDArray[Any]) -> list[str]:
    return [str(each) for each in values]
