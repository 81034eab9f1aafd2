"""A search index as users have it: asked, described, grown, shrunk and saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.utils import format_bytes

import embedkit
from embedkit.analysis.frame import check_rows, whole
from embedkit.analysis.index.build import Made
from embedkit.analysis.index.change import Home, grown, shrunk
from embedkit.analysis.index.files import Saved, save
from embedkit.analysis.index.given import (
    Queries,
    asked_ids,
    asked_vectors,
    check_new,
    check_width,
    content_of,
    ids_of,
    numbers_of,
)
from embedkit.analysis.index.tasks import search_many
from embedkit.analysis.ivf_space import Floats
from embedkit.analysis.merge import Ids
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import Recall
from embedkit.analysis.spool import spool
from embedkit.errors import InputError


class Index:
    """A search index; `build_index` and `open_index` make one.

    Attributes
    ----------
    kind : str
        ``"flat"``, ``"hnsw"``, ``"ivf_flat"``, ``"ivf_sq8"`` or ``"ivf_pq"``.
    metric : str
    recall : Recall
        ``value``, ``low`` and ``high`` as measured when the index was built.
    nbytes : int
        Bytes of the index, without the rows.
    """

    def __init__(
        self,
        made: Made,
        *,
        images: npt.NDArray[np.str_],
        n_neighbors: int,
        home: Home,
        template: Path | None = None,
        content: str | None = None,
    ) -> None:
        self._made, self._choice, self._images = made, made.choice, images
        self._n_neighbors, self._home, self._content = n_neighbors, home, content
        self._template = template or home.path / "empty.faiss"
        self._rows: dict[str, int] | None = None

    @property
    def kind(self) -> str:
        """How rows are kept."""
        return self._choice.kind

    @property
    def metric(self) -> Metric:
        """Of all distances."""
        return self._made.searcher.space.metric

    @property
    def recall(self) -> Recall:
        """Share of the exact neighbors that was found, with a 95 % interval."""
        return self._made.recall

    @property
    def faiss(self) -> tuple[Any, ...]:
        """The FAISS indexes, or the paths of their files."""
        return self._made.searcher.parts

    @property
    def nbytes(self) -> int:
        """Bytes of the index, without the rows, as planned."""
        return self._choice.nbytes

    @property
    def _features(self) -> int:
        return len(self._made.searcher.space.center)

    def __len__(self) -> int:
        """Count the images that can be found."""
        return int(self._made.searcher.alive.sum())

    def __repr__(self) -> str:
        shape = f"{len(self):,} images x {self._features} features"
        files = f" in {len(self.faiss)} files" if self._choice.sharded else ""
        size = format_bytes(self.nbytes)
        if self.kind == "flat":
            known = "exact"
        else:
            speed = self._made.queries_per_second
            known = (
                f"recall@{self._n_neighbors} {self.recall} (95 % of {self.recall.n_rows} "
                f"held-out rows), {speed:,.0f} queries/s"
            )
        return f"<Index {self.kind}{files}, {self.metric}: {shape}, {size}; {known}>"

    def search(self, q: Queries, k: int | None = None) -> xr.Dataset:
        """Find the nearest images of vectors or of images in the index.

        Parameters
        ----------
        q : str, sequence of str, ndarray (F,) or (n, F), or DataArray (image, feature)
            Ids of images in the index, each left out of its own answer; or vectors, from
            which nothing is left out.
        k : int, optional
            Neighbors per query; by default the `n_neighbors` of the index. Its recall was
            measured for that number.

        Returns
        -------
        Dataset, dims (query, neighbor)
            ``indices`` int64, row numbers in the order of building and adding, -1 for
            none; ``distances`` float32, measured in float64, NaN for none; ``image`` str,
            empty for none. Nearest first, equal distances by row number. The coordinate
            ``query`` holds the ids of queries that have one.

        Raises
        ------
        InputError
            For an unknown id, another number of features, or a `k` that is no positive
            whole number.
        """
        k = whole(k if k is not None else self._n_neighbors, asked="search", name="k")
        if k < 1:
            raise InputError(f"search got k={k}; choose 1 or more.")
        queries, ids, names = self._asked(q)
        made = self._made
        near, found = search_many(
            made.searcher, queries, ids, k=k, effort=made.effort, home=self._home.path
        )
        with np.errstate(over="ignore"):  # beyond 3e38 a float32 distance is infinite
            distances = near.astype(np.float32)
        image = np.where(found >= 0, self._images[found], "")
        dims = ("query", "neighbor")
        return xr.Dataset(
            {
                "indices": (dims, found),
                "distances": (dims, distances),
                "image": (dims, image),
            },
            coords={} if names is None else {"query": names},
            attrs={
                "embedkit": embedkit.__version__,
                "kind": self.kind,
                "metric": self.metric,
                "n_neighbors": k,
                **self.recall.attrs(),
            },
        )

    def add(self, x: xr.DataArray) -> None:
        """Add images; their row numbers follow on those that are there.

        Parameters
        ----------
        x : DataArray, dims (image, feature), floating
            With ids that the index does not have. The recall is not measured again.

        Raises
        ------
        InputError
            For other features or an id that is taken; under inner products also for rows
            more than one and a half times as long as the longest were.
        """
        check_rows(x, asked="Index.add", dims=("feature", "axis"))
        searcher = self._made.searcher
        check_width(x.shape[1], features=self._features, asked="Index.add")
        first = len(searcher.rows)
        images = ids_of(x, first=first)
        check_new(images, self._images)
        more = spool(x, self._home.path / f"added-{first}")
        template = self._template if self._choice.sharded else None
        searcher = grown(searcher, more, home=self._home, template=template)
        self._images = np.concatenate([self._images, images])
        if self._content != content_of(x):
            self._content = None  # of the rows together nobody has said anything
        self._rows, self._made = None, replace(self._made, searcher=searcher)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove images; the row numbers of others stay.

        Parameters
        ----------
        ids : sequence of str
            Ids of images in the index.

        Raises
        ------
        InputError
            For an id that is not in the index, and for a graph (``hnsw``), from which
            nothing can be removed.
        """
        if self.kind == "hnsw":
            raise InputError(
                "Index.remove cannot take rows out of a graph (hnsw): its other rows are "
                "reached through them; build the index anew without them, or with a "
                "smaller memory_limit, which gives lists."
            )
        given = [ids] if isinstance(ids, str) else ids
        if not isinstance(given, Iterable):
            raise InputError(f"Index.remove got {ids!r}; give ids of images.")
        rows = self._numbers(list(given))
        searcher = shrunk(self._made.searcher, rows, home=self._home)
        self._rows, self._made = None, replace(self._made, searcher=searcher)

    def save(self, folder: str | Path) -> None:
        """Save the index and its rows; what was saved there before is replaced whole.

        Parameters
        ----------
        folder : str or Path
            Made if it is not there. A crash leaves the old index or the new one.

        Raises
        ------
        InputError
            For a URL, or a file.
        """
        save(
            Saved(
                made=self._made,
                images=self._images,
                n_neighbors=self._n_neighbors,
                template=self._template if self._choice.sharded else None,
                content=self._content,
            ),
            folder,
        )

    def _asked(self, q: Queries) -> tuple[Floats, Ids, Any]:
        """Return the vectors, the row numbers they have in the index, and their names."""
        given = asked_ids(q)
        if given is not None:
            ids = self._numbers(given)
            return self._made.searcher.rows.take(ids), ids, np.asarray(given)
        rows, names = asked_vectors(q, features=self._features)
        return rows, np.full(len(rows), -1), names

    def _numbers(self, ids: Sequence[str]) -> Ids:
        if self._rows is None:
            alive = np.flatnonzero(self._made.searcher.alive)
            names = self._images[alive].tolist()
            self._rows = dict(zip(names, alive.tolist(), strict=True))
        return numbers_of(ids, self._rows)
