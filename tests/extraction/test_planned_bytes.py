"""What the planner says will be written, against what a run has written."""

import dask
import pytest
import zarr

import embedkit as ek
from embedkit.planning.measurement import (
    Forward,
    LayerSize,
    Measurement,
    NetworkMeasurement,
)
from embedkit.planning.written import count_files, most_files, written


def _measured(passes):
    """Passes of a store as the planner would be given them; only sizes count here."""
    networks = tuple(
        NetworkMeasurement(
            name=one.network,
            loaded=0,
            load_seconds=0.0,
            input_bytes=1,
            transform_seconds=0.0,
            forward=(Forward(batch=1, peak=1, seconds=1.0),),
            flops=1,
            layers=tuple(
                LayerSize(
                    name=spec.name,
                    shape=spec.shape,
                    itemsize=2 if spec.dtype == "float16" else 4,
                    flops=1,
                    raw_entries=1,
                    channels=1,
                )
                for spec in one.layers
            ),
        )
        for one in passes
    )
    return Measurement(
        reserved=0,
        decode_seconds=0.0,
        decoding=0,
        write_rate=1.0,
        read_rate=1.0,
        networks=networks,
    )


@pytest.mark.parametrize(
    ("pool", "dtype"), [("avg", "float32"), ("none", "float32"), ("max2x2", "float16")]
)
def test_bytes_and_files_are_exact(images, network, tmp_path, pool, dtype):
    """Every array has the planned size, shards and chunks; the store the planned files."""
    layers = ["conv1", "conv2", "relu"] if pool != "avg" else "all"
    with dask.config.set(scheduler="synchronous"):
        store = ek.extract(
            images, network, tmp_path / "s.zarr", layers=layers, pool=pool, dtype=dtype
        )
    one, root = store.schema.passes[0], zarr.open_group(store.path, mode="r")
    measured = _measured([one])

    planned = written(measured.layers, n_images=len(images), block=one.block)

    for layer in planned:
        array = root[f"layers/{layer.name}/activation"]
        folder = store.path / "layers" / layer.name / "activation"
        assert layer.nbytes == array.nbytes
        assert (layer.shard, layer.chunk) == (array.shards, array.chunks)
        assert layer.files == len(list(folder.glob("c.*")))
    assert sum(each.nbytes for each in planned) == len(images) * one.row_bytes
    assert _planned_files(store, measured) == _files(store)


def test_files_of_two_networks(images, network, tmp_path):
    """The layers of a second network have a group of their own above them."""
    with dask.config.set(scheduler="synchronous"):
        store = ek.extract(
            images, [network, "embedkit/digits"], tmp_path / "s.zarr", layers="last"
        )

    measured = _measured(store.schema.passes)

    assert _planned_files(store, measured) == _files(store)


def test_commit_records_are_counted_until_they_are_gathered(images, network, tmp_path):
    """While a run goes on there is one more file a block and pass."""
    with dask.config.set(scheduler="synchronous"):
        store = ek.extract(images, network, tmp_path / "s.zarr")
    one = store.schema.passes[0]
    sizes = {"n_images": len(images), "block": one.block, "columns": 5}
    measured = _measured([one])

    assert most_files(measured, **sizes) - count_files(measured, **sizes) == len(
        store.schema.grid(one)
    )


def _planned_files(store, measured):
    columns = [
        each.parent
        for each in store.path.glob("*/zarr.json")
        if each.parent.name not in ("layers", "results")
    ]
    return count_files(
        measured,
        n_images=store.schema.n_images,
        block=store.schema.passes[0].block,
        columns=len(columns),
    )


def _files(store):
    return sum(each.is_file() for each in store.path.rglob("*"))
