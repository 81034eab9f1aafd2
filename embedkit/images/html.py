"""A set of images as a notebook shows it: counts, formats, sizes and thumbnails."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from embedkit.images.glance import SIDE, Seen, look_at, spread_rows

if TYPE_CHECKING:
    from embedkit.images.imageset import ImageSet

_LOOKED_AT: Final = 24
"""Images that are read (chosen: well under a second from a disk)."""

_SHOWN: Final = 12
"""Thumbnails at most."""

_SECONDS: Final = 2.0
"""How long a look may take (chosen: what one waits for a cell without wondering)."""

_FORMATS: Final = 8
"""Rows of the table of formats, before the others are summed up."""

_REASONS: Final = 6
"""Reasons of unreadable images that are listed."""

_TEXT: Final = 160
"""Characters of any text that comes from outside."""

# Colours are inherited, and greys half-way between black and white, so that the text is
# readable whatever a notebook is themed like; one accent differs by the system's theme.
_STYLE: Final = f"""
.embedkit-images {{ color: inherit; font: 13px/1.45 system-ui, sans-serif; max-width: 58em; }}
.embedkit-images p {{ margin: .3em 0; }}
.embedkit-images .ek-dim {{ opacity: .7; }}
.embedkit-images table {{ border-collapse: collapse; margin: .4em 0; color: inherit;
  font: inherit; }}
.embedkit-images th, .embedkit-images td {{ background: transparent; border: 0;
  border-bottom: 1px solid rgba(128,128,128,.35); padding: .1em .9em .1em 0;
  text-align: left; font-weight: normal; }}
.embedkit-images .ek-n {{ text-align: right; font-variant-numeric: tabular-nums; }}
.embedkit-images .ek-row {{ display: flex; flex-wrap: wrap; gap: 10px; margin: .6em 0; }}
.embedkit-images figure {{ margin: 0; width: {SIDE + 8}px; }}
.embedkit-images .ek-cell {{ height: {SIDE}px; display: flex; align-items: center;
  justify-content: center; overflow: hidden; border-radius: 3px; }}
.embedkit-images img {{ max-width: {SIDE}px; max-height: {SIDE}px; margin: 0; }}
.embedkit-images .ek-bad {{ border: 1px dashed; color: #d9483c; font-size: 10px;
  line-height: 1.25; overflow-wrap: anywhere; padding: 3px; box-sizing: border-box; }}
