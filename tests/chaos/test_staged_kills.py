"""Layers from map to map: workers and clients killed on the way, the same bytes at the end."""

import json
import os
from pathlib import Path

import embedkit as ek

LAYERS = ["relu", "relu_1", "last"]


def commits(stage, place):
    """The commit records that lie in one part of a store: of maps, or of layers."""
    private = stage.store / "_embedkit"
    maps = private / "maps"
    # Unlike a glob, it passes over folders that workers delete meanwhile.
    records = [
        Path(folder) / name
        for folder, _, names in os.walk(private)
        for name in names
        if Path(folder).parts[-3] == "commits" and name.endswith(".json")
    ]
    return [each for each in records if (maps in each.parents) == (place == "maps")]


def test_kills_on_the_way_from_map_to_map(stage, reference, contents):
    """In a map and in a layer a worker dies, and then the client with all of them."""
    graves = stage.folder / "graves"
    graves.mkdir()
    deaths = [
        {"moment": moment, "place": place, "counts": [count], "folder": str(graves)}
        for moment, place, count in (
            ("before", "/maps/", 9),
            ("after", ".zarr/layers/", 3),
        )
    ]

    stage.start(
        layers=LAYERS,
        strategy="staged",
        sleep=0.005,
        env={"CHAOS_DEATH": json.dumps(deaths)},
    )
    stage.wait(lambda: len(commits(stage, "maps")) >= 2)
    stage.kill_client(group=True)
    stage.again()
    stage.wait(lambda: len(commits(stage, "layers")) >= 3)
    stage.kill_client(group=True)
    stage.again()
    stage.finish()

    assert len(list(graves.iterdir())) == 2
    stage.kills += [
        (int(each.read_text()), f"itself {each.name}") for each in graves.iterdir()
    ]
    store = ek.open_store(stage.store)
    assert store.complete
    assert store.verify().ok
    assert list(store) == LAYERS
    mine = contents(stage.store)
    for kind, known in reference.items():
        found = mine[kind].items()
        assert found <= known.items()
        assert all(any(name in key for key, _ in found) for name in LAYERS)
    assert stage.leavings() == []
    assert not (stage.store / "_embedkit" / "maps").exists()
    assert {one.about["strategy"] for one in store.schema.passes} == {"staged"}
    rows = [row for _, row in stage.notes() if row >= 0]
    assert len(rows) < 3 * len(
        set(rows)
    )  # the images were read for the first map alone
