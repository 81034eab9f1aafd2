"""A look at all rows is planned, and refused where it cannot fit."""

import numpy as np
import pytest

import embedkit as ek
from embedkit.errors import PlanError


def test_a_search_is_planned_without_reading_the_query(store):
    """Chunks of the layer are its tasks; what it is asked for is not looked at."""
    plan = ek.search(store, "nowhere.png", layer="stage3", plan_only=True)

    x = store["stage3"]
    assert plan.asked == "search"
    assert (plan.n_images, plan.width) == x.shape
    assert plan.n_tasks == len(x.chunksizes["image"])
    assert plan.rows_per_task == max(x.chunksizes["image"])


def test_a_search_that_cannot_fit_is_refused(store):
    """Before the query is read, with what would fit."""
    with pytest.raises(PlanError, match=r"search of 100 images .* what would fit is"):
        ek.search(store, "nowhere.png", layer="stage3", memory_limit="1 MiB")


def test_an_index_needs_no_look_at_all_rows(store, tmp_path):
    """It is asked whatever the limit; under a condition rows are looked at."""
    index = ek.build_index(store["stage3"])
    query = np.ones(store["stage3"].sizes["feature"])
    asked = {"layer": "stage3", "index": index, "memory_limit": "1 MiB"}

    assert len(ek.search(store, query, **asked, n_neighbors=5)) == 5
    with pytest.raises(PlanError, match="search of"):
        ek.search(store, query, **asked, where="label == '1'")
