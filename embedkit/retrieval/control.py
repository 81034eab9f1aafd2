"""How near is the same picture: a threshold from altered copies, with what it is worth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.frame import check_rows, whole
from embedkit.analysis.linear_probe import wilson
from embedkit.analysis.pair_distances import Metric, lift, pair_distances
from embedkit.errors import InputError, SourceError
from embedkit.extraction.origins import source_of
from embedkit.extraction.recompute import good_rows
from embedkit.images.altered import ALTERATIONS, altered
from embedkit.images.draft import decoded_by
from embedkit.images.imageset import ImageSet
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.retrieval.embed import Embedder, embedder_of
from embedkit.retrieval.scan import nearest
from embedkit.retrieval.threshold import Distances, best_threshold, twin_share
from embedkit.store import arrays, blocks
from embedkit.store.store import Store, open_store

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

Interval: TypeAlias = tuple[float, float]

_FEWEST = 8
"""Images below which a control says nothing (chosen: two copies of each kind)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateThreshold:
    """A distance below which two images count as one picture, and what it is worth.

    Attributes
    ----------
    threshold : float
        The distance.
    precision, recall, f1 : float
        On images that were not used to choose it. Pairs are a copy with its original,
        and the same copy with the nearest other image of the store, one of each.
    precision_interval, recall_interval : (float, float)
        95 % (Wilson).
    n_copies : int
        Copies that it was measured on; about as many were used to choose it.
    layer, metric : str
        Where it holds.
    """

    threshold: float
    precision: float
    recall: float
    f1: float
    precision_interval: Interval
    recall_interval: Interval
    n_copies: int
    layer: str
    metric: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        found = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def duplicate_threshold(
    store: Store | str | os.PathLike[str],
    *,
    layer: str | None = None,
    sample: int = 200,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    flips: bool = False,
    network: Network | str | nn.Module | None = None,
    images: ImageSet | None = None,
    seed: int = 0,
) -> DuplicateThreshold:
    """Measure up to which distance two images are the same picture.

    Some images of the store are altered as copies are met again (saved as JPEG, resized,
    cut at the edges, brightened; see `embedkit.images.altered.altered`), and the store's
    network looks at the copies. The distances from copies to their originals, and to the
    nearest other images, tell where to draw the line.

    Parameters
    ----------
    store : Store or path
        Its image files have to be there still.
    layer : str, optional
        A layer with one vector per image. By default the last.
    sample : int, default 200
        How many images are copied, once each. Half of them choose the threshold, the
        others measure it.
    metric : {"euclidean", "cosine"}, default "euclidean"
        As for `embedkit.neighbors`.
    flips : bool, default False
        Whether mirror images count as the same picture too.
    network : Network, str or nn.Module, optional
        As for `embedkit.search`.
    images : ImageSet, optional
        The images of the store, where they were in memory.
    seed : int, default 0
        Of the choice of images and of their alterations.

    Returns
    -------
    DuplicateThreshold
        The one of the largest F1 on one half; of equal ones the smallest. It lies halfway
        between the last distance that it accepts and the next one.

    Raises
    ------
    InputError
        When fewer than 8 images can be copied, the layer has maps, or the network or the
        images are needed and not known.
    NotInStore
        When there is no such layer, with the nearest names.
    IdentityMismatch
        When the network is not the one that the store was made with.

    Notes
    -----
    Where the store has duplicates, the nearest other image often is one. The choice of
    the threshold allows for that (see `twin_share`); the precision does not, which
    assumes nothing and is a lower bound there. Copies of the same bytes are left out.
    """
    opened = store if isinstance(store, Store) else open_store(store)
    x = opened[list(opened)[-1] if layer is None else layer]
    check_rows(x, asked="duplicate_threshold", dims=("feature",))
    if metric not in ("euclidean", "cosine"):
        raise InputError(
            f"duplicate_threshold got metric={metric!r}; choose 'euclidean' or 'cosine'."
        )
    sample = whole(sample, asked="duplicate_threshold", name="sample")
    name = str(x.name)
    copies = _Copies(
        store=opened,
        source=decoded_by(
            source_of(opened, images), opened.schema.pass_of(name).parts["decode"]
        ),
        embedder=embedder_of(opened, name, network=network),
        kinds=len(ALTERATIONS) - (not flips),
        seed=seed,
    )
    rows, vectors = copies.made(sample)
    same, other, twin = _distances(x, rows, vectors, copies=copies, metric=metric)
    half = len(rows) // 2
    share = twin_share(same[:half], twin[:half])
    threshold = best_threshold(same[:half], other[:half], twins=share)
    return _measured(threshold, same[half:], other[half:], layer=name, metric=metric)


