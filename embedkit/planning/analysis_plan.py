"""The plan of an analysis: how it is cut into tasks, and what they need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from embedkit.planning.document import read_document
from embedkit.planning.memory import Part
from embedkit.planning.units import told_bytes, told_count, told_seconds

FORMAT = 1

# As the table of an image set: colours are inherited, so that any theme can be read.
_STYLE = """
.embedkit-analysis { color: inherit; font: 13px/1.45 system-ui, sans-serif; }
.embedkit-analysis p { margin: .3em 0; }
.embedkit-analysis .ek-dim { opacity: .7; }
.embedkit-analysis table { border-collapse: collapse; margin: .4em 0; color: inherit;
  font: inherit; }
.embedkit-analysis th, .embedkit-analysis td { background: transparent; border: 0;
  border-bottom: 1px solid rgba(128,128,128,.35); padding: .1em .9em .1em 0;
  text-align: left; font-weight: normal; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """An analysis before it runs. Made by `embedkit.planning.analyses.plan_analysis`.

    Parameters
    ----------
    asked : str
        The function.
    n_images, width : int
        Rows, and entries of each.
    entries : str
        What an entry is: ``"feature"`` or ``"neighbor"``.
    studies : int
        Equal analyses of as many rows, such as one for each layer.
    whole : bool
        Whether a task holds all rows at once: more workers do not make it smaller.
    rows_per_task : int
        Rows that a task takes.
    n_tasks : int
        Tasks in all.
    at_once : int
        Tasks at a time in a process.
    threads : int
        Threads of a task.
    parts : tuple of Part
        What takes memory in the busiest process, beyond what it has when it starts; they
        add up to `projected_mem`.
    allowed_mem : int
        Bytes that a process may take.
    result_bytes, scratch_bytes : int
        Of the result, and of files while it is made.
    seconds : float or None
        Wall-clock, where it is known how fast a task is.
    """

    asked: str
    n_images: int
    width: int
    entries: str
    studies: int
    whole: bool
    rows_per_task: int
    n_tasks: int
    at_once: int
    threads: int
    parts: tuple[Part, ...]
    allowed_mem: int
    result_bytes: int
    scratch_bytes: int
    seconds: float | None

    @property
    def projected_mem(self) -> int:
        """Bytes that the busiest process takes beyond what it has when it starts."""
        return sum(part.nbytes for part in self.parts)

    def describe(self) -> str:
        """Return the plan for people, some lines."""
        about = (f"  {name}: {told}" for name, told in self._rows())
        return "\n".join([self._headline(), *about])

    def _headline(self) -> str:
        times = f"{self.studies} times " if self.studies > 1 else ""
        return (
            f"{self.asked} of {times}{told_count(self.n_images, 'image')} with "
            f"{told_count(self.width, self.entries)}"
        )

    def _rows(self) -> Iterator[tuple[str, str]]:
        """Yield what there is to say, by name."""
        share = "all rows" if self.whole else told_count(self.rows_per_task, "row")
        yield (
            "tasks",
            f"{self.n_tasks:,} of {share}, {self.at_once} at once in a process with "
            f"{told_count(self.threads, 'thread')} each",
        )
        there = ", ".join(
            f"{part.name} {told_bytes(part.nbytes)}"
            for part in self.parts
            if part.nbytes
        )
        yield (
            "memory",
            f"{told_bytes(self.projected_mem)} projected, "
            f"{told_bytes(self.allowed_mem)} allowed ({there})",
        )
        yield "result", told_bytes(self.result_bytes)
        if self.scratch_bytes:
            yield "scratch files", told_bytes(self.scratch_bytes)
        if self.seconds is not None:
            yield "time", told_seconds(self.seconds)

    def to_json(self) -> str:
        """Return the plan as one JSON object, with its `projected_mem`."""
        found = {"format": FORMAT, "projected_mem": self.projected_mem}
        return json.dumps({**found, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> AnalysisPlan:
        """Return the plan that `to_json` wrote.

        Raises
        ------
        InputError
            When it is no such text, or that of another format.
        """
        return read_document(
            text,
            _plan,
            version=FORMAT,
            what="plan of an analysis",
            remedies=("give what AnalysisPlan.to_json wrote", "plan again"),
        )

    def _repr_html_(self) -> str:
        """Return the plan as a notebook shows it: a table, with its own style alone."""
        rows = "".join(
            f"<tr><th class='ek-dim'>{escape(name)}</th><td>{escape(told)}</td></tr>"
            for name, told in self._rows()
        )
        return (
            f"<div class='embedkit-analysis'><style>{_STYLE}</style>"
            f"<p>{escape(self._headline())}</p><table>{rows}</table></div>"
        )


def _plan(found: dict[str, Any]) -> AnalysisPlan:
    del found["projected_mem"]  # the sum of its parts
    parts = tuple(Part(**each) for each in found.pop("parts"))
    return AnalysisPlan(**found, parts=parts)
