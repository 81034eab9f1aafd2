"""SIGKILL at exact places: round the renaming that makes a file count."""

import json

import pytest

COUNTS = {"before": [2, 3, 5], "after": [4, 6, 1]}


@pytest.mark.parametrize("place", ["/layers/", "/commits/"], ids=["shard", "commit"])
def test_workers_killed_at_an_exact_place(place, stage, reference, contents):
    """A torn temporary file, a shard without a commit, a commit that nobody reported."""
    graves = stage.folder / "graves"
    graves.mkdir()
    deaths = [
        {"moment": moment, "place": place, "counts": counts, "folder": str(graves)}
        for moment, counts in COUNTS.items()
    ]

    stage.start(env={"CHAOS_DEATH": json.dumps(deaths)})
    stage.finish()

    dead = {grave.name: int(grave.read_text()) for grave in graves.iterdir()}
    said = stage.errors.read_text()
    assert len(set(dead.values())) == 6
    for name, pid in dead.items():
        assert f"Worker process {pid} was killed by signal 9" in said
        stage.kills.append((pid, f"itself {name} {place}"))
        # Once the record has its name the block is done, whoever hears of it.
        stage.lost += not (name.startswith("after") and place == "/commits/")
    stage.check(reference, contents)
    assert stage.computed_again() == stage.lost