@dataclass(frozen=True, slots=True, eq=False)
class _Copies:
    """Makes altered copies of stored images, and looks at them."""

    store: Store
    source: Source
    embedder: Embedder
    kinds: int
    seed: int

    @property
    def contents(self) -> npt.NDArray[np.uint64]:
        """Hashes of the images' bytes, (N,)."""
        name = blocks.content_array(self.embedder.one)
        found = arrays.read(self.store.files, name)
        return found[: self.store.schema.n_images]

    def made(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Return rows of the store, in random order, and the vectors of their copies."""
        rows: list[int] = []
        parts: list[npt.NDArray[Any]] = []
        waiting: list[Image.Image] = []
        for row, image in self._images(sample):
            kind = ALTERATIONS[len(rows) % self.kinds]
            rng = np.random.default_rng([self.seed, row])
            waiting.append(altered(image, kind, rng=rng))
            rows.append(row)
            if len(waiting) == self.embedder.one.batch_size:
                parts.append(self._looked_at(waiting))
                waiting = []
        if len(rows) < _FEWEST:
            raise InputError(
                f"duplicate_threshold could copy {len(rows)} images of {self.store.url} "
                f"and needs {_FEWEST}; raise sample=, bring the image files back, or give "
                "a threshold of your own"
            )
        parts.append(self._looked_at(waiting))
        return np.array(rows, np.int64), np.concatenate(parts)

    def _images(self, sample: int) -> Iterator[tuple[int, Image.Image]]:
        """Yield images that are still as they were, of different content."""
        good = good_rows(self.store, self.embedder.one)
        contents = self.contents
        _, first = np.unique(contents[good], return_index=True)
        rows = np.random.default_rng(self.seed).permutation(good[np.sort(first)])
        count = 0
        for row in rows.tolist():
            if count >= sample:
                return
            (uri,) = arrays.read_text(self.store.files, "uri", rows=slice(row, row + 1))
            loaded = self.source.load(uri)
            if isinstance(loaded.image, SourceError) or loaded.content != contents[row]:
                continue
            count += 1
            yield row, loaded.image

    def _looked_at(self, images: list[Image.Image]) -> npt.NDArray[Any]:
        return self.embedder.rows(images, names=["a copy"] * len(images))


def _distances(
    x: xr.DataArray,
    rows: npt.NDArray[np.int64],
    vectors: npt.NDArray[Any],
    *,
    copies: _Copies,
    metric: Metric,
) -> tuple[Distances, Distances, Distances]:
    """Return how far each copy is from its original and from the nearest other image.

    The third distances are those from the originals to their nearest other images.
    """
    order = np.argsort(rows)
    originals = np.empty_like(vectors)
    originals[order] = x.isel(image=rows[order]).values
    same = pair_distances(lift(vectors, metric), lift(originals, metric), metric)
    contents = copies.contents
    mask = ~np.isin(contents, contents[rows])
    mask[rows] = True
    others, twins = (
        np.nan_to_num(found[:, 0], nan=np.inf)
        for found, _ in (
            nearest(x, each, own=rows, k=1, metric=metric, mask=mask)
            for each in (vectors, originals)
        )
    )
    usable = np.isfinite(same)
    return same[usable], others[usable], twins[usable]


def _measured(
    threshold: float, same: Distances, other: Distances, *, layer: str, metric: str
) -> DuplicateThreshold:
    hits, wrong = int((same <= threshold).sum()), int((other <= threshold).sum())
    accepted = hits + wrong
    return DuplicateThreshold(
        threshold=threshold,
        precision=hits / accepted if accepted else float("nan"),
        recall=hits / len(same),
        f1=2 * hits / (accepted + len(same)),
        precision_interval=wilson(hits, accepted) if accepted else (0.0, 1.0),
        recall_interval=wilson(hits, len(same)),
        n_copies=len(same),
        layer=layer,
        metric=metric,
    )
