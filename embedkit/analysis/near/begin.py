"""What both ways of a search begin with: the common space and rows with exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.analysis.ivf_space import Space
from embedkit.analysis.ivf_survey import survey
from embedkit.analysis.merge import Ids
from embedkit.analysis.near.found import Aim
from embedkit.analysis.spool import Spool
from embedkit.analysis.truth import Truth, Truths, truth_rows

_LOOK = 200  # rows that say which way to take, not how well it went


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A search among its own rows, before a way is chosen. Made by `begin`.

    Attributes
    ----------
    usable, null : ndarray of bool, shape (N,)
        Finite rows; those at one distance of everything.
    space : Space
    truths : Truths
        Of all usable rows.
    look, check : Truth
        Rows to choose a way with, and others to measure it by.
    """

    usable: npt.NDArray[np.bool_]
    null: npt.NDArray[np.bool_]
    space: Space
    truths: Truths
    look: Truth
    check: Truth

    @property
    def listed(self) -> Ids:
        """Rows that have a place in the common space, ascending."""
        return np.flatnonzero(self.usable & ~self.null)


def begin(database: Spool, aim: Aim, *, folder: Path) -> Begun:
    """Survey rows, and look up the neighbors of some, all in one pass.

    Parameters
    ----------
    database : Spool
        Rows on disk, shape (N, F).
    aim : Aim
        What is to be found; not by inner products.
    folder : Path
        Where workers find the sampled rows.

    Returns
    -------
    Begun
    """
    usable, null, space = survey(database, metric=aim.metric)
    truths = Truths(
        database,
        database,
        itself=True,
        k=aim.k,
        space=space,
        rows=np.flatnonzero(usable),
        folder=folder,
    )
    rng = np.random.default_rng((aim.seed, 4))
    sizes = [truth_rows(aim.recall), _LOOK]
    check, look = truths.draw_sizes(sizes, rng=rng)
    return Begun(usable, null, space, truths, look, check)
