"""Undisturbed runs, one after the other in one process: each with its own cluster."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack

import chaos_parts
import dask
from distributed import Client, LocalCluster

import embedkit as ek


def main(asked):
    """Extract once per entry of `runs`."""
    network = chaos_parts.load()
    for run in asked["runs"]:
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(run.get("config", {})))
            if "cluster" in run:
                cluster = LocalCluster(
                    dashboard_address="127.0.0.1:0", **run["cluster"]
                )
                stack.enter_context(cluster)
                stack.enter_context(Client(cluster))
            store = ek.extract(asked["photos"], network, run["store"], layers="all")
        if not store.complete:
            sys.exit(f"{run} came back from an unfinished run")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
