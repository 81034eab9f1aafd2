"""Neighbors that a store has are not found again by the commands that need them."""

import pytest

import embedkit as ek
from embedkit.cli import options


@pytest.fixture
def searches(monkeypatch):
    """How often neighbors were really searched for, and with which recall."""
    made = []
    true = ek.neighbors

    def counted(x, **options_):
        made.append(options_["recall"])
        return true(x, **options_)

    monkeypatch.setattr(options.ek, "neighbors", counted)
    return made


def test_commands_share_the_saved_neighbors(run, store, searches):
    """Communities stand on what neighbors found; another number of them does not."""
    run("neighbors", store, "-k", 5)
    run("neighbors", store, "-k", 5)
    run("communities", store, "-k", 5)
    run("communities", store, "-k", 6)

    assert searches == [1.0, 1.0]


def test_a_recall_is_enough_where_none_is_asked_for(run, store, searches):
    """What found a share serves the graph, which says so where it was not all."""
    shown = run("neighbors", store, "-k", 5, "--recall", 0.8).out
    run("communities", store, "-k", 5)

    assert "exact" in shown  # so few rows are
    assert searches == [0.8]
