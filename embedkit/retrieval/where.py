"""Which images are searched: a condition on the image table, a mask, or a function.

A condition is Python in form and checked as such before pandas sees it: names of columns,
constants, comparisons, ``and``, ``or``, ``not``, arithmetic, and a few methods of columns.
Nothing in it can reach a file, a variable or the interpreter.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from embedkit.errors import InputError
from embedkit.retrieval.columns import ID, check_columns, column_names, table_of

Where: TypeAlias = (
    str | npt.ArrayLike | xr.DataArray | Callable[[pd.DataFrame], npt.ArrayLike]
)

_METHODS = (
    *("str", "contains", "startswith", "endswith", "lower", "upper", "len"),
    *("isin", "isna", "notna", "between", "abs"),
    *("dt", "year", "month", "day", "hour"),
)
_FORMS = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub),
    *(ast.Invert, ast.Compare, ast.cmpop, ast.BinOp, ast.BitAnd, ast.BitOr),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Name, ast.Load),
    *(ast.Constant, ast.List, ast.Tuple, ast.Attribute, ast.Call, ast.keyword),
)
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`([^`]*)`""")
"""Texts, which stay what they are, or a name between backticks."""


def mask_of(x: xr.DataArray, where: Where | None) -> npt.NDArray[np.bool_] | None:
    """Return which rows of a layer are searched.

    Parameters
    ----------
    x : DataArray
        A layer of a store, with its image table as coordinates.
    where : str, array_like of bool (N,), callable or None
        As for `embedkit.search`.

    Returns
    -------
    (N,) array of bool, or None
        None for all rows.

    Raises
    ------
    InputError
        For an unknown column, a condition that is not allowed or cannot be evaluated, a
        mask of another shape or type, or one that holds for no image.
    """
    if where is None:
        return None
    if isinstance(where, str):
        found = _evaluated(x, where)
    elif callable(where):
        found = where(table_of(x, column_names(x)))
    else:
        found = where
    mask = _checked(found, x.sizes["image"])
    if not mask.any():
        said = repr(where) if isinstance(where, str) else "the mask"
        raise InputError(
            f"search got where={said}, which holds for none of the {len(mask)} images; "
            "loosen it, or see what there is in the store's `images`"
        )
    return mask


def _checked(found: Any, n_images: int) -> npt.NDArray[np.bool_]:
    mask = np.asarray(found)
    if mask.shape != (n_images,) or mask.dtype != bool:
        raise InputError(
            f"search needs where to give one bool for each of the {n_images} images and "
            f"got {mask.dtype} of shape {mask.shape}; compare columns, for instance "
            "\"label == 'dog'\""
        )
    return mask


def _evaluated(x: xr.DataArray, condition: str) -> Any:
    """Evaluate a condition on the columns that it names."""
    tree, quoted = _parsed(condition)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = {quoted.get(name, name) for name in used}
    check_columns(x, names - {ID}, asked=f"where={condition!r}")
    table = table_of(x, sorted(names - {ID}), ids=ID in names)
    for each, name in quoted.items():
        table[each] = table.index if name == ID else table[name]
    try:  # what was checked, not what was written: nobody can read it in another way
        return table.eval(ast.unparse(tree), engine="python")
    except Exception as error:  # pandas raises whatever its columns raise
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"search cannot evaluate where={condition!r}: {said}; compare columns with "
            "values of their own type"
        ) from error


def _parsed(condition: str) -> tuple[ast.Expression, dict[str, str]]:
    """Return a condition that is harmless, and what stands in it for quoted names."""
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        quoted[f"quoted_{len(quoted)}_"] = match[1]
        return f"quoted_{len(quoted) - 1}_"

    plain = _QUOTED.sub(stand_in, condition).strip()
    try:
        tree = ast.parse(_in_words(plain), mode="eval")
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        if "@" in plain:
            raise _refused(condition, "variables (@)") from error
        raise InputError(
            f"search cannot read where={condition!r} ({error}); write a condition such "
            "as \"label == 'dog' and width > 100\""
        ) from error
    for node in ast.walk(tree):
        _check_node(node, condition)
    return tree, quoted


def _in_words(condition: str) -> str:
    """Write ``&`` and ``|`` as ``and`` and ``or``: so pandas reads them.

    In Python they bind more tightly, so that a condition which is taken apart and put
    together again would lose the parentheses that pandas needs.
    """
    words = {"&": "and", "|": "or"}
    tokens = tokenize.generate_tokens(io.StringIO(condition).readline)
    pairs = [
        (tokenize.NAME, words[text])
        if kind == tokenize.OP and text in words
        else (kind, text)
        for kind, text, *_ in tokens
    ]
    return tokenize.untokenize(pairs).strip()


def _check_node(node: ast.AST, condition: str) -> None:
    if not isinstance(node, _FORMS):
        raise _refused(condition, f"{type(node).__name__} in it")
    if isinstance(node, ast.Attribute) and node.attr not in _METHODS:
        raise _refused(condition, f"'.{node.attr}'")
    if isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
        raise _refused(condition, "functions")


def _refused(condition: str, what: str) -> InputError:
    return InputError(
        f"search got where={condition!r} and takes no {what}; use columns, values, "
        f"comparisons and the methods {', '.join(_METHODS)}, or pass a function"
    )
