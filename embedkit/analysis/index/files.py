"""A search index in a folder: every file under a digest, a manifest that names them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import embedkit
from embedkit.analysis import faiss_adapter
from embedkit.analysis.index.build import Made
from embedkit.analysis.index.choice import Choice
from embedkit.analysis.index.rows import Rows
from embedkit.analysis.index.search import Effort, Searcher
from embedkit.analysis.ivf_space import Space
from embedkit.analysis.recall import Recall
from embedkit.analysis.spool import Spool
from embedkit.errors import CorruptStore, InputError, StoreError
from embedkit.files.files import files_at, is_url
from embedkit.files.whole import make_folder, whole_file

FORMAT = 1
_MANIFEST = "index.json"
_BLOCK = 2**24  # bytes copied or hashed together


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a folder holds.

    Attributes
    ----------
    made : Made
    images : ndarray of str, shape (N,)
    n_neighbors : int
    template : Path or None
        The trained, empty index that further files start from, of a sharded one.
    content : str or None
        What the store said of the rows when they were copied, None where nobody did.
    """

    made: Made
    images: npt.NDArray[np.str_]
    n_neighbors: int
    template: Path | None
    content: str | None = None


def save(saved: Saved, folder: str | os.PathLike[str]) -> None:
    """Write all files under names that say their content, then the manifest.

    Whoever reads meanwhile finds the old index or the new one; files that the manifest no
    longer names are deleted last.

    Raises
    ------
    InputError
        For a URL, or a file.
    """
    place = place_of(folder, asked="Index.save")
    if place.exists() and not place.is_dir():
        raise InputError(f"Index.save got {place}, which is a file; give a folder.")
    make_folder(place)
    searcher = saved.made.searcher
    names = {
        "parts": [_store_part(part, place) for part in searcher.parts],
        "rows": [_copy(each.path, place, suffix="raw") for each in searcher.rows.files],
        "arrays": _store_arrays(saved, place),
        "template": [_copy(saved.template, place, suffix="faiss")]
        if saved.template
        else [],
    }
    text = json.dumps(_manifest(saved, names), indent=1)
    files = files_at(place)
    files.write(_MANIFEST, text.encode())
    kept = {_MANIFEST, *_named(names)}
    for name in files.names():
        if name not in kept and _is_ours(name):
            files.delete(name)


def place_of(folder: str | os.PathLike[str], *, asked: str) -> Path:
    """Return a folder of this machine as an absolute path.

    Raises
    ------
    InputError
        For a URL: FAISS and memory maps need files.
    """
    if is_url(os.fspath(folder)):
        raise InputError(
            f"{asked} got {folder}; give a folder of this machine, and copy it."
        )
    return Path(folder).absolute()


def load(folder: Path) -> Saved:
    """Read what `save` wrote, every byte of the index checked; of the rows their size.

    Raises
    ------
    StoreError
        When there is no index, or one of a newer format.
    CorruptStore
        When a file is missing or not what was saved.
    """
    place = folder.absolute()
    found = _read_manifest(place)
    names = found["files"]
    for name in [*names["parts"], *names["template"], *names["arrays"]]:
        _check_digest(place / name)
    rows = [
        _spool_of(place, *each)
        for each in zip(names["rows"], found["rows"], strict=True)
    ]
    arrays = {name.partition("-")[0]: np.load(place / name) for name in names["arrays"]}
    choice = Choice(**found["choice"])
    parts = [place / name for name in names["parts"]]
    searcher = Searcher(
        parts=tuple(
            part if choice.sharded else faiss_adapter.read(part) for part in parts
        ),
        space=Space(center=arrays["center"], **found["space"]),
        rows=Rows(tuple(rows)),
        alive=arrays["alive"],
        zeros=arrays["zeros"],
    )
    speed = found["queries_per_second"]
    return Saved(
        made=Made(
            searcher,
            choice,
            Effort(**found["effort"]),
            Recall(**found["recall"]),
            float("nan") if speed is None else speed,
        ),
        images=arrays["images"],
        n_neighbors=found["n_neighbors"],
        template=place / names["template"][0] if names["template"] else None,
        content=found.get("content"),
    )


