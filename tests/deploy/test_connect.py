"""Worker processes on this machine."""

import os
import socket
import urllib.request

import pytest
from dask.base import compute
from dask.delayed import delayed

import embedkit as ek
from embedkit.deploy import connect as module
from embedkit.errors import InputError


@pytest.mark.parametrize("name", ["n_workers", "threads_per_worker"])
@pytest.mark.parametrize("value", [0, -2])
def test_useless_numbers_are_refused(name, value):
    """Nothing is started for less than one worker or thread."""
    with pytest.raises(InputError, match=f"{name} is {value}: give 1 or more"):
        ek.connect(**{name: value})


@pytest.mark.slow
def test_workers_are_processes_on_loopback_with_a_dashboard():
    """Two other processes compute; the dashboard answers on 127.0.0.1; all end."""
    with ek.connect(n_workers=2, dashboard_port=0) as client:
        pids = set(client.run(os.getpid).values())
        found = compute(*(delayed(os.getpid)() for _ in range(8)))
        with urllib.request.urlopen(client.dashboard_link, timeout=30) as page:
            status = page.status
        address, link = client.scheduler.address, client.dashboard_link

    assert len(pids) == 2
    assert os.getpid() not in pids
    assert set(found) <= pids
    assert status == 200
    assert "127.0.0.1" in address
    assert "127.0.0.1" in link
    assert client.status == "closed"
    assert not any(_alive(pid) for pid in pids)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_taken_dashboard_port_gives_way_to_a_free_one(monkeypatch):
    """Two sessions on one machine do not warn about each other."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(module, "DASHBOARD_PORT", taken.getsockname()[1])
        while_taken = module._free_dashboard_port()
        port = taken.getsockname()[1]
    assert while_taken == 0
    monkeypatch.setattr(module, "DASHBOARD_PORT", port)
    assert module._free_dashboard_port() in (port, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # Dask's own
def test_a_port_that_is_taken_after_the_look_is_no_matter(monkeypatch):
    """The dashboard is on another port, and nobody is warned."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(module, "_free_dashboard_port", lambda: port)
        with ek.connect(n_workers=1) as client:
            link = client.dashboard_link

    assert str(port) not in link
    assert "127.0.0.1" in link
