"""A network that came in a file, loaded once for all threads of a process."""

from __future__ import annotations

import threading

from embedkit.networks.network import Network
from embedkit.networks.spool_file import Spooled, read_spool

__all__ = ["Spooled", "load_spooled"]

_KEPT = 4
"""Networks a process keeps loaded. A worker needs one; a notebook that compares, a few."""

_loaded: dict[str, Network] = {}
_loading = threading.Lock()


def load_spooled(spooled: Spooled) -> Network:
    """Return the network in a file, loaded once for all threads of this process.

    Parameters
    ----------
    spooled : Spooled
        What `write_spool` returned, here or on another machine that can read the file.

    Returns
    -------
    Network
        The same object whenever the same digest is asked.

    Raises
    ------
    CorruptStore
        When the file's bytes are not those that were written. They are compared before
        anything in them is looked at.
    NetworkError
        When the file is not there, or needs a module that this process cannot import.
    """
    with _loading:
        network = _loaded.get(spooled.sha256)
        if network is None:
            module, transform, name = read_spool(spooled)
            network = Network(module, name=name, transform=transform)
            while len(_loaded) >= _KEPT:
                _loaded.pop(next(iter(_loaded)))
            _loaded[spooled.sha256] = network
    return network
