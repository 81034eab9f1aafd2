"""A user's script, quick to begin: workers are prepared while it imports the rest."""

from __future__ import annotations

import faulthandler
import importlib
import json
import signal
import sys
from multiprocessing import forkserver, set_forkserver_preload

PRELOADED = [
    "distributed",
    "torchvision",
    "torch.fx.experimental.symbolic_shapes",
    "xarray",
    "dask.array",
    "embedkit.extraction.driver",
]


def main(asked):
    """Start the server that workers are forked from, then do what was asked."""
    if asked.get("method", "forkserver") == "forkserver":
        set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()
    importlib.import_module("user").main(asked)


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # A shell lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(json.loads(sys.argv[1]))
