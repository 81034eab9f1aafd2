"""Five million images: what opening and looking up cost in time and memory."""

import json
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from embedkit.files.files import files_at
from embedkit.store import blocks
from embedkit.store import create as creation
from embedkit.store.commits import compact
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store
from embedkit.store.table import to_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status"),
]

N = 5_000_000
BLOCK = 8192
MIB = 2**20


def _tell(text):
    """Show what was measured, where pytest is run with ``-s``."""
    sys.stdout.write(f"{text}\n")


@pytest.fixture(scope="module")
def large(tmp_path_factory, one, record):
    """A finished store of five million images whose blocks are all one and the same."""
    path = tmp_path_factory.mktemp("scale") / "large.zarr"
    files, rows = files_at(path), np.arange(N)
    tiny = replace(one, layers=(replace(one.layers[0], shape=(1,)),), block=BLOCK)
    schema = StoreSchema(n_images=N, passes=(tiny,))
    names = pd.Index([f"folder/{i:08d}.jpg" for i in range(N)], dtype=object)
    frame = pd.DataFrame(
        {
            "uri": [f"/photos/{name}" for name in names],
            "label": np.array(["cat", "dog", "fox", "owl"], object)[rows % 4],
        },
        index=names,
    )
    began = time.perf_counter()
    creation.create(files, schema, to_dataset(frame), sizes=rows, mtimes=rows)
    _tell(f"created in {time.perf_counter() - began:.1f} s")
    grid = schema.grid(tiny)
    values = {"stage1.relu": np.zeros((BLOCK, 1), np.float32), "content": rows[:BLOCK]}
    crc32 = blocks.write_block(files, tiny, grid, 0, values)
    shard = blocks.shard(blocks.activation(tiny.layers[0]), 0, 1)
    for block in range(1, len(grid)):
        copy = path / blocks.shard(blocks.activation(tiny.layers[0]), block, 1)
        shutil.copyfile(path / shard, copy)
    commits = {
        block: record(tiny, block, n_images=N, crc32=crc32)
        for block in range(len(grid))
    }
    compact(files, tiny, commits)
    began = time.perf_counter()
    open_store(path).finish()
    _tell(f"finished in {time.perf_counter() - began:.1f} s")
    yield path
    shutil.rmtree(path)


_MEASURES = """
import json, sys, time
import numpy as np, pandas, xarray, zarr, dask.array, obstore
from embedkit.store import store as _warm
from embedkit.store.store import open_store

def rss(kind="VmRSS"):
    status = open("/proc/self/status").read()
    return int(status.partition(f"{kind}:")[2].split()[0]) * 1024

def high():
    return rss("VmHWM")

out, path, base = {}, sys.argv[1], rss()
began = time.perf_counter()
"""


def _measured(path, code):
    """Run code in a fresh process; return what it put into `out`."""
    script = _MEASURES + textwrap.dedent(code) + "\nprint(json.dumps(out))\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    _tell({key: round(value, 3) for key, value in out.items()})
    return out


def test_opening_a_layer_takes_no_time_and_no_memory(large):
    """Neither ids nor status nor records are read."""
    out = _measured(
        large,
        """
        store = open_store(path)
        x = store["stage1"]
        out["seconds"] = time.perf_counter() - began
        out["memory"] = rss() - base
        out["rows"] = x.sizes["image"]
        out["lazy"] = x.chunks is not None
        """,
    )

    assert out["rows"] == N
    assert out["lazy"]
    assert out["seconds"] < 5
    assert out["memory"] < 200 * MIB


def test_a_thousand_ids_are_located_without_an_index(large):
    """Right rows, in the order asked; what is selected stays lazy."""
    out = _measured(
        large,
        """
        rows = np.random.default_rng(0).integers(0, 5_000_000, 1000)
        store = open_store(path)
        out["peak_before"] = high() - base
        found = store.locate([f"folder/{row:08d}.jpg" for row in rows])
        out["seconds"] = time.perf_counter() - began
        out["peak_locate"] = high() - base
        some = store["stage1"].isel(image=found)
        out["memory"] = rss() - base
        out["peak"] = high() - base
        out["mapped"] = rss("RssFile")
        out["right"] = bool((found == rows).all())
        out["lazy"] = isinstance(some.data, dask.array.Array)
        out["rows"] = some.sizes["image"]
        out["labelled"] = some["image"].values.tolist() == [
            f"folder/{row:08d}.jpg" for row in rows
        ]
        """,
    )

    assert out["right"]
    assert out["labelled"]
    assert out["lazy"]
    assert out["rows"] == 1000
    assert out["seconds"] < 20
    assert out["memory"] < 200 * MIB
    assert out["peak_locate"] < 200 * MIB


def test_selecting_by_label_keeps_activations_lazy(large):
    """A mask over a column reads that column, and none of the numbers."""
    out = _measured(
        large,
        """
        x = open_store(path)["stage1"]
        dogs = x[(x["label"] == "dog").values]
        out["seconds"] = time.perf_counter() - began
        out["memory"] = high() - base
        out["lazy"] = isinstance(dogs.data, dask.array.Array)
        out["rows"] = dogs.sizes["image"]
        first = dogs[:2]
        out["right"] = first["image"].values.tolist() == [
            "folder/00000001.jpg", "folder/00000005.jpg"
        ] and bool((first.values == 0).all())
        """,
    )

    assert out["lazy"]
    assert out["rows"] == N // 4
    assert out["right"]
    assert out["seconds"] < 60
    assert out["memory"] < 2000 * MIB


def test_the_whole_table_can_be_had(large):
    """Five million rows of text as a DataFrame, for whoever wants them."""
    out = _measured(
        large,
        """
        images = open_store(path).images
        out["seconds"] = time.perf_counter() - began
        out["memory"] = high() - base
        out["rows"] = len(images)
        out["ok"] = set(images["status"]) == {"ok"}
        """,
    )

    assert out["ok"]
    assert out["rows"] == N
