"""One run on workers with limited memory, in a process of its own, and what it took.

``python planner_user.py ARGUMENTS`` prints JSON. ARGUMENTS is a JSON object:

- ``arm``: ``"planned"`` (`embedkit.plan`, then that plan), ``"auto"`` (``plan="auto"``)
  or ``"dask"`` (what one would write without embedkit);
- ``folder``: where the run writes; ``photos``: a folder of images;
- ``images``, or ``seconds`` (and at most ``nbytes``): how many of them are taken, or how
  long the run should take by its own plan;
- ``patience``: seconds after which it counts as thrashing, by default none;
- ``network``, ``weights``, ``layers``, ``pool``; ``workers`` and ``limit``: processes, and
  the memory of each; ``dtype``: the type of the array of images of arm ``"dask"``.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import torch
from distributed import Client, LocalCluster, SchedulerPlugin
from PIL import Image
from torchvision.models.feature_extraction import create_feature_extractor

import embedkit as ek
from embedkit.errors import PlanError

CROP, RESIZE = 224, 256
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)

LONELY = 60.0
"""Seconds without any worker after which nobody will come: Dask's own clusters give up a
worker that is not back in 15 s, and wait for it for ever."""

LEAST = 16
"""Images of a run that has to last, however long each of them takes."""


class Watch(SchedulerPlugin):
    """What the scheduler hears of its workers, until the work is over.

    Attributes
    ----------
    lost : int
        Workers that were there and are gone.
    resident, spilled : int
        The largest that any of them has told, bytes, about twice a second.
    paused : bool
        Whether one has been told to begin nothing because its memory was full.
    """

    def __init__(self, client, *, patience=float("inf")):
        self.lost, self.resident, self.spilled, self.paused = 0, 0, 0, False
        self._scheduler = client.cluster.scheduler
        self._patience, self._over = patience, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._scheduler.add_plugin(self, name="watch")
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def remove_worker(self, scheduler, worker, **_):
        """Count a worker that goes before the work is over."""
        self.lost += not self._over.is_set()

    def _look(self):
        began = seen = time.perf_counter()
        while not self._over.wait(0.2):
            now = time.perf_counter()
            for each in list(self._scheduler.workers.values()):
                memory, seen = each.memory, now
                self.resident = max(self.resident, memory.process)
                self.spilled = max(self.spilled, memory.spilled)
                self.paused |= each.status.name == "paused"
            if now - began > self._patience:
                self._end("thrashed", now - began)
            if now - seen > LONELY:
                self._end("hung", now - began)

    def _end(self, how, seconds):
        """Tell what is known and leave: the work itself cannot be stopped."""
        print(json.dumps({"ended": how, "seconds": seconds} | self.told()), flush=True)
        for each in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        os._exit(0)

    def told(self):
        """Return it as plain values."""
        names = ("lost", "resident", "spilled", "paused")
        return {name: getattr(self, name) for name in names}


def main():
    """Run one and print what it took."""
    asked = json.loads(sys.argv[1])
    run = {"planned": planned, "auto": automatic, "dask": by_hand}[asked["arm"]]
    patience = asked.get("patience", float("inf"))
    with _workers(asked) as client, Watch(client, patience=patience) as seen:
        client.wait_for_workers(asked["workers"])
        began = time.perf_counter()
        try:
            found = {"ended": "finished"} | run(asked)
        except PlanError as error:
            found = {"ended": "refused", "why": str(error)}
        except Exception as error:  # whatever it was, this run is lost
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            found = {"ended": "crashed", "why": why}
        whole = time.perf_counter() - began
    print(json.dumps({"seconds": whole} | found | seen.told()))


def _workers(asked):
    if asked["arm"] != "dask":
        return ek.connect(n_workers=asked["workers"], memory_limit=asked["limit"])
    cluster = LocalCluster(
        n_workers=asked["workers"],
        threads_per_worker=1,
        memory_limit=asked["limit"],
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )
    return Client(cluster)


def planned(asked):
    """Plan a run of the length asked for, follow the plan, and tell both sides."""
    photos, network, call = _given(asked)
    path = Path(asked["folder"]) / "s.zarr"
    began = time.perf_counter()
    plan = _plan_for(asked, photos, network, path, call)
    planning = time.perf_counter() - began
    began = time.perf_counter()
    store = ek.extract(photos[: plan.n_images], network, path, plan=plan, **call)
    seconds = time.perf_counter() - began
    return _of_store(store) | {
        "seconds": seconds,
        "planning": planning,
        "planned_seconds": plan.seconds,
        "allowed": plan.allowed_mem,
        "images": plan.n_images,
        "batch": plan.batch_size,
        "block": plan.block,
        "bound": plan.binding,
    }


def _plan_for(asked, photos, network, path, call):
    """Return the plan of so many images as are asked for, or as the time asked takes."""
    count = asked.get("images") or min(len(photos), 512)
    plan = ek.plan(photos[:count], network, path=path, **call)
    if "seconds" not in asked:
        return plan
    each = sum(plan.nbytes.values()) / count
    most = min(len(photos), int(asked["nbytes"] / each))
    for _ in range(
        3
    ):  # blocks depend on how many images there are, and speed on blocks
        wanted = int(asked["seconds"] * plan.n_images / plan.seconds)
        count = min(max(LEAST, wanted), most)
        if count == plan.n_images:
            break
        plan = ek.plan(photos[:count], network, path=path, **call)
    return plan


def automatic(asked):
    """Extract as somebody does who lets embedkit plan; measuring counts."""
    photos, network, call = _given(asked)
    path = Path(asked["folder"]) / "s.zarr"
    return _of_store(ek.extract(photos[: asked["images"]], network, path, **call))


def _given(asked):
    network = ek.load_network(asked["network"], weights=asked["weights"])
    photos = sorted(map(str, Path(asked["photos"]).iterdir()))
    return photos, network, {"layers": asked["layers"], "pool": asked["pool"]}


def _of_store(store):
    """Return what blocks have told of themselves: see `embedkit.store.report`."""
    info = store.info()
    (followed,) = info["planned"] or [{}]
    return {
        "peak": info["peak_mem"],
        "projected": followed.get("projected_mem"),
        "tasks": followed.get("time_ratio"),
        "stages": info["seconds"],
        "planned_stages": followed.get("projected_stages"),
        "halved": len(info["halved"]),
        "nbytes": info["nbytes"],
    }


def by_hand(asked):
    """Extract with Dask and PyTorch alone, each photo read and each block computed once.

    An array of images in chunks of the size that Dask chooses, the network as a delayed
    value that workers get once, all layers out of one pass, an array of Zarr for each.
    """
    photos = sorted(map(str, Path(asked["photos"]).iterdir()))[: asked["images"]]
    network = ek.load_network(asked["network"], weights=asked["weights"])
    module = create_feature_extractor(network.module.eval(), list(asked["layers"]))
    shapes = network.taps(
        asked["layers"], pool=dict.fromkeys(asked["layers"], "none")
    ).shapes
    given = dask.delayed(Carried(module))
    shape, dtype = (len(photos), 3, CROP, CROP), asked["dtype"]
    (chunks, *_) = da.core.normalize_chunks(("auto", -1, -1, -1), shape, dtype=dtype)
    starts = np.cumsum((0, *chunks))
    images = da.concatenate(
        [
            da.from_delayed(
                dask.delayed(_read)(photos[start : start + rows], dtype),
                (rows, *shape[1:]),
                dtype,
            )
            for start, rows in zip(starts, chunks, strict=False)
        ]
    )
    maps = [dask.delayed(_forward)(given, each) for each in images.to_delayed().ravel()]
    writes = []
    for layer, row in shapes.items():
        parts = [
            da.from_delayed(each[layer], (rows, *row), np.float32)
            for each, rows in zip(maps, chunks, strict=True)
        ]
        where = str(Path(asked["folder"]) / f"{layer}.zarr")
        writes.append(da.to_zarr(da.concatenate(parts), where, compute=False))
    dask.compute(*writes)
    return {"chunk": int(chunks[0])}


def _read(paths, dtype):
    """Return photos as torchvision's own transform would crop them, uint8 or float32."""
    rows = np.empty((len(paths), 3, CROP, CROP), dtype)
    for at, path in enumerate(paths):
        with Image.open(path) as image:
            rows[at] = _prepared(image.convert("RGB"), np.dtype(dtype))
    return rows


def _prepared(image, dtype):
    width, height = image.size
    scale = RESIZE / min(width, height)
    wide, high = (int(each * scale) for each in (width, height))
    image = image.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - CROP) / 2), round((high - CROP) / 2)
    image = image.crop((left, top, left + CROP, top + CROP))
    pixels = np.asarray(image).transpose(2, 0, 1)
    return pixels if dtype == np.uint8 else (pixels / np.float32(255) - MEAN) / STD


class Carried:
    """A network as a value that is pickled: Dask's own way with modules, which takes them
    apart, cannot put one together again that was spilled to disk (2026.8.0)."""

    def __init__(self, module):
        self.module = module


def _forward(carried, images):
    """Return every layer of a chunk of images."""
    if images.dtype == np.uint8:
        images = (images / np.float32(255) - MEAN) / STD
    with torch.inference_mode():
        found: Mapping[str, torch.Tensor] = carried.module(torch.from_numpy(images))
    return {layer: each.numpy() for layer, each in found.items()}


if __name__ == "__main__":
    main()
