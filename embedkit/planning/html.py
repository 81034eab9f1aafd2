"""A plan as a notebook shows it: tables of what is written, needed and taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from embedkit.planning.described import (
    codec_lines,
    corrected,
    device_line,
    headline,
    layer_rows,
    memory_line,
    memory_parts,
    why_line,
)
from embedkit.planning.units import told_bytes, told_seconds

if TYPE_CHECKING:
    from embedkit.planning.plan import Plan

# Colours are inherited, and greys half-way between black and white, so that the text is
# readable whatever a notebook is themed like.
_STYLE: Final = """
.embedkit-plan { color: inherit; font: 13px/1.45 system-ui, sans-serif; max-width: 58em; }
.embedkit-plan p { margin: .3em 0; }
.embedkit-plan .ek-dim { opacity: .7; }
.embedkit-plan ul { margin: .2em 0; padding-left: 1.4em; }
.embedkit-plan table { border-collapse: collapse; margin: .4em 0; color: inherit;
  font: inherit; }
.embedkit-plan th, .embedkit-plan td { background: transparent; border: 0;
  border-bottom: 1px solid rgba(128,128,128,.35); padding: .1em .9em .1em 0;
  text-align: left; font-weight: normal; }
.embedkit-plan .ek-n { text-align: right; font-variant-numeric: tabular-nums; }
.embedkit-plan .ek-bar { width: 16em; }
.embedkit-plan .ek-bar span { display: block; height: .7em; border-radius: 2px;
  background: rgba(128,128,128,.55); }
"""


def as_html(plan: Plan) -> str:
    """Return a plan as a fragment of HTML that needs nothing else.

    Parameters
    ----------
    plan : Plan
        The plan.

    Returns
    -------
    str
        One element of class ``embedkit-plan`` with its own style, no script and no address
        outside of itself; some kB, however many layers there are.
    """
    first, second = headline(plan)
    memory = memory_parts(plan)
    stages = [(name, each) for name, each in plan.stages.items() if each]
    parts = (
        f"<style>{_STYLE}</style>",
        f"<p><b>{escape(first)}</b><br>{escape(second)}</p>",
        _layers(plan),
        *(f'<p class="ek-dim">{escape(line)}</p>' for line in codec_lines(plan)),
        f"<p>{escape(memory_line(plan))}</p>",
        _bars([(part.name, part.nbytes, told_bytes(part.nbytes)) for part in memory]),
        f"<p>{escape(device_line(plan))}</p>" if plan.device_parts else "",
        f"<p>{escape(why_line(plan))}</p>",
        _bars([(name, each, told_seconds(each)) for name, each in stages]),
        *(f'<p class="ek-dim">{escape(line)}</p>' for line in corrected(plan)),
        _list("would be faster with:", plan.faster),
        _list("ways to compute the layers:", plan.ways),
    )
    return f'<div class="embedkit-plan">{"".join(parts)}</div>'


def _layers(plan: Plan) -> str:
    head = (
        '<tr><th>layer</th><th class="ek-n">before compression</th>'
        '<th class="ek-n">files</th><th>of</th><th>compressed by</th></tr>'
    )
    lines = "".join(
        f'<tr><td>{escape(row.name)}</td><td class="ek-n">{row.nbytes}</td>'
        f'<td class="ek-n">{row.files}</td><td>{row.shape}</td><td>{row.codec}</td></tr>'
        for row in layer_rows(plan)
    )
    return f"<table>{head}{lines}</table>"


def _bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Return numbers with bars whose lengths are their shares of the largest."""
    largest = max((value for _, value, _ in rows), default=0) or 1
    lines = "".join(
        f'<tr><td>{escape(name)}</td><td class="ek-n">{text}</td><td class="ek-bar">'
        f'<span style="width:{100 * value / largest:.0f}%"></span></td></tr>'
        for name, value, text in rows
    )
    return f"<table>{lines}</table>"


def _list(title: str, told: Iterable[str]) -> str:
    lines = "".join(f"<li>{escape(each)}</li>" for each in told)
    return f'<p class="ek-dim">{title}</p><ul>{lines}</ul>' if lines else ""
