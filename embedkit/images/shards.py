"""Tar files of images, as WebDataset lays them out: which members, with what labels."""

from __future__ import annotations

import collections
import glob
import itertools
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from embedkit.errors import InputError, SourceError
from embedkit.images.decode import image_extensions
from embedkit.images.folder import has_wildcard
from embedkit.images.imageset import ImageSet
from embedkit.images.paths import absolute, image_table, relative_ids, stamp_of
from embedkit.images.sidecars import SIDECARS, read_sidecar, sidecar_columns
from embedkit.images.tar_source import Extent, TarPlace, TarSource, tar_uri

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""What compressed files begin with."""

_ENDS: Final = (
    *(".tar", ".tgz", ".tbz2", ".txz"),
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
)

# tarfile lets through what numbers of damaged headers lead to.
_DAMAGE: Final = (tarfile.TarError, OSError, ValueError, OverflowError, EOFError)

_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"(\d+)\.\.(\d+)")


class _Image(NamedTuple):
    """One image of a shard."""

    key: str
    end: str
    place: TarPlace


class _Shard(NamedTuple):
    """What is in a shard: images, and what stands beside them by key."""

    images: list[_Image]
    beside: dict[str, dict[str, Any]]


def is_shards(name: str) -> bool:
    """Tell whether a path or pattern means tar files, by its end.

    Examples
    --------
    >>> is_shards("train-{000..009}.tar"), is_shards("cat.jpg")
    (True, False)
    """
    return name.lower().endswith(_ENDS)


def from_shards(names: Sequence[str | os.PathLike[str]]) -> ImageSet:
    """Return the images in tar files, shard by shard in the order of their members.

    Members of one key (the path up to the first dot of its last part) belong together:
    beside an image, ``.cls`` gives the column ``label``, ``.txt`` the column ``txt``,
    and each scalar of an object in ``.json`` a column of its name (with ``json_`` before
    it, where the name is taken). Links, folders and devices are left out.

    Parameters
    ----------
    names : sequence of str or Path
        Tar files, globs, and patterns with braces: ``a-{000..009}.tar``, ``{a,b}.tar``.

    Returns
    -------
    ImageSet
        Ids are ``<name of the shard>/<key>``, with the extension where images of the
        shard share a key. What a shard that is cut off or damaged has lost becomes one
        unreadable image, ``<name of the shard>/@<offset>``.

    Raises
    ------
    InputError
        If a shard is compressed, or a sidecar cannot be read.
    SourceError
        If a shard is missing or no tar file, or there is no image in any.
    """
    files = [file for name in names for file in _matches(os.fspath(name))]
    shards = [_scan(file) for file in files]
    rows = [(at, each) for at, shard in enumerate(shards) for each in shard.images]
    if not rows:
        raise SourceError(
            f"no image in {len(files)} tar files, for instance {str(files[0])!r}: "
            "members are told by extensions such as .jpg and .png"
        )
    stems = _stems(files)
    ids = [
        name
        for stem, shard in zip(stems, shards, strict=True)
        for name in _ids(stem, shard)
    ]
    times = [stamp_of(file).mtime for file in files]
    extents = [image.place.extent for _, image in rows]
    return ImageSet(
        image_table(
            ids,
            [tar_uri(image.place) for _, image in rows],
            columns=sidecar_columns(
                [shards[at].beside.get(image.key, {}) for at, image in rows]
            ),
        ),
        TarSource(),
        np.array([n if isinstance(n, int) else -1 for n in extents], np.int64),
        np.array([times[at] for at, _ in rows], np.int64),
    )


def braces_expanded(pattern: str) -> list[str]:
    """Return every name that a pattern with braces stands for, in order.

    Examples
    --------
    >>> braces_expanded("{a,b}-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    parts = _BRACES.split(pattern)  # text, inside, text, inside, text
    choices = [
        _choices(part) if inside % 2 else [part] for inside, part in enumerate(parts)
    ]
    return ["".join(each) for each in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    """Return what one pair of braces stands for."""
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    return [f"{n:0{width}d}" for n in range(int(first), int(last) + 1)]


def _matches(name: str) -> list[Path]:
    """Return the files that a name or pattern stands for."""
    if absolute(name).is_file():
        return [absolute(name)]
    files: list[Path] = []
    for each in braces_expanded(name):
        if has_wildcard(each):
            found = glob.glob(str(absolute(each)), recursive=True)  # noqa: PTH207 - absolute
            files += sorted(map(Path, found))
        else:
            files.append(absolute(each))
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise SourceError(
            f"{name!r} stands for {len(files)} tar files, of which {len(missing)} are not "
            f"there{f', first {str(missing[0])!r}' if missing else ''}; check the pattern"
        )
    return files


def _stems(files: Sequence[Path]) -> list[str]:
    """Return what the shards are called: as short as tells them apart."""
    short = [file.name.removesuffix(".tar") for file in files]
    if len(set(short)) == len(short):
        return short
    return [name.removesuffix(".tar") for name in relative_ids(files)]


def _ids(stem: str, shard: _Shard) -> Iterator[str]:
    """Yield the id of each image of a shard."""
    count = collections.Counter(image.key for image in shard.images)
    for image in shard.images:
        end = f".{image.end}" if count[image.key] > 1 else ""
        yield f"{stem}/{image.key}{end}"


def _scan(path: Path) -> _Shard:
    """Read the headers and sidecars of one tar file."""
    try:
        with path.open("rb") as file:
            _check_plain(path, file)
            return _members(path, file)
    except tarfile.ReadError as error:
        raise SourceError(
            f"{str(path)!r} is no tar file ({error}); copy it again or leave it out"
        ) from error
    except OSError as error:
        raise SourceError(f"tar file {str(path)!r} cannot be read ({error})") from error


def _check_plain(path: Path, file: BinaryIO) -> None:
    """Refuse compressed files, whose members cannot be read one by one."""
    start = file.read(8)
    file.seek(0)
    kind = next(
        (kind for sign, kind in _COMPRESSED.items() if start.startswith(sign)), None
    )
    if kind is not None:
        raise InputError(
            f"{str(path)!r} is compressed with {kind}, so its members cannot be read one "
            "by one; decompress it to a plain .tar (images are compressed already)"
        )


def _members(path: Path, file: BinaryIO) -> _Shard:
    """Go through a tar file header by header."""
    tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - whoever opened it closes it
    images: dict[
        str, _Image
    ] = {}  # by name: what comes again takes the place of the first
    beside: dict[str, dict[str, Any]] = collections.defaultdict(dict)
    size, cut = os.fstat(file.fileno()).st_size, False
    try:
        for member in _headers(tar):
            image = _image(member, path)
            cut = image is not None and member.offset_data + member.size > size
            if image is not None:
                images.pop(image.place.name, None)
                images[image.place.name] = image
            else:
                key, end = _key(_plain_name(member))
                kind = end.lower()
                if kind in SIDECARS:
                    beside[key][kind] = read_sidecar(tar, member, end=kind, path=path)
        whole = _is_end(file, tar.offset)
    except _DAMAGE as error:
        if isinstance(error, InputError) or not images:
            raise
        whole = False
    if not whole and not cut:  # an image that is cut off tells so itself
        rest = TarPlace(str(path), tar.offset, "damaged", "")
        images[""] = _Image(f"@{tar.offset}", "", rest)
    return _Shard([*images.values()], beside)


def _headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members that are plain files."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # or it keeps every header
        if member.isreg():
            yield member


def _image(member: tarfile.TarInfo, path: Path) -> _Image | None:
    """Return a member as an image; None if it is none by its extension."""
    name = _plain_name(member)
    key, end = _key(name)
    if f".{end.rpartition('.')[2].lower()}" not in image_extensions():
        return None
    extent: Extent = "sparse" if member.issparse() else member.size
    return _Image(key, end, TarPlace(str(path), member.offset_data, extent, name))


def _plain_name(member: tarfile.TarInfo) -> str:
    """Return the name of a member without ``.``, ``..`` and a leading slash."""
    return posixpath.normpath(f"/{member.name}").lstrip("/")


def _key(name: str) -> tuple[str, str]:
    """Split a name at the first dot of its last part; nothing where there is none.

    Examples
    --------
    >>> _key("a.b/cat.left.JPG"), _key("a/.hidden"), _key("a/b")
    (('a.b/cat', 'left.JPG'), ('', ''), ('', ''))
    """
    folder, slash, base = name.rpartition("/")
    stem, _, end = base.partition(".")
    return (folder + slash + stem, end) if stem and end else ("", "")


def _is_end(file: BinaryIO, offset: int) -> bool:
    """Tell whether a tar file ends here, by its mark or because nothing follows."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    return not block or (len(block) == tarfile.BLOCKSIZE and not any(block))
