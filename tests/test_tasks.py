"""Calls as tasks: in this process and on clusters, through deaths and errors."""

import itertools
import os
import signal
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from embedkit import tasks
from embedkit.errors import TaskError
from embedkit.tasks import run_tasks


def double(number):
    return 2 * number


def refuse(number):
    raise FileNotFoundError(f"no file {number}")


def die_once(folder, number):
    """Kill this process the first time."""
    flag = Path(folder) / str(number)
    if number == 3 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(_number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster():
    """Two workers in this process."""
    with (
        LocalCluster(
            processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(params=["synchronous", "threads", "cluster"])
def anywhere(request, cluster):
    """Each scheduler in turn."""
    if request.param == "cluster":
        with cluster.as_current():
            yield
    else:
        with dask.config.set(scheduler=request.param):
            yield


def test_every_call_is_answered_with_its_arguments(anywhere):
    """As many pairs as calls, in any order."""
    found = dict(run_tasks(double, ((n,) for n in range(40)), name="doubling"))

    assert found == {(n,): 2 * n for n in range(40)}


def test_no_arguments_no_tasks(anywhere):
    """An empty iterable ends at once."""
    assert list(run_tasks(double, [], name="nothing")) == []


def test_an_error_of_the_function_comes_out_as_itself(anywhere):
    """Also where it looks like one of the network."""
    with pytest.raises(FileNotFoundError, match="no file 1"):
        list(run_tasks(refuse, [(1,)], name="refusing"))


def test_no_more_than_the_window_is_drawn(anywhere, monkeypatch):
    """Ten million calls are no list anywhere; closing ends the run."""
    monkeypatch.setattr(tasks, "CPU_COUNT", 2)
    monkeypatch.setattr(tasks, "_ROUNDS", 1)
    drawn = itertools.count()

    with dask.config.set({"embedkit.window": 3}):
        calls = run_tasks(double, ((n,) for n in drawn), name="endless")
        for _ in range(10):
            next(calls)
        calls.close()

    assert next(drawn) <= 10 + 2 * 6


def doubles(count):
    return sorted(value for _, value in run_tasks(double, _singles(count), name="d"))


def both_levels(count):
    """Run tasks in tasks in a task, one after the other."""
    return [value for _, value in run_tasks(doubles, _singles(count), name="levels")]


def first_double(count):
    """Leave the rest of the calls alone."""
    calls = run_tasks(double, _singles(count), name="some")
    found = next(calls)
    calls.close()
    return found[1], doubles(3)


def _singles(count):
    return ((number,) for number in range(count))


def test_tasks_run_inside_of_a_task_on_the_only_thread():
    """Its place is free for them while it waits, at any depth, and taken again."""
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        once = client.submit(doubles, 5).result(timeout=20)
        futures = client.map(both_levels, [3, 4])
        levels = client.gather(futures, errors="raise")
        some = client.submit(first_double, 50).result(timeout=20)
        threads = {
            len(each.executors["default"]._threads) for each in cluster.workers.values()
        }

    assert once == [0, 2, 4, 6, 8]
    assert [sorted(map(len, each)) for each in levels] == [[0, 1, 2], [0, 1, 2, 3]]
    assert some == (some[0], [0, 2, 4])
    assert threads == {1}


@pytest.mark.slow
def test_a_death_is_no_end_and_deaths_without_end_are(tmp_path):
    """A call whose worker dies is sent again; one that always kills is given up."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", processes=True
        ) as cluster,
        Client(cluster),
    ):
        calls = ((str(tmp_path), number) for number in range(6))

        found = sorted(result for _, result in run_tasks(die_once, calls, name="once"))
        with pytest.raises(TaskError, match=r"task of killing was tried 5 times"):
            list(run_tasks(die, [(0,)], name="killing"))

    assert found == list(range(6))


@pytest.mark.slow
def test_a_scheduler_that_goes_is_told():
    """With what to do."""
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        client = Client(cluster)
        calls = run_tasks(double, ((n,) for n in range(100)), name="doubling")
        next(calls)
        client.sync(cluster.scheduler.close)
        with pytest.raises(TaskError, match=r"scheduler is gone before doubling"):
            list(calls)
        client.close(timeout=1)