def _manifest(saved: Saved, names: dict[str, list[str]]) -> dict[str, Any]:
    made, space = saved.made, saved.made.searcher.space
    speed = made.queries_per_second
    return {
        "format": FORMAT,
        "embedkit": embedkit.__version__,
        "choice": asdict(made.choice),
        "space": {"metric": space.metric, "scale": space.scale, "reach": space.reach},
        "effort": asdict(made.effort),
        "recall": asdict(made.recall),
        "queries_per_second": None if np.isnan(speed) else speed,
        "n_neighbors": saved.n_neighbors,
        "content": saved.content,
        "rows": [[each.shape, each.dtype] for each in made.searcher.rows.files],
        "files": names,
    }


def _read_manifest(place: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((place / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"there is no search index at {place}: give the folder that Index.save wrote"
        ) from error
    except ValueError as error:
        raise CorruptStore(
            f"{place / _MANIFEST} is not what was saved ({error}): save the index again"
        ) from error
    if found["format"] > FORMAT:
        raise StoreError(
            f"the search index at {place} has format {found['format']} of embedkit "
            f"{found['embedkit']}, and this one reads {FORMAT}: update embedkit"
        )
    return found


def _store_part(part: Any, place: Path) -> str:
    if isinstance(part, Path):
        return _copy(part, place, suffix="faiss")
    with tempfile.TemporaryDirectory(dir=place, prefix=".part-") as folder:
        path = Path(folder) / "part"
        faiss_adapter.write(part, path)
        return _copy(path, place, suffix="faiss")


def _store_arrays(saved: Saved, place: Path) -> list[str]:
    searcher = saved.made.searcher
    arrays = {
        "center": searcher.space.center,
        "alive": searcher.alive,
        "zeros": searcher.zeros,
        "images": saved.images,
    }
    names = []
    with tempfile.TemporaryDirectory(dir=place, prefix=".part-") as folder:
        for stem, values in arrays.items():
            path = Path(folder) / "array.npy"
            np.save(path, values)
            names.append(_copy(path, place, suffix="npy", stem=stem))
    return names


def _copy(source: Path, place: Path, *, suffix: str, stem: str = "") -> str:
    """Copy a file under its digest, unless it is there."""
    digest = _digest(source)
    stem = stem or {"raw": "rows"}.get(suffix, "part")
    name = f"{stem}-{digest}.{suffix}"
    target = place / name
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        with source.open("rb") as file, whole_file(target) as copy:
            while piece := file.read(_BLOCK):
                copy.write(piece)
    return name


def _digest(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_BLOCK):
            found.update(piece)
    return found.hexdigest()


def _check_digest(path: Path) -> None:
    wanted = path.stem.partition("-")[2]
    try:
        found = _digest(path)
    except FileNotFoundError as error:
        raise _corrupt(path, "is missing") from error
    if found != wanted:
        raise _corrupt(path, "is not what was saved")


def _spool_of(place: Path, name: str, like: list[Any]) -> Spool:
    """Return the rows of a file as a spool, which names its file by the digest."""
    shape, dtype = like
    path = place / name
    nbytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
    if not path.is_file():
        raise _corrupt(path, "is missing")
    if path.stat().st_size != nbytes:
        raise _corrupt(path, f"has {path.stat().st_size} bytes instead of {nbytes}")
    return Spool(str(place), (shape[0], shape[1]), dtype, path.stem.partition("-")[2])


def _corrupt(path: Path, what: str) -> CorruptStore:
    return CorruptStore(
        f"the search index at {path.parent} is damaged: {path.name} {what}; save or build "
        "it again"
    )


def _named(names: dict[str, list[str]]) -> list[str]:
    return [name for group in names.values() for name in group]


def _is_ours(name: str) -> bool:
    stem = name.partition("-")[0]
    return "/" not in name and stem in {
        *["part", "rows", "center", "alive", "zeros", "images"]
    }
