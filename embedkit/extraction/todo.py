"""What a call would compute now: everything in a new store, what is missing in an old one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedkit.errors import CorruptStore, StoreError
from embedkit.extraction.asked import Asked, check_stored, name_in_store
from embedkit.files.files import Files
from embedkit.planning.codecs import Codec
from embedkit.store.create import abandoned
from embedkit.store.schema import Pass
from embedkit.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToDo:
    """What a call would compute.

    Parameters
    ----------
    looks : tuple of Asked
        With the layers that are computed; empty where there is nothing to do.
    n_images : int
        Images that are looked at.
    block, batch_size : int, optional
        What the store has for them already; None where that is still open.
    codecs : mapping of str to mapping of str to str
        Those that the store has begun layers with, by network and tap.
    begun : tuple of Pass
        Those of the store that are to be finished.
    """

    looks: tuple[Asked, ...]
    n_images: int
    block: int | None = None
    batch_size: int | None = None
    codecs: Mapping[str, Mapping[str, Codec]] = field(default_factory=dict)
    begun: tuple[Pass, ...] = ()


def existing(files: Files) -> Store | None:
    """Open the store, if there is one; refuse anything else that is there.

    Raises
    ------
    StoreError
        When something else is there. An empty folder is as good as none.
    """
    place = files.for_zarr()
    if (
        isinstance(place, str)
        and Path(place).is_dir()
        and not any(Path(place).iterdir())
    ):
        return None
    if not files.exists("") or abandoned(files):
        return None
    try:
        return Store(files)
    except CorruptStore:
        raise
    except StoreError as error:
        message = (
            f"cannot extract into {files.url}, which exists: {error}; or give another "
            "place"
        )
        raise StoreError(message) from error


def to_do(store: Store | None, looks: Sequence[Asked]) -> ToDo:
    """Return what a call would compute.

    Parameters
    ----------
    store : Store, optional
        The store, where there is one already.
    looks : sequence of Asked
        What is asked of each network.

    Raises
    ------
    IdentityMismatch
        When the store was made by another network and may not take these, or has a layer
        pooled otherwise.
    """
    images = len(looks[0].images)
    if store is None:
        return ToDo(looks=tuple(looks), n_images=images)
    mine = [_mine(store, asked) for asked in looks]
    for asked, passes in zip(looks, mine, strict=True):
        check_stored(passes, asked, where=store.url)
    open_passes = [
        [one for one in passes if _open(store, one, images)] for passes in mine
    ]
    lacking = [
        _lacking(asked, passes, unfinished)
        for asked, passes, unfinished in zip(looks, mine, open_passes, strict=True)
    ]
    unfinished = [one for passes in open_passes for one in passes]
    stored = [one for passes in mine for one in passes]
    anew = any(_missing(*pair) for pair in zip(looks, mine, strict=True))
    return ToDo(
        looks=tuple(asked for asked in lacking if asked.layers),
        n_images=images if anew else _images_left(store, unfinished, images),
        block=max((one.block for one in unfinished), default=None),
        batch_size=max((one.batch_size for one in stored), default=None),
        codecs={
            asked.network.name: {s.tap: s.codec for one in passes for s in one.layers}
            for asked, passes in zip(looks, mine, strict=True)
        },
        begun=tuple(unfinished),
    )


def _mine(store: Store, asked: Asked) -> list[Pass]:
    """Return the passes that a store has of a network."""
    name = name_in_store(store.schema, asked, where=store.url)
    return [one for one in store.schema.passes if one.network == name]


def _open(store: Store, one: Pass, images: int) -> bool:
    """Whether some images of a pass are not computed yet."""
    return store.schema.n_images != images or len(store.commits(one)) < len(
        store.schema.grid(one)
    )


def _missing(asked: Asked, passes: Sequence[Pass]) -> list[str]:
    stored = {spec.tap for one in passes for spec in one.layers}
    return [tap for tap in asked.layers if tap not in stored]


def _lacking(asked: Asked, passes: Sequence[Pass], unfinished: Sequence[Pass]) -> Asked:
    """Return what is asked with the layers that are computed: all of a pass go together."""
    begun = {spec.tap: spec.pool for one in unfinished for spec in one.layers}
    layers = (*begun, *_missing(asked, passes))
    return replace(asked, layers=layers, pools={**asked.pools, **begun})


def _images_left(store: Store, unfinished: Sequence[Pass], images: int) -> int:
    """Return how many images the pass that is farthest behind still lacks."""
    done = [
        sum(each.stop - each.start for each in store.commits(one).values())
        for one in unfinished
    ]
    return max(1, images - min(done, default=images))
