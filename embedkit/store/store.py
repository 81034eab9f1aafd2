"""Reading a store back: a mapping from layer names to lazy, labelled arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from embedkit.errors import CorruptStore, NotInStore, did_you_mean
from embedkit.files import whole_file
from embedkit.store import arrays, results, table
from embedkit.store.commits import PRIVATE, Commit, read_commits
from embedkit.store.schema import LayerSpec, StoreSchema

READ_BYTES = 64 * 2**20


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a store that `extract` wrote, finished or not.

    Parameters
    ----------
    path : path
        The store's folder.

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
    return Store(Path(path))


class Store(Mapping[str, xr.DataArray]):
    """The activations of many images, by layer: ``store["layer4"]``.

    A mapping from layer names, in the network's order, to lazy arrays. Use `open_store`
    or the result of `extract`.

    Attributes
    ----------
    path : Path
        The store's folder; plain ``xarray.open_datatree(path)`` reads it too.
    schema : StoreSchema
        What it holds, as written when it was created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema: StoreSchema = arrays.read_schema(path)

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
            blocks; coordinates ``image`` (the ids, without an index: select by position
            or by mask), ``status``, ``error`` and the table's columns. Rows that could
            not be read, or are not extracted yet, are NaN.

        Raises
        ------
        NotInStore
            When there is no such layer, with the nearest names.
        CorruptStore
            When files of committed blocks are gone.
        """
        spec = self._find(layer)
        commits = self.commits
        _check_shards(self.path, spec, commits)
        rows = self._rows_to_read(spec)
        group = arrays.layer_group(spec.name)
        dataset: xr.Dataset = xr.open_zarr(
            self.path, group=group, chunks={"image": rows}
        )
        activation = dataset[arrays.ACTIVATION].rename(spec.name)
        columns = table.as_coordinates(self._table(commits), beside=activation.dims)
        labelled = activation.assign_coords(columns)
        return labelled.assign_attrs(
            layer=spec.name, type=spec.type, **self.schema.about
        )

    def __iter__(self) -> Iterator[str]:
        return (spec.name for spec in self.schema.layers)

    def __len__(self) -> int:
        return len(self.schema.layers)

    def __contains__(self, layer: object) -> bool:
        return any(layer in (spec.name, *spec.aliases) for spec in self.schema.layers)

    @property
    def layers(self) -> pd.DataFrame:
        """One row per layer: type, shape per image, dtype, bytes uncompressed."""
        return pd.DataFrame(
            {
                "type": [spec.type for spec in self.schema.layers],
                "shape": [spec.shape for spec in self.schema.layers],
                "dtype": [spec.dtype for spec in self.schema.layers],
                "nbytes": [
                    spec.row_bytes * self.schema.n_images for spec in self.schema.layers
                ],
            },
            index=pd.Index(list(self), name="layer"),
        )

    @property
    def images(self) -> pd.DataFrame:
        """The image table, indexed by id: uri, label, other columns, status, error."""
        return table.to_frame(self._table())

    @property
    def commits(self) -> dict[int, Commit]:
        """The records of the finished blocks, by number."""
        schema = self.schema
        return read_commits(self.path, len(schema.grid), identity=schema.identity)

    @property
    def complete(self) -> bool:
        """Whether every block is written."""
        return len(self.commits) == len(self.schema.grid)

    def info(self) -> dict[str, Any]:
        """Return what there is to know at a glance, as plain values.

        Returns
        -------
        dict
            ``path``, ``complete``, ``blocks`` and ``blocks_done``, ``images``,
            ``unreadable``, ``layers`` (name to shape, dtype, bytes), ``nbytes``
            (uncompressed), ``nbytes_stored`` (on disk), ``seconds`` (by stage, summed
            over blocks), and what the store was made from.
        """
        commits = self.commits
        stages = sorted({stage for each in commits.values() for stage in each.seconds})
        specs = self.schema.layers
        return {
            "path": str(self.path),
            "complete": len(commits) == len(self.schema.grid),
            "blocks": len(self.schema.grid),
            "blocks_done": len(commits),
            "images": self.schema.n_images,
            "unreadable": sum(len(each.failures) for each in commits.values()),
            **self.schema.about,
            "layers": {
                spec.name: {
                    "shape": list(spec.shape),
                    "dtype": spec.dtype,
                    "nbytes": spec.row_bytes * self.schema.n_images,
                }
                for spec in specs
            },
            "nbytes": sum(spec.row_bytes for spec in specs) * self.schema.n_images,
            "nbytes_stored": _bytes_under(self.path),
            "seconds": {
                stage: sum(each.seconds.get(stage, 0.0) for each in commits.values())
                for stage in stages
            },
        }

    def tree(self) -> xr.DataTree:
        """Return the whole store as xarray's tree, lazily."""
        return xr.open_datatree(self.path, engine="zarr", chunks={})

    @property
    def finished(self) -> bool:
        """Whether the store is complete and plain xarray reads the final status."""
        return (self.path / PRIVATE / "finished").exists()

    def finish(self) -> None:
        """Write the final status of every image into the image table.

        Until then plain xarray reads ``pending`` for all; this class reads the commit
        records, which are always up to date.
        """
        columns = self._table()
        for name in ("status", "error"):
            arrays.write_text(self.path, name, columns[name].values)
        with whole_file(self.path / PRIVATE / "finished"):
            pass

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
        columns = self._table()
        if "image" not in result.dims:
            results.save(self.path, name, result)
        elif not _same_images(result, columns["image"]):
            results.save(self.path, name, result, same_images=False)
        else:
            known = {str(column) for column in columns.variables}
            again = [
                coordinate
                for coordinate, values in result.coords.items()
                if values.dims == ("image",)
                and {str(coordinate), str(coordinate).removeprefix("image_")} & known
            ]
            results.save(self.path, name, result.drop_vars(again))

    def load(self, name: str) -> xr.Dataset:
        """Return a saved result, lazily, with this store's image coordinates.

        A result on other images, or in another order, has kept its own coordinates.
        A column whose name the result takes is renamed: beside a cluster's ``label``
        the table's becomes ``image_label``.

        Raises
        ------
        NotInStore
            When there is none of that name, with the nearest names that there are.
        """
        dataset = results.load(self.path, name)
        if "image" in dataset.coords or "image" not in dataset.dims:
            return dataset
        beside = [*dataset.variables, *dataset.dims]
        return dataset.assign_coords(table.as_coordinates(self._table(), beside=beside))

    @property
    def results(self) -> list[str]:
        """Names of the saved results."""
        return results.names(self.path)

    def __repr__(self) -> str:
        done, blocks = len(self.commits), len(self.schema.grid)
        size = sum(spec.row_bytes for spec in self.schema.layers) * self.schema.n_images
        state = "complete" if done == blocks else f"{done} of {blocks} blocks written"
        head = (
            f"<embedkit.Store {self.path}: {self.schema.n_images:,} images, "
            f"{len(self)} layers, {size / 2**20:,.1f} MiB, {state}>"
        )
        shown = [
            f"  {spec.name}: {spec.shape} {spec.dtype}" for spec in self.schema.layers
        ]
        more = [f"  … and {len(shown) - 12} more"] if len(shown) > 12 else []
        return "\n".join([head, *shown[:12], *more])

    def _find(self, layer: str) -> LayerSpec:
        for spec in self.schema.layers:
            if layer == spec.name or layer in spec.aliases:
                return spec
        message = f"no layer {layer!r} in {self.path}. {did_you_mean(layer, self)}"
        raise NotInStore(message)

    def _rows_to_read(self, spec: LayerSpec) -> int:
        blocks = max(1, READ_BYTES // max(1, spec.row_bytes * self.schema.block))
        return min(self.schema.n_images, blocks * self.schema.block)

    def _table(self, commits: Mapping[int, Commit] | None = None) -> xr.Dataset:
        """Open the image table, with the status that the commit records tell."""
        columns: xr.Dataset = xr.open_zarr(
            self.path, chunks=None, create_default_indexes=False
        )
        known = self.commits if commits is None else commits
        status = table.status_columns(columns["image"], known)
        return columns.drop_attrs().assign(status)


def _check_shards(path: Path, spec: LayerSpec, commits: Mapping[int, Commit]) -> None:
    """Refuse to read missing files as NaN: a committed block has its shard."""
    gone = sorted(commits.keys() - arrays.blocks_there(path, spec))
    if gone:
        message = (
            f"layer {spec.name} of {path} has lost the files of {len(gone)} committed "
            f"blocks (the first is {gone[0]}): delete their records in "
            "_embedkit/commits and run the same extract call again"
        )
        raise CorruptStore(message)


def _same_images(result: xr.Dataset | xr.DataArray, ids: xr.DataArray) -> bool:
    """Whether a result has a row for every image of the store, in its order."""
    if result.sizes.get("image") != ids.size:
        return False
    named = "image" in result.coords
    return not named or bool((result["image"].values == ids.values).all())


def _bytes_under(folder: Path) -> int:
    """Add up the files below a folder, some of which may be going just now."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total
