"""A store to measure with: real in all but its images, which come again and again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from embedkit.extraction.measure.probe_job import Tried
from embedkit.files.files import Files
from embedkit.store.create import create
from embedkit.store.schema import Pass, StoreSchema
from embedkit.store.table import to_dataset


def scratch_store(
    files: Files, job: Tried, *, n_images: int, block: int, batch: int = 1
) -> StoreSchema:
    """Create a store of the layers of a job, with no block yet.

    Parameters
    ----------
    files : Files
        Where.
    job : Tried
        Its images are rows of the store in turn.
    n_images, block, batch : int
        Rows, rows of a block, and images of a forward pass.
    """
    one = Pass(
        network="measured",
        layers=job.layers,
        block=block,
        batch_size=batch,
        identity="0" * 64,
        parts={},
        tolerance=0.0,
        about={},
        backend=job.backend,
    )
    schema = StoreSchema(n_images=n_images, passes=(one,))
    ids = pd.Index([f"{row}" for row in range(n_images)], name="image", dtype="str")
    uris = [job.uris[row % len(job.uris)] for row in range(n_images)]
    unknown = np.full(n_images, -1, np.int64)
    table = to_dataset(pd.DataFrame({"uri": uris}, index=ids))
    create(files, schema, table, sizes=unknown, mtimes=unknown)
    return schema
