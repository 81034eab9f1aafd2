"""Many small calls as Dask tasks: on a cluster through a window, or in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from dask.base import compute
from dask.delayed import delayed
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, rejoin, secede, wait

from embedkit.config import settings
from embedkit.errors import TaskError
from embedkit.workers import active_client

Arguments: TypeAlias = tuple[Any, ...]
_Turn = TypeVar("_Turn")

CUT_OFF = (CancelledError, asyncio.CancelledError, OSError)
"""What the client and its futures raise when the scheduler has gone."""

_ROUNDS = 8
"""Windows that are computed together in this process: at the end of each batch some
threads wait for the others."""

_MOST_KILLS = 5
"""Times a call is sent again after the scheduler blamed it for deaths: each time the
scheduler itself has tried it on some workers before (chosen)."""

_PATIENCE = 60.0
"""Seconds without an ended task after which a missing worker is told (chosen)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Call:
    number: int
    arguments: Arguments
    attempt: int = 1


def run_tasks(
    function: Callable[..., Any], arguments: Iterable[Arguments], *, name: str
) -> Generator[tuple[Arguments, Any], None, None]:
    """Call `function` once for each tuple of arguments, as Dask tasks.

    Parameters
    ----------
    function : callable
        A named function of a module, so that it pickles by name. Calling it again with
        the same arguments has to do no harm: a worker may die in the middle.
    arguments : iterable of tuple
        Small picklable values, such as paths and numbers; arrays belong into files.
        Consumed as workers become free.
    name : str
        What the dashboard calls these tasks, and messages.

    Yields
    ------
    arguments : tuple
    result : object
        One pair per call, in the order in which the calls end. Closing the iterator early
        cancels what has not started. Inside a Dask task, that task gives up its place on
        the worker until the last pair is out.

    Raises
    ------
    TaskError
        When workers die of one call again and again, or the scheduler is gone.
    Exception
        What `function` raised.
    """
    calls = (_Call(number, each) for number, each in enumerate(arguments))
    client = active_client()
    if client is None:
        return _in_process(function, calls)
    return _on_cluster(client, function, calls, name)


def _in_process(
    function: Callable[..., Any], calls: Iterator[_Call]
) -> Generator[tuple[Arguments, Any], None, None]:
    """Run on Dask's configured scheduler, a window at a time."""
    task = delayed(function, pure=False)
    window = _ROUNDS * settings().window * CPU_COUNT
    while batch := list(islice(calls, window)):
        results = compute(*[task(*call.arguments) for call in batch])
        for call, result in zip(batch, results, strict=True):
            yield call.arguments, result


def _on_cluster(
    client: Client, function: Callable[..., Any], calls: Iterator[_Call], name: str
) -> Generator[tuple[Arguments, Any], None, None]:
    """Keep a bounded window of calls in flight, as wide as the cluster is now.

    No task asks for resources: that would switch off the scheduler's queueing, and one
    dying worker would then take the whole window with it.
    """
    run = f"{name}-{time.time_ns():x}"
    in_flight: dict[Any, _Call] = {}
    again: deque[_Call] = deque()

    def fill() -> None:
        """Workers may have joined: look anew how many there are."""
        width = settings().window * max(1, sum(client.nthreads().values()))
        for call in draw(again, calls, width - len(in_flight)):
            key = f"{run}-{call.number}-{call.attempt}"
            future = client.submit(function, *call.arguments, key=key, pure=False)
            in_flight[future] = call

    with place_given_up(), cancelled_at_the_end(client, in_flight):
        with _connected(name):
            fill()
        while in_flight:
            with _connected(name):
                done = ended(client, list(in_flight))
            for future in done:
                call = in_flight.pop(future)
                if future.status == "error":
                    again.append(_once_more(call, name, future.exception()))
                else:
                    with _connected(name):
                        result = future.result()
                    yield call.arguments, result
                with _connected(name):
                    fill()


@contextmanager
def cancelled_at_the_end(
    client: Client, in_flight: Mapping[Any, object]
) -> Iterator[None]:
    """Cancel what is in flight when nobody waits for it any more.

    Parameters
    ----------
    client : Client
        Of the futures.
    in_flight : mapping
        Whose keys are the futures, at the end of the ``with`` block.
    """
    try:
        yield
    finally:
        if client.status == "running":
            client.cancel(list(in_flight))


@contextmanager
def place_given_up() -> Iterator[None]:
    """Free the worker's thread where this is a task: it may be the only one there is."""
    try:
        secede()
    except (ValueError, KeyError):  # no task, or one that has given up its place before
        yield
        return
    here = threading.get_ident()
    try:
        yield
    finally:
        if threading.get_ident() == here:  # not where an iterator was just forgotten
            rejoin()


def result_of(future: Future[Any]) -> Any:
    """Wait for one future; where this is a task, its place is free meanwhile.

    Parameters
    ----------
    future : Future
        Of the client in force.

    Raises
    ------
    Exception
        What the task raised.
    """
    with place_given_up():
        return future.result()


@contextmanager
def _connected(name: str) -> Iterator[None]:
    """Say what it means that the scheduler does not answer."""
    try:
        yield
    except CUT_OFF as error:
        raise TaskError(
            f"the Dask scheduler is gone before {name} was done: connect to a cluster "
            "and run the same call again"
        ) from error


def draw(again: deque[_Turn], turns: Iterator[_Turn], count: int) -> list[_Turn]:
    """Take the next turns, those that are due again first.

    Parameters
    ----------
    again, turns : deque, iterator
        What is due again, and what has not been tried; both are consumed.
    count : int
        How many at most; none where it is negative.
    """
    drawn = [again.popleft() for _ in range(min(count, len(again)))]
    return [*drawn, *islice(turns, max(0, count - len(drawn)))]


def _once_more(call: _Call, name: str, error: BaseException) -> _Call:
    """Return the next attempt after deaths; raise what the function itself raised."""
    if not isinstance(error, KilledWorker):
        raise error
    if call.attempt >= _MOST_KILLS:
        raise TaskError(
            f"a task of {name} was tried {call.attempt} times and its worker died each "
            f"time ({error}): give workers more memory, or look into their logs"
        ) from error
    return replace(call, attempt=call.attempt + 1)


def ended(client: Client, futures: list[Any]) -> Iterable[Any]:
    """Wait until some have ended. Say so now and then if there is nobody to do it.

    Parameters
    ----------
    client : Client
        Of the futures.
    futures : list of Future
        At least one.
    """
    patience = _PATIENCE
    while True:
        try:
            done: set[Any] = wait(
                futures, timeout=patience, return_when="FIRST_COMPLETED"
            ).done
        except TimeoutError:
            if not client.nthreads():
                _log.warning("no Dask worker for %.0f s: waiting for some", patience)
            patience *= 2
        else:
            return done
