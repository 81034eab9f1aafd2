"""What has happened to the images of a store since it was written, and how it follows.

Rows never move: an image keeps its row, new images come behind the others, and one that
is gone leaves a row of NaN. Only blocks that hold a changed image are computed again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedkit.errors import IdentityMismatch, SourceError
from embedkit.images.imageset import ImageSet
from embedkit.store import arrays, layout
from embedkit.store.blocks import content_array
from embedkit.store.commits import withdraw
from embedkit.store.manifest import (
    remembered,
    seal,
    sealed,
    unseal,
    write_manifest,
)
from embedkit.store.schema import Pass, StoreSchema
from embedkit.store.store import Store
from embedkit.store.table import to_dataset, to_frame

_Rows: TypeAlias = npt.NDArray[np.int64]
_Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How images as they are now differ from those that a store was made of.

    Parameters
    ----------
    place : (N,) array of int64
        For every row of the store, where its image stands now; -1 where it is gone.
    new : (n,) array of int64
        Where images stand that the store does not have.
    changed : (n,) array of int64
        Rows whose image has another content, and which hold numbers.
    mended : (n,) array of int64
        Rows that hold no number, because there was nothing to read, and now there is.
    gone : (n,) array of int64
        Rows whose image was taken out of the set.
    lost : (n,) array of int64
        Rows that hold numbers, and whose image cannot be read now.
    table : DataFrame, optional
        The image table to write, every row of it; None where nothing is to be written.
    """

    place: _Rows
    new: _Rows
    changed: _Rows
    mended: _Rows
    gone: _Rows
    lost: _Rows
    table: pd.DataFrame | None

    @property
    def to_redo(self) -> _Rows:
        """Rows that have to be computed again."""
        return np.concatenate([self.changed, self.mended, self.gone])


def find_changes(store: Store, images: ImageSet) -> Changes:
    """Compare images with those of a store, without writing anything.

    A file of the same size and time of change counts as unchanged; where either
    differs, or the time is not known, or it could not be read before, its content is
    hashed and compared.
    """
    n, none = store.schema.n_images, np.empty(0, np.int64)
    digest = digest_of(images)
    if digest is not None and digest == sealed(store.files):
        place = np.arange(n)
        rows = dict.fromkeys(("new", "changed", "mended", "gone", "lost"), none)
        return Changes(place=place, **rows, table=None)
    ids = arrays.read_text(store.files, "image", rows=slice(n))
    asked = images.table.index
    place = asked.get_indexer(pd.Index(ids)).astype(np.int64)
    new = np.setdiff1d(np.arange(len(asked)), place)
    differs, holds, lost = _contents(store, images, place, ids)
    uris = np.array(arrays.read_text(store.files, "uri", rows=slice(n)), object)
    changes = Changes(
        place=place,
        new=new,
        changed=np.flatnonzero(differs & holds & ~lost),
        mended=np.flatnonzero(differs & ~holds),
        gone=np.flatnonzero((place < 0) & (uris != "")),
        lost=np.flatnonzero(differs & holds & lost),
        table=_table(store, images, place, new),
    )
    return changes if _matters(store, images, changes) else replace(changes, table=None)


def _contents(
    store: Store, images: ImageSet, place: _Rows, ids: list[str]
) -> tuple[_Mask, _Mask, _Mask]:
    """Return which rows have another content, hold any numbers, cannot be read now."""
    n = len(place)
    size, mtime = (remembered(store.files, name)[:n] for name in ("size", "mtime"))
    same = (
        (images.sizes[place] == size) & (images.mtimes[place] == mtime) & (mtime >= 0)
    )
    differs, holds, lost = (np.zeros(n, np.bool_) for _ in range(3))
    for one in store.schema.passes:
        written, read = _rows_written(store, one, ids)
        then = arrays.read(store.files, content_array(one), rows=slice(n))
        doubtful = ~same | (then == 0)
        look = np.flatnonzero((place >= 0) & written & doubtful)
        now = images.contents(place[look])
        differs[look] |= then[look] != now
        lost[look] |= now == 0
        holds |= read
    return differs, holds, lost


def _rows_written(store: Store, one: Pass, ids: list[str]) -> tuple[_Mask, _Mask]:
    """Return which rows a pass has written, and which of them are not NaN."""
    written = np.zeros(len(ids), np.bool_)
    read = np.zeros(len(ids), np.bool_)
    for commit in store.commits(one).values():
        written[commit.start : commit.stop] = True
        failed = [
            ids[row] in commit.failures for row in range(commit.start, commit.stop)
        ]
        read[commit.start : commit.stop] = ~np.array(failed)
    return written, read


def _table(store: Store, images: ImageSet, place: _Rows, new: _Rows) -> pd.DataFrame:
    """Return the image table that a store should have: as the images say it now.

    Columns and rows that only the store knows stay as they are.
    """
    old = to_frame(store.columns()).drop(columns=["status", "error"])
    index = old.index.append(images.table.index[new])
    gone = np.concatenate([place < 0, np.zeros(len(new), np.bool_)])
    columns = {
        name: _column(old, images.table, name, index=index, gone=gone)
        for name in dict.fromkeys([*images.table.columns, *old.columns])
    }
    frame = pd.DataFrame(columns, index=index)
    frame.loc[gone, "uri"] = ""
    return frame


