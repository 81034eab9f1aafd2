"""A Dask client for this machine."""

from __future__ import annotations

import logging
import socket
import warnings

import dask.config
from dask.system import CPU_COUNT
from distributed import Client

from embedkit.errors import InputError

LOOPBACK = "127.0.0.1"
DASHBOARD_PORT = 8787


def connect(
    *,
    n_workers: int | None = None,
    threads_per_worker: int = 1,
    memory_limit: str | int | None = "auto",
    dashboard_port: int | None = None,
    silence_logs: int = logging.WARNING,
) -> Client:
    """Start worker processes on this machine and return a client for them.

    Parameters
    ----------
    n_workers : int, optional
        Worker processes, default one per `threads_per_worker` cores that this process
        may use (limits of containers and batch systems count).
    threads_per_worker : int, default 1
        Blocks that one process computes at a time.
    memory_limit : str, int or None, default "auto"
        Memory of one worker, for instance ``"4 GiB"``; ``"auto"`` shares what there is,
        None sets no limit.
    dashboard_port : int, optional
        Port of the dashboard, default 8787 or, where that is taken, any free one.
    silence_logs : int, default logging.WARNING
        Level below which the cluster's own logs are not shown.

    Returns
    -------
    distributed.Client
        Bound to the loopback address. Closing it closes the workers. Its
        ``dashboard_link`` is where to watch.

    Raises
    ------
    InputError
        When a number is below 1.
    """
    for name, value in (
        ("n_workers", n_workers),
        ("threads_per_worker", threads_per_worker),
    ):
        if value is not None and value < 1:
            message = f"{name} is {value}: give 1 or more"
            raise InputError(message)
    # Dask shuts a worker's nanny for good when it is not back in 15 s: one that dies
    # twice in a row is just starting then, and a run would wait for it for ever.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    port = _free_dashboard_port() if dashboard_port is None else dashboard_port
    with warnings.catch_warnings():
        if dashboard_port is None:  # another program may take it before Dask does
            taken = r"Port \d+ is already in use"
            warnings.filterwarnings("ignore", taken, UserWarning)
        return Client(
            n_workers=n_workers or max(1, CPU_COUNT // threads_per_worker),
            threads_per_worker=threads_per_worker,
            memory_limit=memory_limit,
            host=LOOPBACK,
            dashboard_address=f"{LOOPBACK}:{port}",
            silence_logs=silence_logs,
        )


def _free_dashboard_port() -> int:
    """Return 8787, or 0 (any) where something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, DASHBOARD_PORT))
        except OSError:
            return 0
    return DASHBOARD_PORT
