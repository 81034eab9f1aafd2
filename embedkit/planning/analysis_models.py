"""What each analysis takes, measured: tests/benchmarks/test_analysis_memory.py does it again.

Coefficients are those of the largest of the steps that follow one another, a little above
what was measured (glibc, 64 bit; NumPy 2.4, SciPy 1.17, scikit-learn 1.9).
"""

from __future__ import annotations

from typing import Final

from embedkit.planning.analysis_costs import AnalysisModel

_MB = 10**6
_LIFTED = 2**22  # entries that become float64 at a time, see `ivf_space.parts`
_FEWER = "n_neighbors={0} or fewer"

NEIGHBOR_GRAPH: Final = AnalysisModel(
    asked="neighbor_graph",
    entries="neighbor",
    fixed=300 * _MB,  # UMAP and what Numba compiles
    task_image=500,
    task_entry=115,
    result_entry=12,
    narrower=_FEWER,
)
"""``kernel="umap"``: the fuzzy union is one sparse matrix."""

NEIGHBOR_WEIGHTS: Final = AnalysisModel(
    asked="neighbor_graph",
    entries="neighbor",
    whole=False,
    fixed=10 * _MB,
    entry=28,  # the result, and its parts while it is put together
    task_image=100,
    task_entry=30,
    result_entry=12,
    narrower=_FEWER,
)
"""Other kernels: every slot by itself."""

COMMUNITIES: Final = AnalysisModel(
    asked="communities",
    entries="neighbor",
    fixed=20 * _MB,
    task_image=300,
    task_entry=190,
    result_image=8,
    narrower=_FEWER,
)
"""Leiden holds the graph as it is and contracted."""

PROJECT: Final = AnalysisModel(
    asked="project",
    entries="neighbor",
    fixed=250 * _MB,  # UMAP and what Numba compiles
    task_image=250,
    task_entry=135,
    result_image=8,
    narrower=_FEWER,
)
"""The matrix, its blocks by component in float64, and the edges of the optimiser."""

CLUSTER: Final = AnalysisModel(
    asked="cluster",
    fixed=95 * _MB,  # HDBSCAN and scikit-learn
    task_image=1000,
    task_copies=1,
    task_entry=16,
    result_image=16,
)
"""Rows in float64, and once more while they are measured."""

PROBE: Final = AnalysisModel(
    asked="probe",
    fixed=40 * _MB,
    image=300,
    task_image=100,
    task_copies=1,
    task_entry=30,
)
"""Rows in float64, those that a fold trains on, and twice these while they are scaled."""

NEIGHBOR_ACCURACY: Final = AnalysisModel(
    asked="neighbor_accuracy",
    entries="neighbor",
    whole=False,
    fixed=10 * _MB,
    image=60,
    task_image=100,
    task_entry=36,
    narrower=_FEWER,
)
"""Votes of the rows of a task; all labels."""

DUPLICATES: Final = AnalysisModel(
    asked="duplicates",
    entries="neighbor",
    fixed=10 * _MB,
    task_image=150,
    task_entry=90,
    result_image=13,
    narrower=_FEWER,
)
"""All lists, and a link for every pair within the threshold: at most all."""


def search_model(*, rows: int, width: int) -> AnalysisModel:
    """Return what `embedkit.search` takes where it looks at all rows.

    Parameters
    ----------
    rows, width : int
        Rows of a chunk, and their entries: some are lifted to float64 at a time.
    """
    lifted = min(rows * width, _LIFTED)
    return AnalysisModel(
        asked="search",
        whole=False,
        fixed=16 * _MB,
        task_fixed=24 * lifted,
        task_image=100,
        task_copies=1,
        task_entry=5,
    )


def append_neighbors_model(
    *, n_neighbors: int, blocks: int, itemsize: int
) -> AnalysisModel:
    """Return what `embedkit.append_neighbors` takes.

    Parameters
    ----------
    n_neighbors : int
        Entries of a list; all lists are held, in float64 and int64.
    blocks : int
        Tasks that the rows are dealt out to.
    itemsize : int
        Bytes of a stored entry.

    Notes
    -----
    A task first reads the neighbors of its rows, which at worst are other rows for each
    of them, and then lifts its rows to float64.
    """
    return AnalysisModel(
        asked="append_neighbors",
        whole=False,
        fixed=70 * _MB,
        image=300 + 50 * n_neighbors,
        task_fixed=50 * _MB,
        task_copies=1,
        task_entry=max(30, itemsize * min(n_neighbors, blocks)),
        result_image=1 + 12 * n_neighbors,
        scratch_image=12 * n_neighbors,
        scratch_copies=1,
    )
