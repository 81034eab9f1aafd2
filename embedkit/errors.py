"""The errors embedkit raises.

::

    EmbedkitError
    ├── InputError (ValueError)         an argument or a table that cannot be used
    ├── SourceError (OSError)           images that cannot be found or read
    ├── NetworkError (ValueError)       a network, layer or weights file that cannot be used
    ├── PlanError (ValueError)          what was asked cannot fit
    ├── StoreError                      a store that cannot be opened or written
    │   ├── IdentityMismatch            it was made from other images, weights or settings
    │   ├── IncompleteStore             some of its blocks are not written yet
    │   ├── CorruptStore                its bytes are not what its metadata promise
    │   └── NotInStore (KeyError)       it has no layer or result of that name
    ├── TaskError (RuntimeError)        workers died of a task, or the scheduler is gone
    ├── RecallNotReached                an approximate search finds less than was asked
    └── MissingDependencyError (ImportError)

Catch `EmbedkitError` to catch them all. Every message says what was asked, what was
found, and what to do. Constructors take the message alone and details are set as
attributes, so an error raised in a worker process reaches the client as itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmbedkitError(Exception):
    """Base class of every error that embedkit raises on purpose."""


class InputError(EmbedkitError, ValueError):
    """An argument or a table cannot be used as it is."""


class SourceError(EmbedkitError, OSError):
    """Images cannot be found or read."""


class NetworkError(EmbedkitError, ValueError):
    """A network, layer or weights file cannot be used."""


class PlanError(EmbedkitError, ValueError):
    """What was asked cannot fit."""


class StoreError(EmbedkitError):
    """A store cannot be opened or written."""


class IdentityMismatch(StoreError):
    """A store was made from other images, weights or settings.

    Attributes
    ----------
    parts : tuple of str
        The parts of the identity that differ, for instance ``("weights", "pool")``.
    """

    parts: tuple[str, ...] = ()


class IncompleteStore(StoreError):
    """Some blocks of a store are not written yet."""


class CorruptStore(StoreError):
    """The bytes of a store are not what its metadata promise."""


class NotInStore(StoreError, KeyError):
    """A store has no layer or result of that name."""

    __str__ = Exception.__str__  # a KeyError would print its message in quotes


class TaskError(EmbedkitError, RuntimeError):
    """Workers died of a task again and again, or the scheduler is gone."""


class RecallNotReached(EmbedkitError):
    """An approximate search finds fewer of the exact neighbors than were asked for.

    Attributes
    ----------
    recall : tuple of float
        What was measured, and the ends of its 95 % interval.
    """

    recall: tuple[float, float, float] | None = None


class MissingDependencyError(EmbedkitError, ImportError):
    """An optional or broken package is needed for what was asked."""


def did_you_mean(name: str, names: Iterable[str], *, n: int = 3) -> str:
    """Return a sentence that names the `n` nearest of `names`.

    Parameters
    ----------
    name : str
        What was asked for.
    names : iterable of str
        What there is.
    n : int, default 3
        How many to name at most.

    Returns
    -------
    str
        ``"Did you mean 'a' or 'b'?"``; where nothing is near, the first of what there is.

    Examples
    --------
    >>> did_you_mean("layer5", ["layer1", "layer4", "fc"])
    "Did you mean 'layer4' or 'layer1'?"
    >>> did_you_mean("x", ["conv", "fc"])
    "There is 'conv' or 'fc'."
    """
    known = list(names)
    if not known:
        return "There is none."
    near = difflib.get_close_matches(name, known, n=n, cutoff=0.5)
    listed = " or ".join(repr(each) for each in near or known[:n])
    return f"Did you mean {listed}?" if near else f"There is {listed}."
