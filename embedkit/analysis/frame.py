"""What the lazy analyses share: checks of their input, labels on their result."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

import embedkit
from embedkit.errors import InputError

Labelled = xr.DataArray | xr.Dataset


def check_rows(x: xr.DataArray, *, asked: str, dims: Sequence[str]) -> None:
    """Raise unless `x` is one row of floating-point numbers per image.

    Parameters
    ----------
    x : DataArray
        What was given.
    asked : str
        The function that needs it, for the message.
    dims : sequence of str
        Accepted second dimensions, ``"feature"`` first.

    Raises
    ------
    InputError
        For other dimensions or another kind of number.
    """
    if not isinstance(x, xr.DataArray):
        raise InputError(
            f"{asked} needs a DataArray and got a {type(x).__name__}; "
            "pass one layer, such as store['fc']."
        )
    if x.ndim != 2 or x.dims[0] != "image" or x.dims[1] not in dims:
        wanted = " or ".join(f"('image', '{name}')" for name in dims)
        raise InputError(
            f"{asked} needs dims {wanted} and got {x.dims}; "
            "average or stack the others into 'feature' first."
        )
    if x.dtype.kind != "f":
        raise InputError(
            f"{asked} needs floating-point rows and got {x.dtype}; "
            "convert them with x.astype('float32')."
        )


def whole(value: Any, *, asked: str, name: str) -> int:
    """Return an integer parameter as an int.

    Parameters
    ----------
    value : int
        What was given, of Python or NumPy.
    asked, name : str
        The function and its parameter, for the message.

    Returns
    -------
    int

    Raises
    ------
    InputError
        For anything that is no integer: a float even if it is whole, or a bool.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise InputError(f"{asked} got {name}={value!r}; choose a whole number.")


def check_variables(given: xr.Dataset, *, asked: str, names: Sequence[str]) -> None:
    """Raise unless the Dataset has the variables `names`, each (image, neighbor).

    Raises
    ------
    InputError
        Naming what is there instead, and what makes the missing variable.
    """
    maker = "neighbor_graph" if "weight" in names else "neighbors"
    if not isinstance(given, xr.Dataset):
        raise InputError(
            f"{asked} needs a Dataset and got a {type(given).__name__}; "
            f"pass what {maker} returned."
        )
    for name in names:
        if name not in given or given[name].dims != ("image", "neighbor"):
            found = {str(key): value.dims for key, value in given.data_vars.items()}
            raise InputError(
                f"{asked} needs a variable '{name}' with dims ('image', 'neighbor') "
                f"and got {found}; pass what {maker} returned."
            )


def check_same_images(first: Any, second: Any, *, asked: str) -> None:
    """Raise if two labelled objects carry different image ids, or another order.

    Objects without ids are taken to be in the same order.

    Raises
    ------
    InputError
        Naming the first row that differs.
    """
    labelled_both = all(
        isinstance(each, Labelled) and "image" in each.coords
        for each in (first, second)
    )
    if not labelled_both or first.sizes["image"] != second.sizes["image"]:
        return  # lengths are compared where the values are
    one, other = first["image"].values, second["image"].values
    differing = np.flatnonzero(one != other)
    if len(differing):
        row = differing[0]
        raise InputError(
            f"{asked} got two orders of images: row {row} is {str(one[row])!r} in one "
            f"and {str(other[row])!r} in the other; bring them into one order with isel."
        )


def labelled(
    like: Labelled,
    variables: Mapping[str, tuple[Sequence[str], Any]],
    *,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Put `variables` under the image coordinates of `like`.

    A carried coordinate whose name a variable takes is renamed: the table column
    ``label`` becomes ``image_label`` beside the cluster's ``label``.

    Parameters
    ----------
    like : DataArray or Dataset
        Where the image coordinates come from; they are not loaded.
    variables : mapping of str to (dims, data)
        The result.
    attrs : mapping
        Parameters and provenance, plain values.

    Returns
    -------
    Dataset
        Lazy where `variables` are.
    """
    coords = like.coords.to_dataset()
    foreign = [name for name in coords.variables if set(coords[name].dims) - {"image"}]
    coords = coords.drop_vars(foreign)
    taken = [name for name in variables if name in coords.variables]
    coords = coords.rename_vars({name: f"image_{name}" for name in taken})
    return coords.assign(variables).assign_attrs(attrs)


def provenance(source: Labelled, **parameters: Any) -> dict[str, Any]:
    """Extend the attributes of `source` by the parameters of one more step.

    Parameters
    ----------
    source : DataArray or Dataset
        What the step was made from. Of a layer only its name is kept, because the
        attributes of its array speak of the array; of an earlier result, everything.
    **parameters
        Plain values that JSON can hold.

    Returns
    -------
    dict
        Attributes of the result.
    """
    past = dict(source.attrs) if "embedkit" in source.attrs else {}
    if not past and isinstance(source, xr.DataArray) and source.name is not None:
        past = {"source": str(source.name)}
    return {**past, "embedkit": embedkit.__version__, **parameters}


def in_one_task(
    function: Callable[..., Any],
    *arrays: Any,
    like: Sequence[tuple[Any, ...]],
    **kwargs: Any,
) -> list[da.Array]:
    """Call `function` once, in one Dask task, on whole arrays.

    Parameters
    ----------
    function : callable
        A named function of a module, so that it pickles by name.
    *arrays : ndarray or dask array
        Loaded whole inside the task.
    like : sequence of (shape, dtype)
        One for each array that `function` returns as a tuple.
    **kwargs
        Passed on.

    Returns
    -------
    list of dask array
        Nothing is computed yet.
    """
    parts = delayed(function, nout=len(like))(*arrays, **kwargs)
    return [
        da.from_delayed(part, shape=shape, dtype=np.dtype(dtype))
        for part, (shape, dtype) in zip(parts, like, strict=True)
    ]