.embedkit-images figcaption {{ font-size: 11px; line-height: 1.3; overflow-wrap: anywhere; }}
@media (prefers-color-scheme: dark) {{
  .embedkit-images .ek-bad {{ color: #f0766b; }}
}}
"""


def as_html(images: ImageSet) -> str:
    """Return a set of images as a fragment of HTML that needs nothing else.

    At most `_LOOKED_AT` images are read, for a limited time, whatever their number. Images
    that cannot be read are shown with the reason; nothing is raised for them.

    Parameters
    ----------
    images : ImageSet
        The set.

    Returns
    -------
    str
        One element of class ``embedkit-images`` with its own style, no script and no
        address outside of itself; some tens of kB.
    """
    rows = spread_rows(len(images), most=_LOOKED_AT)
    shown = sorted(rows[at] for at in spread_rows(len(rows), most=_SHOWN))
    # Those that are shown first: where time is short, the others fall away.
    order = [*shown, *(row for row in rows if row not in set(shown))]
    seen = look_at(images, order, seconds=_SECONDS)
    parts = (
        f"<style>{_STYLE}</style>",
        f"<p><b>{_text(repr(images))}</b></p>",
        _formats(images),
        _sizes(seen),
        _figures(images, seen[: len(shown)]),
        _unreadable(images, seen),
    )
    return f'<div class="embedkit-images">{"".join(parts)}</div>'


def _text(value: object, most: int = _TEXT) -> str:
    """Return text from outside, cut short and escaped."""
    text = str(value)
    return escape(text if len(text) <= most else f"{text[: most - 1]}…")


def _formats(images: ImageSet) -> str:
    """Return a table of the kinds of file."""
    kinds = kinds_of(images.table["uri"])
    known = np.maximum(images.sizes, 0)
    found = pd.DataFrame({"kind": kinds, "nbytes": known}).groupby("kind")["nbytes"]
    table = found.agg(["size", "sum"]).sort_values(
        "size", ascending=False, kind="stable"
    )
    lines = [
        (str(kind), int(count), int(nbytes))
        for kind, count, nbytes in table.head(_FORMATS).itertuples()
    ]
    rest = table.iloc[_FORMATS:]
    if len(rest):
        name = f"{len(rest)} others"
        lines.append((name, int(rest["size"].sum()), int(rest["sum"].sum())))
    head = '<tr><th>format</th><th class="ek-n">images</th><th class="ek-n">bytes</th></tr>'
    return f"<table>{head}{''.join(_line(*line) for line in lines)}</table>"


def _line(kind: str, count: int, nbytes: int) -> str:
    size = f"{nbytes:,}" if nbytes else "–"
    return (
        f'<tr><td>{_text(kind)}</td><td class="ek-n">{count:,}</td>'
        f'<td class="ek-n">{size}</td></tr>'
    )


def kinds_of(uris: pd.Series[str]) -> pd.Series[str]:
    """Return what each image is, as far as its uri tells.

    Parameters
    ----------
    uris : Series of str, N entries
        As in the table of an `ImageSet`.

    Returns
    -------
    Series of str, N entries
        The extension of the file's name in lower case; where there is none, what stands
        before the colon, such as ``array``, or ``no extension``.

    Examples
    --------
    >>> kinds_of(pd.Series(["/a.JPG", "array:3", "/b.png#xywh=1,2,3,4"])).tolist()
    ['jpg', 'array', 'png']
    """
    packed = uris.str.extract(r"^(array|dataset|parquet):", expand=False)
    ends = uris.str.extract(
        r"\.([A-Za-z0-9]{1,8})(?:#xywh=[^/]*|\?[^/]*)?$", expand=False
    )
    return packed.fillna(ends.str.lower()).fillna("no extension")


def _sizes(seen: Sequence[Seen]) -> str:
    """Return a line about the pixels of what was read."""
    sizes = np.array([each.size for each in seen if each.size is not None])  # n 2
    looked = sum(not each.late for each in seen)
    if not len(sizes):
        return f'<p class="ek-dim">none of the {looked} looked at could be read</p>'
    named = " · ".join(
        f"{name} {_span(values)}"
        for name, values in zip(("width", "height"), sizes.T, strict=True)
    )
    return (
        f"<p>{named} pixels "
        f'<span class="ek-dim">(smallest / median / largest of {len(sizes):,} that were '
        "read)</span></p>"
    )


def _span(values: Iterable[int]) -> str:
    """Return the smallest, median and largest of some numbers."""
    low, middle, high = np.quantile(np.array([*values]), [0, 0.5, 1])
    return f"{low:,.0f}" if low == high else f"{low:,.0f} / {middle:,.0f} / {high:,.0f}"


def _figures(images: ImageSet, seen: Sequence[Seen]) -> str:
    """Return the thumbnails, and boxes in place of those that there are not."""
    return (
        f'<div class="ek-row">{"".join(_figure(images, each) for each in seen)}</div>'
    )


def _figure(images: ImageSet, seen: Seen) -> str:
    name = images.table.index[seen.row]
    caption = _text(_ending(str(name)))
    if "label" in images.table and pd.notna(images.table["label"].iloc[seen.row]):
        label = _text(images.table["label"].iloc[seen.row], 40)
        caption += f'<br><span class="ek-dim">{label}</span>'
    return (
        f'<figure title="{_text(name)}">{_cell(str(name), seen)}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _cell(name: str, seen: Seen) -> str:
    """Return the picture of one image, or the reason why there is none."""
    if not seen.thumbnail:
        return f'<div class="ek-cell ek-bad">{_text(seen.problem, 110)}</div>'
    data = base64.b64encode(seen.thumbnail).decode("ascii")
    return (
        f'<div class="ek-cell"><img alt="{_text(name)}" '
        f'src="data:image/{seen.kind};base64,{data}"></div>'
    )


def _ending(name: str, most: int = 30) -> str:
    """Return the end of an id, which tells neighbors apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _unreadable(images: ImageSet, seen: Sequence[Seen]) -> str:
    """Return how many were looked at, and why some cannot be read."""
    looked = [each for each in seen if not each.late]
    late = len(seen) - len(looked)
    bad = [each for each in looked if each.problem]
    told = f"{len(looked):,} of {len(images):,} looked at"
    told += f", {late} left out for want of time" if late else ""
    if not bad:
        return (
            f'<p class="ek-dim">{told}, all readable</p>'
            if looked
            else f"<p>{told}</p>"
        )
    firsts = {each.problem: images.table.index[each.row] for each in reversed(bad)}
    counts = Counter(each.problem for each in bad).most_common(_REASONS)
    listed = "".join(
        f"<li>{count} × {_text(why)} "
        f'<span class="ek-dim">({_text(firsts[why], 60)})</span></li>'
        for why, count in counts
    )
    more = len(firsts) - len(counts)
    listed += f"<li>and {more} other reasons</li>" if more else ""
    return (
        f'<p class="ek-dim">{told}</p><p>{len(bad)} of the {len(looked)} looked at cannot '
        f"be read:</p><ul>{listed}</ul>"
    )