def _column(
    old: pd.DataFrame,
    now: pd.DataFrame,
    name: str,
    *,
    index: pd.Index[Any],
    gone: _Mask,
) -> pd.Series[Any]:
    if name not in now:
        return old[name].reindex(index)
    values = now[name].reindex(index)
    if not gone.any() or name not in old:
        return values
    mixed = values.astype(object).where(~gone, old[name].reindex(index).astype(object))
    return mixed.infer_objects()


def _matters(store: Store, images: ImageSet, changes: Changes) -> bool:
    """Whether anything would be written: a finished store is left alone."""
    if len(changes.new) or len(changes.to_redo) or changes.table is None:
        return True
    sizes, mtimes = _sizes_and_mtimes(images, changes)
    if not np.array_equal(remembered(store.files, "size"), sizes):
        return True
    if not np.array_equal(remembered(store.files, "mtime"), mtimes):
        return True
    fresh = to_dataset(changes.table).drop_vars(["status", "error"])
    stored = store.columns().drop_vars(["status", "error"])
    return not fresh.reset_coords().equals(stored.reset_coords())


def check_changes(store: Store, changes: Changes, *, update: bool) -> None:
    """Refuse to replace stored numbers unless that was asked for.

    Raises
    ------
    IdentityMismatch
        When images have changed or are gone, saying how many and which.
    SourceError
        When images whose numbers are stored cannot be read now, whatever was asked for:
        a disk or server that is away for a while must not cost what was computed.
    """
    if len(changes.lost):
        raise SourceError(
            f"store {store.url} has numbers of {len(changes.lost):,} images that cannot be "
            f"read now ({_some_ids(store, changes.lost)}): bring them back and run the "
            "same call again, or leave them out of the images and give update=True "
            "(--update) for rows of NaN"
        )
    if update or not (len(changes.changed) or len(changes.gone)):
        return
    said = [
        f"{len(rows)} {word} ({_some_ids(store, rows)})"
        for rows, word in ((changes.changed, "changed"), (changes.gone, "gone"))
        if len(rows)
    ]
    n = store.schema.n_images
    error = IdentityMismatch(
        f"store {store.url} was made with other images: of its {n:,}, "
        f"{' and '.join(said)}, besides {len(changes.new):,} new: give another path, the "
        "same images, or update=True (--update) to compute the changed ones again and "
        "leave rows of NaN for those that are gone"
    )
    error.parts = ("images",)
    raise error


def apply_changes(store: Store, images: ImageSet, changes: Changes) -> StoreSchema:
    """Bring a store in line with its images; blocks to compute lose their records.

    Returns
    -------
    StoreSchema
        The one now in force. Killed anywhere, the next call finds the same changes.
    """
    schema = store.schema
    if changes.table is None:
        return schema
    store.reopen()
    unseal(store.files)
    for one in schema.passes:
        redo = {int(row) // one.block for row in changes.to_redo}
        if redo:
            withdraw(store.files, one, schema.grid(one), redo)
    _write_images(store, images, changes)
    grown = StoreSchema(n_images=len(changes.table), passes=schema.passes)
    layout.grow(store.files, grown)
    digest = digest_of(images)
    if digest is not None:
        seal(store.files, digest)
    return grown


def _write_images(store: Store, images: ImageSet, changes: Changes) -> None:
    if changes.table is not None:
        sizes, mtimes = _sizes_and_mtimes(images, changes)
        layout.write_columns(store.files, to_dataset(changes.table))
        columns = {"size": sizes, "mtime": mtimes}
        write_manifest(store.files, list(changes.table.index), columns)


def _sizes_and_mtimes(images: ImageSet, changes: Changes) -> tuple[_Rows, _Rows]:
    """Return what to remember for every row; -1 for those that are gone."""
    place = np.concatenate([changes.place, changes.new])
    both = (
        np.where(place < 0, -1, each[place]) for each in (images.sizes, images.mtimes)
    )
    sizes, mtimes = both
    return sizes, mtimes


def digest_of(images: ImageSet) -> str | None:
    """Return a digest of a set of images as it was given: table, sizes, times.

    None where the time of change of a file is not known: it would vouch for too much.
    """
    unknown = images.mtimes < 0
    if bool(unknown.all()) or bool((unknown & (images.sizes >= 0)).any()):
        return None
    digest = hashlib.sha256(" ".join(map(str, images.table.columns)).encode())
    for part in (pd.util.hash_pandas_object(images.table), images.sizes, images.mtimes):
        digest.update(np.asarray(part).tobytes())
    return digest.hexdigest()


def _some_ids(store: Store, rows: _Rows) -> str:
    ids = arrays.read_text(store.files, "image", rows=rows[:3])
    return ", ".join(map(repr, ids)) + (", …" if len(rows) > 3 else "")
