"""A plan on worker processes with limited memory, measured and followed."""

import dask
import pytest

import embedkit as ek
from embedkit.errors import PlanError
from embedkit.planning.memory import TARGET
from embedkit.planning.plan import Plan
from embedkit.store.plans import read_plan


@pytest.mark.slow
def test_a_measured_plan_holds_on_two_workers(images, network, tmp_path, monkeypatch):
    """Memory is as projected, files are as many, and bytes those of a single process."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    call = {"layers": "all", "pool": "none"}
    with ek.connect(n_workers=2, memory_limit="2 GiB"):
        plan = ek.plan(images, network, **call, path=tmp_path / "s.zarr")
        store = ek.extract(images, network, tmp_path / "s.zarr", plan=plan, **call)
        with pytest.raises(PlanError, match="what would fit is"):
            ek.extract(
                images, network, tmp_path / "no.zarr", memory_limit="64 MiB", **call
            )
    with dask.config.set(scheduler="synchronous"):
        single = ek.extract(images, network, tmp_path / "1.zarr", plan=plan, **call)

    assert (plan.n_workers, plan.threads, plan.allowed_mem) == (2, 1, 2**31)
    assert plan.projected_mem <= TARGET * 2**31
    assert store.info()["peak_mem"] <= plan.projected_mem
    (one,) = store.schema.passes
    assert Plan.from_json(read_plan(store.files, one.key)) == plan
    assert _files(store) == _files(single)
    assert plan.files == len(_files(store))
    assert _layers(store) == _layers(single) != {}
    assert not (tmp_path / "no.zarr").exists()


def _files(store):
    """Return the names of all files but hidden ones, which guard a lock's renewal."""
    found = (each for each in store.path.rglob("[!.]*") if each.is_file())
    return {str(each.relative_to(store.path)) for each in found}


def _layers(store):
    folder = store.path / "layers"
    return {
        str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("c.*")
    }
