"""Raw maps that nobody asked for: small stores inside a store's private folder.

Each holds one layer of one network, unpooled, in float32. It is written and read like any
other store, so a run that was killed goes on with what is there; and it is as private as
the rest of the folder, and gone when the run is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from embedkit.errors import StoreError
from embedkit.extraction.changes import find_changes
from embedkit.files.files import Files, files_at
from embedkit.images.imageset import ImageSet
from embedkit.networks.network import Network
from embedkit.planning.chains import map_block
from embedkit.store import arrays
from embedkit.store.blocks import check_shards
from embedkit.store.commits import PRIVATE
from embedkit.store.create import abandoned, create
from embedkit.store.identity import identity_of
from embedkit.store.lock import LOCK, Lock, locked
from embedkit.store.manifest import remembered
from embedkit.store.schema import LayerSpec, Pass, StoreSchema
from embedkit.store.store import Store

MAPS = f"{PRIVATE}/maps"
"""The folder of a store that holds them, each in a folder by its pass."""

_COLUMNS = ["image", "uri", "status", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """The raw maps of one network beside a store.

    Parameters
    ----------
    store : Store
        The store, locked by this process.
    images : ImageSet
        Its images as they are now.
    network : Network
        The network.
    like : Pass
        A pass of that network: maps are made with its batches, from images decoded so.
    block : int
        Images per task and shard, for all maps.
    """

    store: Store
    images: ImageSet
    network: Network
    like: Pass
    block: int

    def one(self, tap: str) -> Pass:
        """Return the pass that writes a map."""
        spec = _spec(self.network, tap)
        parts = {**self.like.parts, "layers": tap, "pool": "none", "dtype": "float32"}
        return replace(
            self.like,
            layers=(spec,),
            block=self.block,
            parts=parts,
            identity=identity_of(parts),
            about={},
        )

    def place(self, tap: str) -> str:
        """Return where the map of a tap lies."""
        return f"{self.store.url}/{MAPS}/{self.one(tap).key}"

    def there(self) -> list[str]:
        """Return the taps of this network of whose maps something lies there."""
        names = self.store.files.names(MAPS)
        keys = {name.partition("/")[0] for name in names}
        taps = self.network.layers.index if keys else ()
        return [tap for tap in taps if self.one(tap).key in keys]

    def complete(self, tap: str, blocks: Collection[int]) -> bool:
        """Whether a map is there and has some blocks of the images as they are now."""
        found = self._found(tap)
        return found is not None and set(blocks) <= found.commits(self.one(tap)).keys()

    @contextmanager
    def opened(self, tap: str) -> Iterator[tuple[Store, Lock]]:
        """Hold the store of a map, made anew where what is there is of no use."""
        files = files_at(self.place(tap))
        if self._found(tap) is None:
            _remove(self.store.files, self.one(tap).key)
            self._create(files, tap)
        # Whoever left a lock there is gone: it did not hold the store around this one.
        files.delete(LOCK)
        with locked(files) as lock:
            yield Store(files), lock

    def _found(self, tap: str) -> Store | None:
        """Return the store of a map, if it is one, whole, and of these images."""
        files, one = files_at(self.place(tap)), self.one(tap)
        if not files.exists("zarr.json") or abandoned(files):
            return None
        with suppress(StoreError, *files.failures):
            found = Store(files)
            (there,) = found.schema.passes
            if (there.identity, there.block) != (one.identity, one.block):
                return None
            check_shards(files, one.layers[0], found.commits(there).keys())
            return found if self._is_current(found) else None
        return None

    def _is_current(self, found: Store) -> bool:
        """Whether a map has the rows of the store, and saw the images as they are now."""
        if found.schema.n_images != self.store.schema.n_images:
            return False
        mine, its = (
            arrays.read_text(each.files, "image") for each in (self.store, found)
        )
        changes = find_changes(found, self.images)
        moved = len(changes.new) + len(changes.to_redo) + len(changes.lost)
        return mine == its and not moved

    def _create(self, files: Files, tap: str) -> None:
        n_images = self.store.schema.n_images
        sizes, mtimes = (
            remembered(self.store.files, name)[:n_images] for name in ("size", "mtime")
        )
        create(
            files,
            StoreSchema(n_images=n_images, passes=(self.one(tap),)),
            self.store.columns()[_COLUMNS],
            sizes=sizes,
            mtimes=mtimes,
        )

    def keep(self, taps: Collection[str]) -> None:
        """Delete the maps of this network but those of some taps."""
        for tap in self.there():
            if tap not in taps:
                _remove(self.store.files, self.one(tap).key)


def block_of_maps(
    network: Network, taps: Collection[str], *, n_images: int, batch: int, block: int
) -> int:
    """Return how many images of maps one task takes: see `map_block`."""
    largest = max((_spec(network, tap).row_bytes for tap in taps), default=1)
    return map_block(largest, n_images=n_images, batch=batch, block=block)


def _spec(network: Network, tap: str) -> LayerSpec:
    row = network.layers.loc[tap]
    return LayerSpec(
        name=tap,
        tap=tap,
        type=str(row["type"]),
        shape=tuple(row["shape"]),
        dtype="float32",
        pool="none",
    )


def _remove(files: Files, key: str) -> None:
    """Delete a map. Killed half-way, what is left does not pass for one."""
    files.delete(f"{MAPS}/{key}/zarr.json")
    files.delete_tree(f"{MAPS}/{key}")
