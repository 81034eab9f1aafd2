"""Search indexes: nearest images of any vector, with a recall that was measured."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import psutil
import xarray as xr
from dask.utils import format_bytes, parse_bytes

import embedkit
from embedkit.analysis import faiss_adapter
from embedkit.analysis.frame import check_rows, whole
from embedkit.analysis.index_build import Made, add_rows, make, write_shard
from embedkit.analysis.index_choice import Choice, choose
from embedkit.analysis.index_files import Saved, load, save
from embedkit.analysis.index_rows import Rows
from embedkit.analysis.index_tasks import search_many
from embedkit.analysis.ivf_space import Floats
from embedkit.analysis.merge import Ids
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import Recall
from embedkit.analysis.rows import usable_rows
from embedkit.analysis.spool import spool
from embedkit.errors import InputError, did_you_mean

Queries: TypeAlias = "str | Sequence[str] | Floats | xr.DataArray"


def build_index(
    x: xr.DataArray,
    *,
    recall: float = 0.95,
    n_neighbors: int = 10,
    memory_limit: int | str | None = None,
    metric: Metric = "euclidean",
    sharded: Literal["auto"] | bool = "auto",
    seed: int = 0,
) -> Index:
    """Build a search index that finds at least a given share of the nearest images.

    The kind follows from the number of rows and features and the memory: all rows
    compared exactly up to a few thousand; a navigable graph where it fits; inverted lists
    of whole rows, of bytes, or of product codes where memory is short; lists on disk where
    nothing fits. How hard a search tries is tuned against exact truth on rows that are
    left out of the index until then, and the recall is measured on more of them.

    Parameters
    ----------
    x : DataArray, dims (image, feature), floating
        One row per image, in memory or lazy. The rows are copied to a temporary file, from
        which all final distances are measured in float64. A row with a NaN or an infinity
        is never found.
    recall : float, default 0.95
        Share of the exact neighbors to find, above 0 and below 1. Equal distances count as
        equally good.
    n_neighbors : int, default 10
        How many neighbors the recall is about. Searches may ask for another number.
    memory_limit : int or str, optional
        Bytes that the index may take, like ``"2 GiB"``; by default half of this machine's
        memory.
    metric : {"euclidean", "cosine", "inner_product"}, default "euclidean"
        As in `neighbors`.
    sharded : {"auto"} or bool, default "auto"
        Whether the index lies in several files that are made by tasks and searched on
        disk: where nothing else fits, always, or never.
    seed : int, default 0
        Of all samples. A graph is built by several threads in no fixed order, so two
        builds of it may differ in single links.

    Returns
    -------
    Index

    Raises
    ------
    InputError
        For wrong dimensions, a recall outside of (0, 1), or ids that repeat.
    PlanError
        When nothing fits into `memory_limit` and `sharded` is False.
    RecallNotReached
        When the lower end of the interval stays below `recall`.

    See Also
    --------
    embedkit.neighbors : Neighbors of every image, exact by default.
    embedkit.open_index : An index that was saved.

    References
    ----------
    Malkov, Yashunin (2018), Efficient and robust approximate nearest neighbor search
    using hierarchical navigable small world graphs.
    Jégou, Douze, Schmid (2011), Product quantization for nearest neighbor search.
    Clopper, Pearson (1934), The use of confidence or fiducial limits.
    """
    check_rows(x, asked="build_index", dims=("feature", "axis"))
    k = whole(n_neighbors, asked="build_index", name="n_neighbors")
    _check(recall, k, metric, x.sizes["image"])
    images = _ids_of(x, first=0)
    if memory_limit is None:
        memory_limit = psutil.virtual_memory().total // 2
    choice = choose(
        x.sizes["image"],
        x.shape[1],
        memory_limit=int(parse_bytes(memory_limit)),
        sharded=sharded,
    )
    home = _Home()
    made = make(
        spool(x, home.path),
        choice,
        metric=metric,
        k=k,
        recall=float(recall),
        seed=seed,
        folder=home.path,
    )
    return Index(made, choice, images=images, n_neighbors=k, home=home)


class _Home:
    """A temporary folder that lives as long as this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="embedkit-index-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def open_index(folder: str | Path) -> Index:
    """Open a search index that was saved.

    Parameters
    ----------
    folder : str or Path
        Where `Index.save` put it. It is not changed: what is added later stays in memory
        or a temporary folder until it is saved.

    Returns
    -------
    Index

    Raises
    ------
    StoreError
        When there is no index, or one of a newer format.
    CorruptStore
        When a file is not what was saved.
    """
    saved = load(Path(folder))
    home = _Home()
    return Index(
        saved.made,
        saved.choice,
        images=saved.images,
        n_neighbors=saved.n_neighbors,
        home=home,
        template=saved.template,
    )


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
        choice: Choice,
        *,
        images: npt.NDArray[np.str_],
        n_neighbors: int,
        home: _Home,
        template: Path | None = None,
    ) -> None:
        self._made, self._choice, self._images = made, choice, images
        self._n_neighbors, self._home = n_neighbors, home
        self._template = template or home.path / "empty.faiss"
        self._rows: dict[str, int] | None = None
        self._files = 0  # names of the files that were added

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

    def __len__(self) -> int:
        """Count the images that can be found."""
        return int(self._made.searcher.alive.sum())

    def __repr__(self) -> str:
        shape = (
            f"{len(self):,} images x {len(self._made.searcher.space.center)} features"
        )
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
        self._check_width(x.shape[1], asked="Index.add")
        searcher = self._made.searcher
        first = len(searcher.rows)
        images = _ids_of(x, first=first)
        taken = np.flatnonzero(np.isin(images, self._images))
        if len(taken):
            raise InputError(
                f"Index.add got the id {str(images[taken[0]])!r}, which is in the index; "
                "remove it first, or give the image another id."
            )
        more = spool(x, self._home.path / f"added-{first}")
        rows = more.rows
        usable = usable_rows(rows)
        null = usable & ~rows.any(axis=1) & (self.metric == "cosine")
        listed = np.flatnonzero(usable & ~null)
        self._check_reach(rows[listed])
        searcher = replace(
            searcher,
            rows=Rows((*searcher.rows.files, more)),
            alive=np.concatenate([searcher.alive, usable]),
            zeros=np.concatenate([searcher.zeros, first + np.flatnonzero(null)]),
        )
        if self._choice.sharded:
            self._files += 1
            path = write_shard(
                self._home.path,
                more,
                searcher.space,
                listed,
                name=f"added-{self._files}",
                first=first,
                template=self._template,
            )
            searcher = replace(searcher, parts=(*searcher.parts, path))
        elif searcher.parts:
            add_rows(searcher.parts[0], more, searcher.space, listed, first=first)
        self._images = np.concatenate([self._images, images])
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
        rows = self._numbers([ids] if isinstance(ids, str) else ids)
        searcher = self._made.searcher
        alive = searcher.alive.copy()
        alive[rows] = False
        parts = [self._without(part, rows) for part in searcher.parts]
        searcher = replace(
            searcher,
            alive=alive,
            zeros=np.setdiff1d(searcher.zeros, rows),
            parts=tuple(parts),
        )
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
            For a URL.
        """
        save(
            Saved(
                made=self._made,
                choice=self._choice,
                images=self._images,
                n_neighbors=self._n_neighbors,
                template=self._template if self._choice.sharded else None,
            ),
            folder,
        )

    def _without(self, part: Any, rows: Ids) -> Any:
        if not isinstance(part, Path):
            faiss_adapter.remove(part, rows)
            return part
        index = faiss_adapter.read(part)
        if not faiss_adapter.remove(index, rows):
            return part
        self._files += 1
        path = self._home.path / f"shard-left-{self._files}.faiss"
        faiss_adapter.write(index, path)
        return path

    def _asked(self, q: Queries) -> tuple[Floats, Ids, Any]:
        """Return the vectors, the row numbers they have in the index, and their names."""
        if isinstance(q, xr.DataArray):
            check_rows(q, asked="search", dims=("feature", "axis"))
            self._check_width(q.shape[1], asked="search")
            names = q["image"].values if "image" in q.coords else None
            return np.asarray(q.values), np.full(q.shape[0], -1), names
        given = [q] if isinstance(q, str) else q
        if len(given) and all(isinstance(each, str) for each in given):
            asked = [str(each) for each in given]
            ids = self._numbers(asked)
            return self._made.searcher.rows.take(ids), ids, np.asarray(asked)
        rows = np.atleast_2d(np.asarray(q))
        if rows.ndim != 2 or rows.dtype.kind not in "fiu":
            raise InputError(
                f"search got an array of shape {np.shape(q)} and {rows.dtype}; give one "
                "vector (F,), several (n, F), a DataArray, or ids of images."
            )
        self._check_width(rows.shape[1], asked="search")
        rows = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
        return rows, np.full(len(rows), -1), None

    def _numbers(self, ids: Sequence[str]) -> Ids:
        if self._rows is None:
            alive = np.flatnonzero(self._made.searcher.alive)
            names = self._images[alive].tolist()
            self._rows = dict(zip(names, alive.tolist(), strict=True))
        missing = [each for each in ids if str(each) not in self._rows]
        if missing:
            raise InputError(
                f"the index has no image {str(missing[0])!r} that can be found. "
                f"{did_you_mean(str(missing[0]), self._rows)}"
            )
        return np.array([self._rows[str(each)] for each in ids], np.int64)

    def _check_width(self, width: int, *, asked: str) -> None:
        features = len(self._made.searcher.space.center)
        if width != features:
            raise InputError(
                f"{asked} got rows of {width} features and the index has {features}; "
                "give rows of the layer that it was built from."
            )

    def _check_reach(self, rows: Floats) -> None:
        space = self._made.searcher.space
        if self.metric != "inner_product" or not len(rows):
            return
        gap = space.raw(rows) - space.center
        length = float(np.sqrt(np.einsum("nf,nf->n", gap, gap).max()))
        if length > space.reach:
            raise InputError(
                f"Index.add got a row {length / space.reach:.2f} times as long as this index "
                "of inner products can order; build it anew with all rows."
            )


def _ids_of(x: xr.DataArray, *, first: int) -> npt.NDArray[np.str_]:
    """Return the ids of the images, their row numbers where they have none."""
    if "image" not in x.coords:
        return np.arange(first, first + x.sizes["image"]).astype(np.str_)
    images = np.asarray(x["image"].values).astype(np.str_)
    names, counts = np.unique(images, return_counts=True)
    if len(names) < len(images):
        twice = str(names[counts > 1][0])
        raise InputError(
            f"an index needs distinct image ids and {twice!r} is there "
            f"{counts.max()} times; give each image its own."
        )
    return images


def _check(recall: float, k: int, metric: str, n_images: int) -> None:
    if not 0 < recall < 1:
        raise InputError(
            f"build_index got recall={recall}; choose one between 0 and 1, or use "
            "neighbors, which is exact."
        )
    if not 1 <= k < n_images:
        raise InputError(
            f"build_index got n_neighbors={k} for {n_images} images; "
            f"choose 1 to {n_images - 1}."
        )
    known = ("euclidean", "cosine", "inner_product")
    if metric not in known:
        raise InputError(f"build_index got metric={metric!r}; choose one of {known}.")
