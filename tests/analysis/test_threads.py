"""How many threads a task gets, and that they are given back."""

import threading

import dask
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from embedkit import workers
from embedkit.analysis import threads
from embedkit.analysis.threads import limited_threads, task_slots, task_threads


def of_blas():
    np.ones((2, 2)) @ np.ones((2, 2))
    found = [each for each in threadpool_info() if each["user_api"] == "blas"]
    if not found:
        pytest.skip("a BLAS that threadpoolctl does not know")
    return {each["filepath"]: each["num_threads"] for each in found}


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({"scheduler": "synchronous"}, 1),
        ({"scheduler": "threads", "num_workers": 3}, 3),
        ({"scheduler": "threads"}, 5),
    ],
)
def test_slots_of_local_schedulers(options, slots, monkeypatch):
    """As many tasks as Dask runs at once."""
    monkeypatch.setattr(workers, "CPU_COUNT", 5)
    with dask.config.set(options):
        assert task_slots() == slots


def test_slots_of_a_cluster(client):
    """Task threads of a host."""
    assert task_slots() == 2


@pytest.mark.parametrize(("slots", "each"), [(1, 8), (2, 4), (3, 2), (8, 1), (50, 1)])
def test_a_task_gets_its_part_of_the_machine(slots, each, monkeypatch):
    """At least one thread."""
    monkeypatch.setattr(threads, "CPU_COUNT", 8)
    assert task_threads(slots) == each


def test_tasks_at_once_leave_blas_as_it_was(monkeypatch):
    """Each has its threads, whoever came first; what was there before is put back."""
    monkeypatch.setattr(threads, "CPU_COUNT", 2)
    inside, leave, seen = threading.Event(), threading.Event(), []

    def task():
        with threadpool_limits(1), limited_threads(1):
            inside.set()
            leave.wait()
            seen.append(of_blas())

    with threadpool_limits(1):
        before = of_blas()  # not all 1: after other threads used it, some builds stay
        other = threading.Thread(target=task)
        other.start()
        inside.wait()
        with limited_threads(1):
            seen.append(of_blas())
        leave.set()
        other.join()
        assert of_blas() == before
    assert any(2 in each.values() for each in seen)


def test_an_error_gives_the_threads_back(monkeypatch):
    """The next task finds BLAS as it was."""
    monkeypatch.setattr(threads, "CPU_COUNT", 2)

    def fail():
        with limited_threads(1):
            raise KeyError

    with threadpool_limits(1):
        before = of_blas()
        with pytest.raises(KeyError):
            fail()
        assert of_blas() == before
    assert threads._inside == 0
