"""What an analysis takes, as coefficients, and how large one is."""

from __future__ import annotations

from dataclasses import dataclass

from embedkit.errors import InputError
from embedkit.planning.memory import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisModel:
    """What an analysis takes, in coefficients: everything grows by them in straight lines.

    A new analysis measures its own and asks `embedkit.planning.analyses.plan_analysis`; see
    `embedkit.planning.analysis_models` for those that there are. An *entry* is a number of
    a row: a feature of an image or one of its neighbors.

    Parameters
    ----------
    asked : str
        The function.
    entries : str
        What an entry is: ``"feature"`` or ``"neighbor"``.
    whole : bool
        Whether a task needs all rows at once. Otherwise rows are dealt out to tasks, and
        the result may not depend on how.
    fixed : int
        Bytes whatever the sizes: libraries that are loaded, blocks that are worked on.
    image, entry : int
        Bytes for each image and each entry, which a process holds throughout.
    task_fixed, task_image, task_entry : int
        Bytes of each task at once, and for each of its rows and their entries.
    task_copies : int
        Times that a task holds its rows as they are stored.
    task_square : int
        Bytes of each task for every pair of entries of a row.
    result_image, result_entry : int
        Bytes of the result, of those above.
    scratch_image, scratch_entry, scratch_copies : int
        Bytes of files, and times that rows lie in them as they are stored.
    narrower : str
        How to have fewer entries, with ``{0}`` for their number.
    """

    asked: str
    entries: str = "feature"
    whole: bool = True
    fixed: int = 0
    image: int = 0
    entry: int = 0
    task_fixed: int = 0
    task_image: int = 0
    task_entry: int = 0
    task_copies: int = 0
    task_square: int = 0
    result_image: int = 0
    result_entry: int = 0
    scratch_image: int = 0
    scratch_entry: int = 0
    scratch_copies: int = 0
    narrower: str = "{0} features or fewer, such as pool='random_projection({0})'"

    def parts(self, size: AnalysisSize, *, rows: int, at_once: int) -> tuple[Part, ...]:
        """Return what a process needs, part by part.

        Parameters
        ----------
        size : AnalysisSize
            Of the analysis.
        rows : int
            Rows of a task.
        at_once : int
            Tasks at a time in the process.

        Returns
        -------
        tuple of Part
            They add up to the projected memory.
        """
        held = size.n_images * (self.image + self.entry * size.width)
        copies = self.task_copies * size.itemsize
        task = rows * (self.task_image + (self.task_entry + copies) * size.width)
        task += self.task_fixed + self.task_square * size.width**2
        return (
            Part("libraries and blocks", self.fixed),
            Part("all rows", held),
            Part("tasks at once", at_once * task),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisSize:
    """How large an analysis is.

    Parameters
    ----------
    n_images : int
        Rows.
    width : int
        Entries of a row.
    itemsize : int, default 4
        Bytes of a stored entry.
    studies : int, default 1
        Equal analyses of as many rows, such as one for each layer.

    Raises
    ------
    InputError
        When a number is below 1.
    """

    n_images: int
    width: int
    itemsize: int = 4
    studies: int = 1

    def __post_init__(self) -> None:
        for name in ("n_images", "width", "itemsize", "studies"):
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise InputError(f"{name} is {value}: give 1 or more")
