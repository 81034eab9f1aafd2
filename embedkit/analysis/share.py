"""Tasks that keep to their share of a machine's cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from embedkit.analysis.threads import limited_threads, task_slots
from embedkit.tasks import Arguments, run_tasks


def run_shared(
    function: Callable[..., Any], arguments: Iterable[Arguments], *, name: str
) -> Iterator[tuple[Arguments, Any]]:
    """Run tasks as `run_tasks` does, each with its share of threads for BLAS and FAISS.

    Parameters
    ----------
    function : callable
        A named function of a module.
    arguments : iterable of tuple
    name : str

    Yields
    ------
    arguments : tuple
    result : object
    """
    slots = task_slots()
    tasks = ((slots, function, *each) for each in arguments)
    for (_, _, *given), result in run_tasks(run_limited, tasks, name=name):
        yield tuple(given), result


def run_limited(slots: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on the share of threads that a task has.

    Parameters
    ----------
    slots : int
        Tasks that share the machine.
    function : callable
    *arguments

    Returns
    -------
    object
    """
    with limited_threads(slots):
        return function(*arguments)
