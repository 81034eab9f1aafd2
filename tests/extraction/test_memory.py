"""What the system says of this process's memory."""

import threading

import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from embedkit.extraction.block import memory
from embedkit.extraction.block.memory import memory_limit, metered, release, resident

MIB = 2**20


def _take(n_bytes):
    """Hold some memory for a moment; every page of it is touched."""
    return np.ones(n_bytes // 8).sum()


def test_a_meter_tells_what_was_taken_in_between():
    """The array is gone when it is looked, and it counts."""
    with metered() as meter:
        before = resident()
        _take(200 * MIB)
        since = meter.look()
        calm = meter.look()

    assert since - before > 150 * MIB
    assert calm < since - 150 * MIB
    assert meter.peak >= since


def test_meters_in_threads_do_not_take_each_others_peaks():
    """One that looks often does not hide the peak from one that looks at the end."""
    with metered() as long:
        before = resident()
        _take(200 * MIB)

        def short():
            with metered() as other:
                other.look()

        thread = threading.Thread(target=short)
        thread.start()
        thread.join()

    assert long.peak - before > 150 * MIB


def test_a_peak_that_cannot_be_set_back_is_known_as_a_whole(monkeypatch, tmp_path):
    """Where the system cannot do it, a look tells the present size."""
    monkeypatch.setattr(memory, "_RESET", tmp_path / "no" / "such")
    monkeypatch.setattr(memory, "peak", lambda: 2**60)

    with metered() as meter:
        found = meter.look()

    assert meter.peak == 2**60
    assert abs(found - resident()) < 100 * MIB


def test_an_unknown_peak_is_told_as_such(monkeypatch, tmp_path):
    """Without Linux's files there is no peak; the present size is known all the same."""
    monkeypatch.setattr(memory, "_RESET", tmp_path / "no" / "such")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")

    with metered() as meter:
        assert meter.look() > MIB

    assert meter.peak == -1


def test_without_a_worker_the_limit_is_the_machines():
    """Or that of the control group, as Dask finds it."""
    assert memory_limit() == MEMORY_LIMIT


@pytest.mark.parametrize(("limit", "expected"), [("3 GiB", 3 * 2**30), (0, None)])
def test_in_a_worker_the_limit_is_its_own(limit, expected):
    """And the machine's where it has none."""
    with (
        LocalCluster(
            processes=False,
            n_workers=1,
            threads_per_worker=1,
            memory_limit=limit,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = client.submit(memory_limit, pure=False).result()

    assert found == (expected or MEMORY_LIMIT)


def test_memory_can_be_given_back_anywhere(monkeypatch):
    """Also where the C library has no such function."""
    release()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    release()
