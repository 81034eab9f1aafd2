"""Reading a store back: a mapping from layer names to lazy, labelled arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from embedkit.errors import NotInStore, StoreError, did_you_mean
from embedkit.files.files import Files, files_at
from embedkit.store import arrays, layout, results, table
from embedkit.store.commits import Commit, read_commits
from embedkit.store.layer_array import layer_array
from embedkit.store.listing import described, layer_table
from embedkit.store.manifest import locate
from embedkit.store.schema import LayerSpec, Pass, StoreSchema
from embedkit.store.status import FINISHED, finish, image_table, with_status
from embedkit.store.summary import summary
from embedkit.store.verify import Verification, verify_bytes


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a store that `extract` wrote, finished or not, or still being written.

    Parameters
    ----------
    path : path or URL
        The store's folder, or where it lies in an object store: ``s3://bucket/name``.

    Returns
    -------
    Store
        Nothing but metadata is read.

    Raises
    ------
    StoreError
        When there is no store, saying what was found.
    CorruptStore
        When its metadata cannot be understood.
    """
    return Store(files_at(path))


class Store(Mapping[str, xr.DataArray]):
    """The activations of many images, by layer: ``store["layer4"]``.

    A mapping from layer names, in the networks' order, to lazy arrays. Use `open_store`
    or the result of `extract`. The layers of the first network have their own names,
    those of further networks stand behind the network's: ``resnet18/layer4``.

    Attributes
    ----------
    files : Files
        Where it lies.
    schema : StoreSchema
        What it holds, as it was when the store was opened.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self.schema: StoreSchema = layout.read_schema(files)

    @property
    def url(self) -> str:
        """Where the store lies: an absolute path, or a URL."""
        return self.files.url

    @property
    def path(self) -> Path:
        """The store's folder; plain ``xarray.open_datatree(path)`` reads it too.

        Raises
        ------
        StoreError
            When it lies in an object store.
        """
        place = self.files.for_zarr()
        if isinstance(place, str):
            return Path(place)
        message = f"{self.url} has no path in the file system: use its url"
        raise StoreError(message)

    def __getitem__(self, layer: str) -> xr.DataArray:
        """Return one layer, lazily.

        Parameters
        ----------
        layer : str
            A layer's name, or a module whose output a stored layer is.

        Returns
        -------
        DataArray
            Dims ``(image, feature)`` or ``(image, channel, y, x)``, chunked by whole
            blocks; coordinates ``image`` (the ids, without an index: select by position,
            by mask, or by `locate`), ``status``, ``error`` and the table's columns. Rows
            that could not be read, or are not extracted yet, are NaN.

        Raises
        ------
        NotInStore
            When there is no such layer, with the nearest names.
        CorruptStore
            When files of committed blocks are gone.
        """
        spec = self._find(layer)
        return layer_array(self.files, self.schema, spec)

    def __iter__(self) -> Iterator[str]:
        return (spec.name for spec in self.schema.layers)

    def __len__(self) -> int:
        return len(self.schema.layers)

    def __contains__(self, layer: object) -> bool:
        return any(layer in (spec.name, *spec.aliases) for spec in self.schema.layers)

    @property
    def layers(self) -> pd.DataFrame:
        """One row per layer: network, type, pool, shape per image, dtype, bytes."""
        return layer_table(self.schema)

    @property
    def images(self) -> pd.DataFrame:
        """The image table, indexed by id: uri, label, other columns, status, error.

        An image counts as ``ok`` when every layer has it.
        """
        return table.to_frame(self._with_status())

    def columns(self) -> xr.Dataset:
        """Return the image table as it is stored, lazily; cut while it is being grown."""
        return image_table(self.files, self.schema)

    def locate(self, ids: Sequence[str] | str) -> npt.NDArray[np.int64]:
        """Return the rows of images: ``store["fc"].isel(image=store.locate(ids))``.

        Parameters
        ----------
        ids : sequence of str, or str
            Which images.

        Returns
        -------
        (n,) array of int64
            In the order asked. No index over all ids is built: every id costs a binary
            search among hashes that were sorted when the store was written.

        Raises
        ------
        NotInStore
            When there are no such images.
        InputError
            When the ids are not text.
        """
        return locate(self.files, ids, self.schema.n_images)

    def commits(self, one: Pass) -> dict[int, Commit]:
        """Return the records of the finished blocks of a pass, by number."""
        return read_commits(self.files, one, self.schema.grid(one))

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks that are written, and blocks in all."""
        done = sum(len(self.commits(one)) for one in self.schema.passes)
        return done, sum(len(self.schema.grid(one)) for one in self.schema.passes)

    @property
    def complete(self) -> bool:
        """Whether every block of every layer is written."""
        done, blocks = self.blocks
        return done == blocks

    def info(self) -> dict[str, Any]:
        """Return what there is to know at a glance, as plain values.

        Returns
        -------
        dict
            ``path``, ``complete``, ``blocks`` and ``blocks_done``, ``images``,
            ``unreadable``, ``layers`` (name to shape, dtype, bytes, and ``rounding``, the
            largest error of it, where the dtype is not float32), ``nbytes``
            (uncompressed), ``nbytes_stored`` (on disk), ``seconds`` (by stage, summed
            over blocks; see `embedkit.planning.stages`), ``bottleneck`` (the stage that
            held the run up), ``peak_mem`` (bytes, of the largest process), ``planned``
            (what was projected against what was measured, for each plan that was
            followed; see `embedkit.store.report`), ``halved`` (where batches became
            smaller, and why), ``networks`` (name to what it was), and what the first of
            them was.
        """
        return summary(self.files, self.schema)

    def tree(self) -> xr.DataTree:
        """Return the whole store as xarray's tree, lazily."""
        return arrays.open_tree(self.files)

    def verify(self) -> Verification:
        """Check every committed block against its record.

        Returns
        -------
        Verification
            What is damaged, by layer and block: a file that is missing, that cannot be
            decoded, or that decodes to other bytes than were written; an image table
            that is not the one the block was computed for. Blocks run as Dask tasks on
            the active client, or else on Dask's configured scheduler.

        See Also
        --------
        embedkit.verify : also recomputes some rows, and repairs.
        """
        return verify_bytes(self.files, self.schema)

    @property
    def finished(self) -> bool:
        """Whether the store is complete and plain xarray reads the final status."""
        return self.files.exists(FINISHED)

    def finish(self) -> None:
        """Write the final status of every image into the image table.

        Until then plain xarray reads ``pending`` for all; this class reads the commit
        records, which are always up to date.
        """
        finish(self.files, self.schema)

    def reopen(self) -> None:
        """Take back what `finish` wrote: blocks are about to be computed."""
        self.files.delete(FINISHED)

    def save(self, name: str, result: xr.Dataset | xr.DataArray) -> None:
        """Compute a result and keep it beside the data, replacing one of that name.

        Parameters
        ----------
        name : str
            For instance ``"neighbors/fc"``; slashes make groups.
        result : Dataset or DataArray
            Any analysis of this store's images, with its parameters in its attributes.

        Raises
        ------
        InputError
            When the name cannot be one of a group, or lies above or below another's.
        StoreError
            When the store cannot be written.
        """
        results.save_beside(self.files, name, result, self._with_status())

    def load(self, name: str) -> xr.Dataset:
        """Return a saved result, lazily, with this store's image coordinates.

        A result on other images, or in another order, has kept its own coordinates; one
        that is older than the last images has the rows that the store had then.
        A column whose name the result takes is renamed: beside a cluster's ``label``
        the table's becomes ``image_label``.

        Raises
        ------
        NotInStore
            When there is none of that name, with the nearest names that there are.
        """
        dataset = results.load(self.files, name)
        rows = dataset.attrs.pop(results.OF_IMAGES, None)
        if rows is None or rows > self.schema.n_images:
            return dataset
        columns = self._with_status().isel(image=slice(rows))
        beside = [*dataset.variables, *dataset.dims]
        return dataset.assign_coords(table.as_coordinates(columns, beside=beside))

    @property
    def results(self) -> list[str]:
        """Names of the saved results."""
        return results.names(self.files)

    def __repr__(self) -> str:
        done, blocks = self.blocks
        return described(self.url, self.schema, done=done, blocks=blocks)

    def _find(self, layer: str) -> LayerSpec:
        for spec in self.schema.layers:
            if layer == spec.name or layer in spec.aliases:
                return spec
        message = f"no layer {layer!r} in {self.url}. {did_you_mean(layer, self)}"
        raise NotInStore(message)

    def _with_status(self) -> xr.Dataset:
        """Open the image table with the status that the commit records tell."""
        return with_status(self.files, self.schema)
