"""Workers that come, go, wear out, or eat too much; and a user who presses Ctrl-C."""

import os
import re
import signal
import time

import pytest

import embedkit as ek

POISONED = 500


def test_workers_that_live_shorter_than_the_run(stage, reference, contents):
    """Each worker leaves after four to six seconds and is started anew.

    Not both at once: Dask closes the nanny of a worker whose heartbeat comes between its
    leaving and its end, and nobody starts another. A lost one must leave one at work.
    """
    lives = {"lifetime": "5 seconds", "lifetime_stagger": "1 second"}
    stage.start(sleep=0.05, options=lives | {"lifetime_restart": True})
    stage.finish()

    worked = {pid for pid, row in stage.notes() if row >= 0}
    stage.lost = len(worked)  # each may have left one block unfinished
    assert len(worked) >= 6  # two at the start, and four restarts or more
    assert len(stage.clients) == 1
    stage.check(reference, contents)


def test_workers_that_join_and_leave(stage, reference, contents):
    """New workers get blocks, those that leave lose at most the one they have."""
    stage.start(scale={"3": 4, "14": 1, "20": 3})
    stage.finish()

    worked = {pid for pid, row in stage.notes() if row >= 0}
    stage.lost = 3  # from four workers to one
    assert len(worked) >= 5
    assert len(stage.clients) == 1
    stage.check(reference, contents)


def test_an_image_that_kills_its_worker_is_set_aside(stage, reference, contents):
    """Three workers die of memory in one block: the others finish, the error says it."""
    poison = stage.folder / "poison"
    poison.write_text(str(POISONED))

    stage.start(
        sleep=0.01,
        env={"CHAOS_POISON": str(poison)},
        options={"memory_limit": "2 GiB"},
    )
    stage.wait(stage.ended)

    said = stage.last_error()
    unfinished = ek.open_store(stage.store)
    attempts = stage.attempts()
    block = POISONED // (stage.rows_of_a_block())
    first = stage.rows_of_a_block() * block
    assert stage.client.returncode == 1
    assert said.startswith("embedkit.errors.IncompleteStore: "), said
    assert f"{first:04d}.png" in said
    assert re.search(r"died (3|three) times|(3|three) (workers|times)", said)
    assert "again" in said
    assert not unfinished.complete
    assert sorted(attempts) == list(range(stage.n_blocks()))
    assert attempts[block] == 3
    assert stage.deaths_in_errors() >= 3

    poison.unlink()
    stage.again()
    stage.finish()

    stage.lost = 3 + attempts.total() - attempts[block] - (stage.n_blocks() - 1)
    stage.check(reference, contents)
    assert stage.attempts()[block] == 4
    assert stage.attempts().total() == attempts.total() + 1


@pytest.mark.parametrize("group", [True, False], ids=["terminal", "client alone"])
def test_ctrl_c(group, stage, reference, contents):
    """The client ends by KeyboardInterrupt; the same call goes on from there."""
    stage.start()
    stage.wait(lambda: len(stage.attempts()) > 6 if stage.store.exists() else False)
    time.sleep(0.2)
    if group:
        os.killpg(stage.client.pid, signal.SIGINT)
    else:
        stage.client.send_signal(signal.SIGINT)
    stage.wait(stage.ended)

    assert stage.client.returncode in (1, -signal.SIGINT, 128 + signal.SIGINT)
    assert stage.last_error() == "KeyboardInterrupt"
    assert not ek.open_store(stage.store).complete

    stage.lost = 2
    stage.again()
    stage.finish(runs=1)
    stage.check(reference, contents)
