"""One analysis in a process of its own: what it took beyond what the process had.

``python analysis_user.py FUNCTION IMAGES WIDTH FOLDER`` prints JSON. Inputs are read from
files by Dask, block by block, as a store's are.
"""

import ctypes
import json
import sys
import time
from functools import partial
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

import embedkit as ek

BLOCK = 2048


def said(key):
    """Return a size of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def stored(folder, name, make, shape, dtype):
    """Write an array block by block; return it lazily, read again in blocks."""
    path = folder / f"{name}.raw"
    with path.open("wb") as out:
        for start in range(0, shape[0], BLOCK):
            rows = np.arange(start, min(start + BLOCK, shape[0]))
            out.write(np.ascontiguousarray(make(rows), dtype=dtype).tobytes())
    parts = [
        da.from_delayed(
            dask.delayed(read)(
                str(path), start, min(BLOCK, shape[0] - start), shape[1:], dtype
            ),
            (min(BLOCK, shape[0] - start), *shape[1:]),
            dtype,
        )
        for start in range(0, shape[0], BLOCK)
    ]
    return da.concatenate(parts)


def read(path, start, count, rest, dtype):
    """Read the rows of a block."""
    entries = int(np.prod(rest))
    found = np.fromfile(
        path, dtype, count * entries, offset=start * entries * np.dtype(dtype).itemsize
    )
    return found.reshape(count, *rest)


def layer(folder, n, width, name="rows", first=0):
    """Return a layer of ten classes."""
    centers = np.random.default_rng(1).normal(size=(10, width))

    def make(rows):
        rng = np.random.default_rng(int(rows[0]))
        return rng.normal(size=(len(rows), width)) + 0.3 * centers[rows % 10]

    data = stored(folder, name, make, (n, width), "<f4")
    coords = {"label": ("image", np.arange(n) % 10)}
    ids = ("image", np.arange(first, first + n).astype(str))
    coords = xr.Coordinates(coords | {"image": ids}, indexes={})
    return xr.DataArray(data, dims=("image", "feature"), coords=coords, name=name)


def lists(folder, n, k):
    """Return neighbor lists within groups of 200 images, and some links between them."""

    def near(rows):
        rng = np.random.default_rng(int(rows[0]))
        ranks = rng.random((len(rows), 199)).argsort(axis=1)[:, :k] + 1
        start = rows // 200 * 200
        inside = start[:, None] + (rows[:, None] - start[:, None] + ranks) % 200
        inside[:, -1] = rng.integers(0, n, len(rows))
        found = np.minimum(inside, n - 1)
        return np.where(found == rows[:, None], (found + 1) % n, found)

    def far(rows):
        return np.sort(
            np.random.default_rng(int(rows[0])).random((len(rows), k)), axis=1
        )

    indices = stored(folder, "indices", near, (n, k), "<i8")
    distances = stored(folder, "distances", far, (n, k), "<f4")
    dims = ("image", "neighbor")
    coords = xr.Coordinates({"image": ("image", np.arange(n).astype(str))}, indexes={})
    return xr.Dataset(
        {"indices": (dims, indices), "distances": (dims, distances)},
        coords=coords,
        attrs={"metric": "cosine", "exact": True, "n_neighbors": k, "embedkit": "0"},
    )


def graph(folder, n, k):
    """Return a weighted graph as a store keeps it."""
    nn = lists(folder, n, k)
    made = stored(
        folder, "weight", lambda rows: np.full((len(rows), k), 0.5), (n, k), "<f4"
    )
    return nn.assign(weight=(("image", "neighbor"), made)).drop_vars("distances")


def _on_lists(name, **more):
    return lambda folder, n, k: partial(getattr(ek, name), lists(folder, n, k), **more)


def _on_graph(name, **more):
    return lambda folder, n, k: partial(getattr(ek, name), graph(folder, n, k), **more)


def _on_layer(name, **more):
    return lambda folder, n, width: partial(
        getattr(ek, name), layer(folder, n, width), **more
    )


def _probe(folder, n, width, *, target="label"):
    store = {name: layer(folder, n, width, name) for name in ("a", "b", "c")}
    y = ("image", np.random.default_rng(0).normal(size=n))
    store = {name: each.assign_coords(y=y) for name, each in store.items()}
    return partial(ek.probe, store, target=target, folds=3)


def _append(folder, n, width):
    x, new = layer(folder, n, width), layer(folder, n // 20, width, "new", n)
    return partial(
        ek.append_neighbors, _true_lists(folder, x), x, new=new.rename("rows")
    )


def _true_lists(folder, x, k=15):
    """Return scattered lists with the distances that they have: these are looked at."""
    n, width = x.shape
    held = np.memmap(folder / "rows.raw", "<f4", "r", shape=(n, width))
    offsets = np.sort(np.random.default_rng(0).choice(n - 1, k, replace=False)) + 1

    def measured(rows):
        near = (rows[:, None] + offsets) % n
        gaps = held[near].astype(float) - held[rows][:, None].astype(float)
        far = np.sqrt((gaps**2).sum(axis=2))
        order = np.argsort(far, axis=1)
        return np.take_along_axis(near, order, 1), np.take_along_axis(far, order, 1)

    indices = stored(folder, "indices", lambda rows: measured(rows)[0], (n, k), "<i8")
    distances = stored(folder, "far", lambda rows: measured(rows)[1], (n, k), "<f4")
    dims = ("image", "neighbor")
    return xr.Dataset(
        {"indices": (dims, indices), "distances": (dims, distances)},
        coords=xr.Coordinates({"image": x["image"].variable}, indexes={}),
        attrs={"metric": "euclidean", "exact": True, "n_neighbors": k, "embedkit": "0"},
    )


def _accuracy(folder, n, k):
    nn = lists(folder, n, k)
    return partial(ek.neighbor_accuracy, nn, np.arange(n) // 200 % 10)


def _search(folder, n, width):
    return partial(search, layer(folder, n, width))


def search(x, *, plan_only=False):
    """Look at all rows, as `embedkit.search` does for ten vectors."""
    from embedkit.retrieval.scan import nearest
    from embedkit.retrieval.search import _plan

    if plan_only:
        return _plan(x, None)
    asked = np.random.default_rng(0).normal(size=(10, x.shape[1])).astype("f4")
    nobody = np.full(len(asked), -1)
    return nearest(x, asked, own=nobody, k=10, metric="euclidean")[0]


PREPARED = {
    "neighbor_graph": _on_lists("neighbor_graph"),
    "neighbor_graph_binary": _on_lists("neighbor_graph", kernel="binary"),
    "communities": _on_graph("communities"),
    "project": _on_graph("project", n_epochs=10),
    "neighbor_accuracy": _accuracy,
    "duplicates": _on_lists("duplicates", threshold=1.0),  # all: the worst case
    "cluster": _on_layer("cluster"),
    "cluster_cosine": _on_layer("cluster", metric="cosine"),
    "probe": _probe,
    "probe_regression": partial(_probe, target="y"),
    "append_neighbors": _append,
    "search": _search,
}


def main():
    """Measure one."""
    function, n, width, folder = (
        sys.argv[1],
        *map(int, sys.argv[2:4]),
        Path(sys.argv[4]),
    )
    call = PREPARED[function](folder, n, width)
    planned = json.loads(call(plan_only=True).to_json())
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, began = said("VmRSS"), time.perf_counter()
    found = call()
    if hasattr(found, "compute"):
        found = found.compute()
    took = time.perf_counter() - began
    print(json.dumps(planned | {"measured": said("VmHWM") - before, "took": took}))


if __name__ == "__main__":
    main()
