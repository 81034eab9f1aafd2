"""The plans that runs have followed, kept beside the commit records of their passes."""

from __future__ import annotations

from embedkit.files.files import Files
from embedkit.store.commits import PRIVATE

_PLANS = f"{PRIVATE}/plans"


def write_plan(files: Files, key: str, plan: str) -> None:
    """Keep the plan of a pass; an earlier run's is replaced.

    Parameters
    ----------
    files : Files
        The store.
    key : str
        Of the pass.
    plan : str
        As JSON.
    """
    files.write(_name(key), plan.encode())


def read_plan(files: Files, key: str) -> str | None:
    """Return the plan of a pass as JSON; None where it followed none."""
    try:
        return files.read(_name(key)).decode()
    except FileNotFoundError:
        return None


def _name(key: str) -> str:
    return f"{_PLANS}/{key}.json"
