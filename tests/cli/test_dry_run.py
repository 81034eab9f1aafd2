"""``--dry-run`` prints plans and leaves the store as it is."""

import pytest

import embedkit as ek
from embedkit.cli import options

COMMANDS = {
    "neighbors": ["neighbors"],
    "communities": ["neighbors", "neighbor_graph", "communities"],
    "project": ["neighbors", "neighbor_graph", "project"],
    "cluster": ["cluster"],
    "probe": ["probe"],
    "duplicates": ["neighbors", "duplicates"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_analysis_tells_its_plans(run, store, command, monkeypatch):
    """Of each step, as text and as JSON; nothing is saved."""
    said = run(command, store, "--dry-run").out
    told = run(command, store, "--dry-run", "--json").json["plans"]

    assert [each["asked"] for each in told] == COMMANDS[command]
    assert all(each["projected_mem"] > 0 for each in told)
    assert f"{command} of " in said or "15 exact neighbors of " in said
    assert not ek.open_store(store).results


def test_a_search_is_planned_without_a_network(run, store):
    """Even for an image that is not in the store."""
    (plan,) = run("search", store, "no.png", "--dry-run", "--json").json["plans"]

    assert plan["asked"] == "search"
    assert plan["n_images"] == 100


def test_saved_neighbors_need_no_plan(run, store):
    """What is there is not searched for again."""
    run("neighbors", store, "-k", 5, "--metric", "cosine")

    assert "it is saved" in run("neighbors", store, "-k", 5, "--dry-run").out
    nearly = ("--recall", 0.9, "--dry-run")
    assert "it is saved" in run("neighbors", store, "-k", 5, *nearly).out
    assert "neighbors of " in run("neighbors", store, "-k", 4, *nearly).out
    told = run("communities", store, "-k", 5, "--dry-run", "--json").json["plans"]
    assert [each["asked"] for each in told] == ["neighbor_graph", "communities"]


def test_lists_that_stand_for_others_are_never_computed(run, store, monkeypatch):
    """A dry run searches nothing."""
    monkeypatch.setattr(options, "_kept", None)

    run("duplicates", store, "--dry-run", "--threshold", 0.1)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_limit_that_nothing_keeps_is_an_error(run, store, command):
    """Told with what would fit, before anything is saved."""
    said = run(command, store, "--memory-limit", "1kB", expect=1)

    assert "memory_limit" in said.err
    assert not ek.open_store(store).results


def test_a_limit_has_to_be_a_size(run, store):
    """Other text is refused as a wrong option."""
    said = run("cluster", store, "--memory-limit", "much", expect=2)

    assert "'much' is no size: write one such as 2GB" in said.err


def test_commands_take_a_limit(run, store):
    """One that is enough changes nothing."""
    free = run("communities", store, "-k", 5, "--json").json
    limited = run("communities", store, "-k", 5, "--memory-limit", "8GB", "--json").json

    assert limited == free
