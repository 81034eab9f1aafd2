"""The driver: brings a store in line with a call, sends blocks to Dask, hands it back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embedkit.errors import StoreError
from embedkit.extraction.asked import Asked, name_in_store
from embedkit.extraction.changes import (
    apply_changes,
    check_changes,
    digest_of,
    find_changes,
)
from embedkit.extraction.decoding import Decode, as_stored
from embedkit.extraction.drafts import first_schema, lacking
from embedkit.extraction.plans.followed import PlanChoice, followed, keep_plan
from embedkit.extraction.plans.learned import learning
from embedkit.extraction.rounding import Dtype
from embedkit.extraction.run import Progress, writing
from embedkit.extraction.strategy.by_layer import fill_by_ways
from embedkit.extraction.todo import existing
from embedkit.extraction.understood import understood
from embedkit.files.files import Files, files_at
from embedkit.images.imageset import ImageSet
from embedkit.networks.backends import Backend
from embedkit.networks.choice import LayerChoice
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool
from embedkit.planning.plan import Plan
from embedkit.planning.strategies import AskedStrategy
from embedkit.store.blocks import check_shards
from embedkit.store.create import abandoned, create
from embedkit.store.layout import add_passes
from embedkit.store.lock import locked
from embedkit.store.manifest import seal
from embedkit.store.store import Store
from embedkit.store.table import to_dataset

if TYPE_CHECKING:
    from torch import nn


def extract(  # noqa: PLR0913 - every one of them is a decision of the user
    images: ImageSet | Any,
    network: Network | str | nn.Module | Sequence[Network | str | nn.Module],
    path: str | os.PathLike[str],
    *,
    layers: LayerChoice | Mapping[str, LayerChoice] = "stages",
    pool: Pool | Mapping[str, Pool] = "avg",
    dtype: Dtype = "float32",
    backend: Backend | Literal["auto"] = "torch",
    decode: Decode = "exact",
    batch_size: int | None = None,
    strategy: AskedStrategy = "auto",
    update: bool = False,
    add_network: bool = False,
    plan: PlanChoice = "auto",
    memory_limit: int | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Store:
    """Write a network's activations of every image into a Zarr store.

    Calling it again with the same arguments finishes what is missing and computes
    nothing twice. More images are added behind those that are there, and more layers
    beside them. Blocks run as Dask tasks on the active distributed client, or else on
    Dask's configured scheduler in this process.

    Parameters
    ----------
    images : ImageSet or source
        What `open_images` returns, or takes.
    network : Network, str or nn.Module, or a sequence of them
        What `load_network` returns, or takes. Of several, with different names, each
        image is read and decoded once; the layers of all but the store's first stand
        behind the network's name: ``store["resnet18/layer4"]``.
    path : path or URL
        The store: a folder, made with its parents, or ``s3://bucket/name``; extended
        where it exists.
    layers : str, sequence of str or callable, default "stages"
        ``"all"``, ``"blocks"``, ``"stages"``, ``"last"``, names, module paths, globs, or
        a function that is given each row of `Network.layers`; see
        `Network.resolve`. Layers that the store has besides them stay. For several
        networks also a mapping from their names.
    pool : str or mapping of str to str, default "avg"
        How an activation becomes features: ``"avg"``, ``"max"`` or ``"gem"`` over
        positions, ``"avg2x2"`` or ``"max2x2"`` over the four parts of a map, ``"cls"``
        or ``"tokens_avg"`` of tokens, ``"random_projection(k)"`` to k numbers,
        ``"flatten"`` for everything in one row, or ``"none"`` for the map as it is (see
        `embedkit.networks.pools.check_pool`). Or one for each layer by name, module or
        glob, such as ``{"layer4": "none", "*": "avg"}``, where the first that fits
        counts.
    dtype : {"float32", "float16"}, default "float32"
        What layers are stored as. A number that float16 cannot hold is an error; the
        largest difference that rounding made to a layer is in ``info()``.
    backend : str, default "torch"
        What executes the network: ``"torch"``, the reference; ``"openvino"``,
        ``"torch_channels_last"``, ``"torch_fused"`` or ``"cuda_amp"``, which are faster
        in some places and right within a tolerance (`embedkit.networks.backends`); or
        ``"auto"`` for the fastest of those that agree with the reference on a batch of
        these images, measured where blocks run. The store keeps the choice with the figures, and
        layers keep the backend that they were begun with.
    decode : {"exact", "fast"}, default "exact"
        ``"fast"`` decodes a JPEG at a half, a quarter or an eighth of its size where the
        shorter side still has as many pixels as the transform resizes to. Other files,
        and JPEGs of less than twice that size, come out the same: photos of 500 by 375
        gain nothing before a resize to 256, those of 12 megapixels a lot. The store
        keeps the rule, and how far off the first images were (`embedkit.images.draft`).
    batch_size : int, optional
        Images per forward pass, default from the settings. It decides the last bits of
        the numbers, so a network keeps the one that its first layers were stored with.
    strategy : {"auto", "fused", "staged", "lazy"}, default "auto"
        How several layers are computed: ``"fused"`` in one pass over the images,
        ``"staged"`` each from the raw map of the one before, which lies in the store's
        private folder meanwhile, ``"lazy"`` each from the images. The numbers are the
        same, bit by bit. ``"auto"`` is that of the plan, else ``"fused"``; what was begun
        goes on the way it was begun.
    update : bool, default False
        Whether images that have changed are computed again, and those that are no
        longer among `images` become rows of NaN. Their rows stay where they are.
    add_network : bool, default False
        Whether a store of another network takes this one too. Its layers then stand
        behind its name: ``store["resnet18/layer4"]``.
    plan : Plan, "auto" or None, default "auto"
        What `embedkit.plan` returned is followed: its blocks, batches, threads and
        window. ``"auto"`` makes a plan where the run looks long or memory tight, from
        what the networks take here, which is measured once; other runs have the batches
        of the settings and blocks by images and layers alone, as all have with None.
        Blocks and batches that a store has are kept. The plan is kept beside the data,
        in ``_embedkit/plans``.
    memory_limit : int or str, optional
        For ``plan="auto"``: bytes that a worker may have, or text such as ``"2 GiB"``, by
        default what the workers have, or this process.
    on_progress : callable, optional
        Called with a `Progress` for every block: on a cluster as it ends, otherwise
        after every few of them.

    Returns
    -------
    Store
        With every layer of this network complete. An image that could not be read is a
        row of NaN with a reason in ``status`` and ``error``.

    Raises
    ------
    InputError, SourceError, NetworkError
        When an argument cannot be used. Nothing is written then.
    PlanError
        When what is asked cannot fit into the workers' memory, with three changes with
        each of which it would. Nothing is written then.
    IdentityMismatch
        When a store at `path` was made from other images, weights or settings.
    IncompleteStore
        When blocks had to be given up because they killed their worker, or failed, time
        after time; all others are written.
    StoreError
        When the place cannot be written, holds something else, or is being written by
        another process.

    Notes
    -----
    A file counts as unchanged while its size and its time of change are the same; where
    one differs, its content decides. The image table follows the one given now.
    """
    looks = understood(
        images,
        network,
        layers=layers,
        pool=pool,
        dtype=dtype,
        backend=backend,
        decode=decode,
        batch_size=batch_size,
        strategy=strategy,
        update=update,
        add_network=add_network,
    )
    files = files_at(path)
    with writing(files):
        store = existing(files)
        if store is not None:
            looks = as_stored(store.schema, looks)
            if _nothing_to_do(store, looks):
                return store
        asked, found = followed(
            looks,
            store,
            plan,
            where=files,
            strategy=strategy,
            memory_limit=memory_limit,
            batch_size=batch_size,
        )
        return _extracted(files, store, asked, found, on_progress)


def _extracted(
    files: Files,
    store: Store | None,
    looks: Sequence[Asked],
    plan: Plan | None,
    on_progress: Callable[[Progress], None] | None,
) -> Store:
    planned = looks
    if store is None:
        looks = as_stored(_created(files, looks).schema, looks)
    with locked(files) as lock:
        store = _in_line(files, looks)
        named = {
            name_in_store(store.schema, asked, where=store.url): asked
            for asked in looks
        }
        if plan is not None:
            keep_plan(store, named, plan)
        with learning(store, named, plan, planned):
            return fill_by_ways(
                store, named, lock=lock, plan=plan, on_progress=on_progress
            )


def _created(files: Files, looks: Sequence[Asked]) -> Store:
    """Create the store; where another process was faster, join that one."""
    schema, images = first_schema(looks, where=files.url), looks[0].images
    table = to_dataset(images.table)
    place = files.for_zarr()
    if isinstance(place, str) and Path(place).is_dir():
        Path(place).rmdir()  # empty: as good as none
    try:
        with _alone(files):
            create(files, schema, table, sizes=images.sizes, mtimes=images.mtimes)
    except StoreError:
        if not files.exists("") or abandoned(files):
            raise
    return Store(files)


def _alone(files: Files) -> AbstractContextManager[object]:
    """Hold the lock while a store is made where it cannot be made beside its place."""
    return nullcontext() if isinstance(files.for_zarr(), str) else locked(files)


def _nothing_to_do(store: Store, looks: Sequence[Asked]) -> bool:
    """Whether the store is finished, and is what was asked for. Nothing is written."""
    if not (store.finished and store.complete):
        return False
    if lacking(store.schema, looks, where=store.url):
        return False
    asked = looks[0]
    for one in store.schema.passes:
        for spec in one.layers:
            check_shards(store.files, spec, range(len(store.schema.grid(one))))
    changes = find_changes(store, asked.images)
    check_changes(store, changes, update=asked.update)
    return changes.table is None


def _in_line(files: Files, looks: Sequence[Asked]) -> Store:
    """Bring the store in line with the images and layers asked for."""
    store = Store(files)  # anew: now that it is locked, nobody else changes it
    asked, missing = looks[0], lacking(store.schema, looks, where=store.url)
    changes = find_changes(store, asked.images)
    check_changes(store, changes, update=asked.update)
    schema = apply_changes(store, asked.images, changes)
    if missing:
        store.reopen()
        add_passes(files, replace(schema, passes=(*schema.passes, *missing)))
    digest = digest_of(asked.images)
    if digest is not None and changes.table is None:
        seal(files, digest)
    return Store(files)
