"""The driver: plans the blocks, sends them to Dask, and hands the store back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import embedkit
from embedkit.config import settings
from embedkit.errors import InputError, StoreError
from embedkit.extraction.dispatch import run_blocks
from embedkit.extraction.task import BlockReport, Job
from embedkit.images.decode import DECODE_POLICY
from embedkit.images.imageset import ImageSet
from embedkit.images.open import open_images
from embedkit.networks.load import load_network
from embedkit.networks.network import Network
from embedkit.networks.pooling import Pool
from embedkit.planning.grid import choose_block
from embedkit.store import arrays
from embedkit.store.commits import PRIVATE, Commit
from embedkit.store.identity import check_identity, identity_of
from embedkit.store.schema import LayerSpec, StoreSchema
from embedkit.store.store import Store, open_store
from embedkit.store.table import to_dataset

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an extraction is, as given to ``on_progress``.

    Parameters
    ----------
    images_done, n_images : int
        Images written, those of an earlier run included, and images in all.
    images_before : int
        Images that an earlier run had written.
    n_failed : int
        Images that could not be read, so far.
    seconds : float
        Wall-clock seconds since this run began.
    """

    images_done: int
    n_images: int
    images_before: int
    n_failed: int
    seconds: float


def extract(
    images: ImageSet | Any,
    network: Network | str | nn.Module,
    path: str | os.PathLike[str],
    *,
    layers: str | Sequence[str] = "stages",
    pool: Pool = "avg",
    batch_size: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Store:
    """Write a network's activations of every image into a Zarr store.

    Calling it again with the same arguments finishes what is missing and computes
    nothing twice. Blocks run as Dask tasks on the active distributed client, or else on
    Dask's configured scheduler in this process.

    Parameters
    ----------
    images : ImageSet or source
        What `open_images` returns, or takes.
    network : Network, str or nn.Module
        What `load_network` returns, or takes.
    path : path
        The store's folder; made with its parents, or extended where it exists.
    layers : str or sequence of str, default "stages"
        ``"all"``, ``"stages"``, ``"last"``, names, module paths or globs; see
        `Network.resolve`.
    pool : {"avg", "max", "flatten", "none"}, default "avg"
        How an activation becomes features: mean or maximum over positions, everything
        in one row, or as it is.
    batch_size : int, optional
        Images per forward pass, default from the settings. It decides the last bits of
        the numbers, so a store keeps the one it was created with.
    on_progress : callable, optional
        Called with a `Progress` for every block: on a cluster as it ends, otherwise
        after every few of them.

    Returns
    -------
    Store
        Complete. An image that could not be read is a row of NaN with a reason in
        ``status`` and ``error``.

    Raises
    ------
    InputError, SourceError, NetworkError
        When an argument cannot be used. Nothing is written then.
    IdentityMismatch
        When a store at `path` was made from other images, weights or settings.
    StoreError
        When the place cannot be written or holds something else.

    Notes
    -----
    An existing store keeps the image table that it was created with. An error in a task
    ends the run; the blocks before it stay.
    """
    image_set = images if isinstance(images, ImageSet) else open_images(images)
    net = network if isinstance(network, Network) else load_network(network)
    place = Path(path).absolute()
    size = settings().batch_size if batch_size is None else batch_size
    schema = _schema(image_set, net, layers, pool, size)
    store = _open_or_create(place, schema, image_set)
    return _run(store, image_set, net, pool, on_progress)


def _schema(
    images: ImageSet,
    network: Network,
    layers: str | Sequence[str],
    pool: Pool,
    batch_size: int,
) -> StoreSchema:
    if batch_size < 1:
        message = f"batch_size is {batch_size}: give 1 or more"
        raise InputError(message)
    taps = network.taps(network.resolve(layers), pool=pool)
    types = network.layers["type"]
    specs = tuple(
        LayerSpec(
            name=layer,
            type=str(types[layer]),
            shape=tuple(taps.shapes[layer]),
            dtype=np.dtype(np.float32).name,
            aliases=tuple(
                sorted(path for path, tap in network.aliases.items() if tap == layer)
            ),
        )
        for layer in taps.layers
    )
    parts = {
        **network.identity_parts,
        "images": images.digest,
        "decode": DECODE_POLICY,
        "layers": " ".join(taps.layers),
        "pool": pool,
        "dtype": "float32",
    }
    block = choose_block(len(images), sum(spec.row_bytes for spec in specs))
    return StoreSchema(
        n_images=len(images),
        block=block,
        batch_size=min(batch_size, block),
        layers=specs,
        identity=identity_of(parts),
        parts=parts,
        about=_about(network, pool),
    )


def _about(network: Network, pool: str) -> dict[str, str]:
    return {
        "network": network.name,
        "pool": pool,
        "transform": network.identity_parts["transform"],
        "embedkit": embedkit.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _open_or_create(path: Path, schema: StoreSchema, images: ImageSet) -> Store:
    if not path.exists():
        try:
            arrays.create(path, schema, to_dataset(images.table))
        except StoreError:
            if not path.exists():  # or another process was faster, with the same store
                raise
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()  # an empty folder is as good as none
        return _open_or_create(path, schema, images)
    try:
        store = open_store(path)
    except StoreError as error:
        message = (
            f"cannot extract into {path}, which exists: {error}; or give another path"
        )
        raise StoreError(message) from error
    check_identity(store.schema.parts, schema.parts, where=str(path))
    return store


def _run(
    store: Store,
    images: ImageSet,
    network: Network,
    pool: Pool,
    on_progress: Callable[[Progress], None] | None,
) -> Store:
    """Compute the blocks that are missing, then tidy up."""
    commits = store.commits
    todo = [block for block in range(len(store.schema.grid)) if block not in commits]
    spool = store.path / PRIVATE / "spool"
    if todo:
        job = _job(store, images, network, pool, spool)
        _follow(run_blocks(job, todo), store, commits, on_progress)
    if not store.finished:  # also where an earlier run died just before this
        store.finish()
        shutil.rmtree(spool, ignore_errors=True)
    return store


def _job(
    store: Store, images: ImageSet, network: Network, pool: Pool, spool: Path
) -> Job:
    """Put what workers need where they find it."""
    try:
        return Job(
            store=str(store.path),
            identity=store.schema.identity,
            network=network.spool(spool),
            pool=pool,
            source=images.source.spooled(spool),
            batch_size=store.schema.batch_size,
            decode_threads=settings().decode_threads,
        )
    except OSError as error:
        message = (
            f"cannot go on with the store {store.path}: {error.strerror or error}: "
            "make room or get permission, then run the same call again"
        )
        raise StoreError(message) from error


def _follow(
    reports: Generator[BlockReport, None, None],
    store: Store,
    commits: Mapping[int, Commit],
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Drain the reports of a run, and tell how far it is."""
    began = time.perf_counter()
    before = done = sum(each.stop - each.start for each in commits.values())
    failed = sum(len(each.failures) for each in commits.values())
    with closing(reports):
        for report in reports:
            done += report.n_images
            failed += report.n_failed
            if on_progress is not None:
                on_progress(
                    Progress(
                        images_done=done,
                        n_images=store.schema.n_images,
                        images_before=before,
                        n_failed=failed,
                        seconds=time.perf_counter() - began,
                    )
                )
