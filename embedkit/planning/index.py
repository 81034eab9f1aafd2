"""What building a search index takes: its kind, tasks, memory, disk."""

from __future__ import annotations

from dataclasses import dataclass

from embedkit.planning.units import told_bytes, told_count

SURVEY_ENTRIES = 2**24  # of rows that a task looks at
TRUTH_ENTRIES = 2**23  # of rows that a task compares sampled rows with
QUERY_ENTRIES = 2**21  # of these sampled rows, at a time
MAPPED = 2**28
"""Bytes of rows that a process keeps mapped between searches (chosen)."""

_PIECE = 2**22  # entries that become float64 at a time, see `ivf_space.parts`
_LIFTED = 3 * 8  # bytes of an entry while it does
_CANDIDATE = 120  # bytes of a candidate while it is measured and ordered
_IMAGE = 300  # bytes of ids, masks and row numbers of an image
_HASHED = 64  # bytes of an entry in a graph's table of row numbers
_FIXED = 64 * 2**20  # what Dask, FAISS and NumPy take beside (chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """A search index before it is built.

    Parameters
    ----------
    kind : str
        As of `embedkit.Index`.
    n_images, features : int
        Rows and their entries.
    n_files : int
        Files that the index lies in, 0 for one in memory.
    rows_per_task : int
        Rows of the task that takes most of them.
    n_tasks : int
        Dask tasks in all.
    slots : int
        Tasks that run at once in a process.
    threads : int
        Threads of one of them.
    truth_rows : int
        Rows that are left out, compared exactly with all, and added last.
    nbytes : int
        Bytes of the index: in memory, or its largest file. A graph takes fewer where
        bytes turn out to be fine enough for its rows.
    projected_mem : int
        Bytes that a process takes at most beyond what it has when it starts, if all parts
        run in it.
    scratch_bytes : int
        Bytes of temporary files, which live as long as the index.
    """

    kind: str
    n_images: int
    features: int
    n_files: int
    rows_per_task: int
    n_tasks: int
    slots: int
    threads: int
    truth_rows: int
    nbytes: int
    projected_mem: int
    scratch_bytes: int

    def describe(self) -> str:
        """Return the plan in one sentence."""
        files = f" in {told_count(self.n_files, 'file')}" if self.n_files else ""
        largest = ", the largest of" if self.n_files > 1 else " of"
        checked = (
            f"recall measured on {self.truth_rows:,} rows left out until then"
            if self.truth_rows
            else "exact"
        )
        return (
            f"{self.kind}{files}{largest} {told_bytes(self.nbytes)} over "
            f"{self.n_images:,} images of {self.features} features, {checked}: "
            f"{told_count(self.n_tasks, 'task')} of up to {self.rows_per_task:,} rows, "
            f"{self.slots} at once with {told_count(self.threads, 'thread')} each, "
            f"{told_bytes(self.projected_mem)} of memory, "
            f"{told_bytes(self.scratch_bytes)} of scratch files"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexParts:
    """What a search index is made of, as far as its memory goes.

    Parameters
    ----------
    kind : str
        ``"flat"``, ``"hnsw"``, ``"ivf_flat"``, ``"ivf_sq8"`` or ``"ivf_pq"``.
    n_images, features, itemsize, n_neighbors : int
        Rows, entries of one and bytes of an entry, and neighbors.
    nbytes : int
        Of the index, or of its largest file.
    file_rows : int
        Rows of a file, 0 for an index in memory.
    sample_rows, truth_rows : int
        Rows that are trained on, and rows that are compared exactly.
    """

    kind: str
    n_images: int
    features: int
    itemsize: int
    n_neighbors: int
    nbytes: int
    file_rows: int
    sample_rows: int
    truth_rows: int


def plan_index(parts: IndexParts, *, slots: int, threads: int) -> IndexPlan:
    """Plan how an index is built.

    Parameters
    ----------
    parts : IndexParts
    slots, threads : int
        Tasks at once in a process, and threads of one.

    Returns
    -------
    IndexPlan
    """
    rows, features = parts.n_images, max(1, parts.features)
    # those that are left out lie in two files of their own
    listed = rows - parts.truth_rows
    files = -(-listed // parts.file_rows) + 2 if parts.file_rows else 0
    looked = max(1, SURVEY_ENTRIES // features)
    passes = [-(-rows // looked)] * 3  # for what is usable, the mean, the longest
    if parts.truth_rows:
        passes += [-(-rows // max(1, TRUTH_ENTRIES // features)), max(0, files - 2)]
    return IndexPlan(
        kind=parts.kind,
        n_images=rows,
        features=parts.features,
        n_files=files,
        rows_per_task=min(rows, max(looked, parts.file_rows)),
        n_tasks=sum(passes),
        slots=slots,
        threads=threads,
        truth_rows=parts.truth_rows,
        nbytes=parts.nbytes,
        projected_mem=_FIXED + _held(parts) + min(slots, max(passes)) * _task(parts),
        scratch_bytes=rows * features * parts.itemsize + files * parts.nbytes,
    )


def _held(parts: IndexParts) -> int:
    """Bytes that are there all the time, and while the index is trained and filled."""
    features, itemsize = parts.features, parts.itemsize
    whole = parts.n_images * features * itemsize
    entries = 0
    if not parts.file_rows:
        # vectors of inverted lists, and of a graph while it grows, double in size
        entries = 2 * parts.nbytes + parts.n_images * _HASHED * (parts.kind == "hnsw")
    sample = 2 * 4 * parts.sample_rows * features
    truth = parts.truth_rows * (2 * features * itemsize + 32 * parts.n_neighbors)
    flat = 4 * parts.n_images * features * 3 if parts.kind == "flat" else 0
    mapped = min(whole, MAPPED)
    lifted = min(parts.n_images * features, _PIECE) * _LIFTED
    return parts.n_images * _IMAGE + entries + sample + truth + flat + mapped + lifted


def _task(parts: IndexParts) -> int:
    """Bytes of the largest task."""
    features, itemsize = max(1, parts.features), parts.itemsize
    all_entries = parts.n_images * features
    lifted = min(all_entries, _PIECE) * _LIFTED
    looked = min(all_entries, SURVEY_ENTRIES) * itemsize + lifted
    asked = min(parts.truth_rows, -(-QUERY_ENTRIES // features))
    candidates = asked * (2 * parts.n_neighbors + 17) * _CANDIDATE
    compared = min(all_entries, TRUTH_ENTRIES) * (itemsize + 4) + lifted
    compared += asked * features * (2 * itemsize + 28) + candidates
    filled = 2 * parts.nbytes + lifted if parts.file_rows else 0
    return max(looked, compared, filled)
