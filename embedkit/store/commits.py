"""Commit records: one small JSON file per finished block.

A record is the last thing a task writes and the first thing it looks for, so a block
either counts whole or not at all. Fresh records lie in
``_embedkit/commits/<pass>/<thousand>/``, a thousand to a folder. `compact` gathers them
into one file a pass, ``_embedkit/commits/<pass>.jsonl``, a line a block: half a million
small files are slow to list and use up quotas.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields

from embedkit.files.files import Files
from embedkit.planning.grid import BlockGrid
from embedkit.store.schema import Pass

PRIVATE = "_embedkit"
_COMMITS = f"{PRIVATE}/commits"
_READERS = 16
"""Threads that read records: an object store answers each one after some 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halving:
    """From where on the batches of a block were smaller than its pass says.

    Parameters
    ----------
    row : int
        The first row of the store that it holds for, up to the next one's or the block's
        end.
    batch_size : int
        Images per forward pass.
    why : str
        For people.
    """

    row: int
    batch_size: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What is known of one finished block.

    Parameters
    ----------
    block : int
        Its number.
    identity : str
        Identity of the pass it was computed for.
    start, stop : int
        Its rows, half open.
    ids : str
        Digest of the ids of its images, in order; see `embedkit.store.ids.digest`.
    failures : mapping of str to str
        Image id to reason, for the images that could not be read.
    crc32 : mapping of str to int
        Checksum of every array's bytes, C order, before compression, by layer, and
        that of the images' content hashes as ``content``.
    rounding : mapping of str to float
        Largest absolute difference between computed and stored numbers, by layer, for
        those stored in less than float32.
    seconds : mapping of str to float
        By stage, see `embedkit.planning.stages`: ``decode`` and ``transform`` of all
        threads that prepare images; ``wait``, ``forward`` and ``write`` of the task,
        and their sum ``total``.
    peak_mem : int
        Largest resident memory of the process while it worked on the block, bytes; -1
        where the system does not tell.
    backend, device : str
        What executed the network and where, for instance ``torch`` on ``cpu``.
    attempt : int
        How many times the block was begun, this time included.
    halvings : tuple of Halving
        Where batches were smaller than the pass says, because memory ran short; in order
        of rows. Not in the record where there are none.
    """

    block: int
    identity: str
    start: int
    stop: int
    ids: str
    failures: Mapping[str, str]
    crc32: Mapping[str, int]
    seconds: Mapping[str, float]
    peak_mem: int
    backend: str
    device: str
    attempt: int
    rounding: Mapping[str, float] = field(default_factory=dict)
    halvings: tuple[Halving, ...] = ()

    def to_json(self) -> bytes:
        """Return the record as one line."""
        found = asdict(self)
        if not self.halvings:
            del found["halvings"]  # as it was written when there were none
        return json.dumps(found, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Commit:
        """Return the record that `to_json` wrote, whatever later ones have besides.

        Raises
        ------
        ValueError, TypeError
            When it is no such record.
        """
        found = json.loads(data)
        if not isinstance(found, dict):
            raise TypeError(f"a record is an object, found {type(found).__name__}")
        known = {name: found[name] for name in _names(cls) if name in found}
        halvings = tuple(Halving(**each) for each in found.get("halvings", ()))
        return cls(**{**known, "halvings": halvings})

    def batch_sizes(self, batch_size: int) -> Iterator[tuple[int, int]]:
        """Yield every batch size that was used, with the first row it was used for.

        Parameters
        ----------
        batch_size : int
            That of the pass.
        """
        if not self.halvings or self.halvings[0].row > self.start:
            yield self.start, batch_size
        for each in self.halvings:
            yield each.row, each.batch_size


def _names(of: type[Commit]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(of))


def write_commit(files: Files, one: Pass, grid: BlockGrid, commit: Commit) -> None:
    """Write the record so that it is there whole, on disk, or not at all.

    A valid record that a twin of this task has written meanwhile stays: the bytes that
    both have written are the same.
    """
    name, data = _name(one.identity, commit.block), commit.to_json()
    if files.create(name, data):
        return
    if read_commit(files, one, grid, commit.block) is None:
        files.write(name, data)


def read_commit(files: Files, one: Pass, grid: BlockGrid, block: int) -> Commit | None:
    """Return the fresh record of `block`, or None where it is not validly committed.

    A record that cannot be parsed, belongs to another identity or has other rows (the
    store has grown since) does not count: the block is computed again.
    """
    try:
        found = _valid(files.read(_name(one.identity, block)), one, grid)
    except FileNotFoundError:
        return None
    return found if found is not None and found.block == block else None


def read_commits(files: Files, one: Pass, grid: BlockGrid) -> dict[int, Commit]:
    """Return every valid record of a pass by block number, in order."""
    fresh = _fresh(files, one, grid)  # first: compaction moves records the other way
    return dict(sorted((_gathered(files, one, grid) | fresh).items()))


def compact(files: Files, one: Pass, commits: Mapping[int, Commit]) -> None:
    """Gather the records of a pass into one file, and delete what is in it.

    Only the driver may call this, and `commits` must be all that `read_commits` gave.
    """
    lines = [commits[block].to_json() for block in sorted(commits)]
    files.write(_gathered_name(one), b"\n".join([*lines, b""]))
    files.delete_tree(_folder(one.identity))


def withdraw(files: Files, one: Pass, grid: BlockGrid, blocks: Collection[int]) -> None:
    """Delete the records of some blocks: they count as not computed.

    Only the driver may call this.
    """
    kept = read_commits(files, one, grid)
    for block in blocks:
        kept.pop(block, None)
    compact(files, one, kept)


def forget_commits(files: Files, one: Pass) -> None:
    """Delete every record of a pass. Only the driver may call this."""
    files.delete_tree(_folder(one.identity))
    files.delete(_gathered_name(one))


def _folder(identity: str) -> str:
    return f"{_COMMITS}/{identity[:16]}"


def _name(identity: str, block: int) -> str:
    return f"{_folder(identity)}/{block // 1000}/{block}.json"


def _gathered_name(one: Pass) -> str:
    return f"{_folder(one.identity)}.jsonl"


def _fresh(files: Files, one: Pass, grid: BlockGrid) -> dict[int, Commit]:
    numbers = _numbers(files.names(_folder(one.identity)))
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda block: read_commit(files, one, grid, block), numbers)
        return {
            block: commit
            for block, commit in zip(numbers, found, strict=True)
            if commit is not None
        }


def _numbers(names: Iterable[str]) -> list[int]:
    stems = (name.rpartition("/")[2].removesuffix(".json") for name in names)
    return [int(stem) for stem in stems if stem.isdecimal()]


def _gathered(files: Files, one: Pass, grid: BlockGrid) -> dict[int, Commit]:
    try:
        lines = files.read(_gathered_name(one)).splitlines()
    except FileNotFoundError:
        return {}
    found = (_valid(line, one, grid) for line in lines)
    return {commit.block: commit for commit in found if commit is not None}


def _valid(data: bytes, one: Pass, grid: BlockGrid) -> Commit | None:
    try:
        commit = Commit.from_json(data)
        rows = grid.rows(commit.block)
    except (ValueError, TypeError, IndexError):
        return None
    found = commit.identity, commit.start, commit.stop
    return commit if found == (one.identity, rows.start, rows.stop) else None
