"""A disk that fills up or cannot be written, mounted where nobody else sees it.

Runs under ``unshare -m``: the tmpfs is seen by this process and its children alone, and
goes with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import chaos_parts
import dask
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.errors import StoreError


class Disk:
    """A tmpfs, and the call that writes a store into it."""

    def __init__(self, asked, images, network):
        self.asked, self.images, self.network = asked, images, network
        self.place = Path(asked["place"])
        self.store = self.place / "s.zarr"
        self.mount(f"size={asked['size']}", new=True)

    def mount(self, options, *, new=False):
        """Mount it, or change how it is mounted."""
        how = ["-t", "tmpfs"] if new else []
        wanted = options if new else f"remount,{options}"
        where = ["tmpfs", str(self.place)] if new else [str(self.place)]
        subprocess.run(["mount", *how, "-o", wanted, *where], check=True)

    def extract(self, on_progress=None):
        """Make the call; return its message where it failed as it should."""
        try:
            store = ek.extract(
                self.images,
                self.network,
                self.store,
                layers="all",
                on_progress=on_progress,
            )
        except StoreError as error:
            return str(error)
        assert store.complete
        return None

    def files(self):
        """Return every file on the disk."""
        return sorted(str(each.relative_to(self.place)) for each in self._all())

    def _all(self):
        return [each for each in self.place.rglob("*") if each.is_file()]

    def blocks(self):
        """Return how many blocks are done."""
        return ek.open_store(self.store).info()["blocks_done"]

    def copy_out(self):
        """Put the store where it outlives the mount."""
        subprocess.run(["cp", "-r", str(self.store), self.asked["copy"]], check=True)


def full(disk):
    """The disk is too small, then grows."""
    failed = disk.extract()
    before = disk.blocks()
    disk.mount("size=64m")
    return {"failed": [failed], "blocks": before, "then": disk.extract()}


def ballast(disk):
    """Room is freed a few pages at a time: every write of the run fails once."""
    failed, filler = [], disk.place / "ballast"
    with filler.open("wb") as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
                file.flush()
        free = filler.stat().st_size
        while (message := disk.extract()) is not None:
            failed.append(message)
            free -= disk.asked["step"]
            os.truncate(filler, max(free, 0))
            assert len(failed) < 3000
    filler.unlink()
    return {"failed": failed, "blocks": None, "then": None}


def read_only(disk):
    """Nothing can be written; then it can."""
    disk.mount("ro")
    failed = disk.extract()
    files = disk.files()
    disk.mount("rw")
    return {"failed": [failed], "blocks": len(files), "then": disk.extract()}


def read_only_half_way(disk):
    """The disk turns read-only in the middle of a run."""
    seen = []

    def turn(progress):
        seen.append(progress.images_done)
        if len(seen) == 1:
            disk.mount("ro")

    with dask.config.set({"embedkit.window": 3}):
        failed = [disk.extract(turn), disk.extract()]
    before = disk.files()
    disk.mount("rw")
    assert disk.files() == before
    return {"failed": failed, "blocks": disk.blocks(), "then": disk.extract()}


def complete_and_read_only(disk):
    """A finished store is read, and asked for again, where nothing can be written."""
    assert disk.extract() is None
    disk.mount("ro")
    opened = ek.open_store(disk.store)
    read = {layer: bool(opened[layer].notnull().all()) for layer in opened}
    assert all(read.values())
    return {"failed": [], "blocks": disk.blocks(), "then": disk.extract()}


SCENES = {
    "full": full,
    "ballast": ballast,
    "read_only": read_only,
    "read_only_half_way": read_only_half_way,
    "complete_and_read_only": complete_and_read_only,
}


def main(asked):
    """Play scenes, each on its own disk, and write down what happened."""
    dask.config.set(scheduler="synchronous")
    images, network = ek.open_images(asked["photos"]), chaos_parts.load()
    with contextlib.ExitStack() as stack:
        if asked.get("workers"):
            cluster = LocalCluster(
                n_workers=asked["workers"],
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            )
            stack.enter_context(cluster)
            stack.enter_context(Client(cluster))
        for wanted in asked["scenes"]:
            disk = Disk(wanted, images, network)
            try:
                told = SCENES[wanted["scene"]](disk)
                disk.copy_out()
                told["files"] = disk.files()
            except Exception:
                told = {"broken": traceback.format_exc()}
            Path(wanted["told"]).write_text(json.dumps(told))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
