"""SIGKILL at random moments: a worker, all of them, the client, everything."""

import random
import time

import pytest


@pytest.mark.parametrize(("method", "n"), [("forkserver", 12), ("spawn", 4)])
def test_workers_killed_at_random_moments(method, n, stage, reference, contents):
    """One or all workers die, again and again; the run goes on to the same bytes."""
    rng = random.Random(n)
    plan = rng.sample(["one"] * (n - n // 4) + ["all"] * (n // 4), n)
    stage.start(method=method)

    for victims in plan:
        wanted = 2 if victims == "all" else 1
        stage.wait(lambda wanted=wanted: len(_at_work(stage)) >= wanted)
        time.sleep(rng.uniform(0, 1))
        found = stage.wait(lambda: _at_work(stage))
        stage.kill_workers(found if victims == "all" else [rng.choice(found)])
    stage.finish()

    assert stage.lost >= n
    stage.check(reference, contents)


def _at_work(stage):
    """Return the busy workers; a client that gave blocks up is sent again."""
    if stage.ended():
        stage.again_after_quarantine()
    return stage.busy()


@pytest.mark.parametrize("group", [True, False], ids=["with its workers", "alone"])
def test_a_client_killed_at_random_moments(group, stage, reference, contents):
    """The driver dies early, late, in the middle; the same call goes on each time."""
    rng = random.Random(3 + group)

    for life in range(3):
        stage.start()
        if life % 2:  # else at any moment since it was started
            stage.wait(stage.busy)
        time.sleep(rng.uniform(0, 2 if life % 2 else 5))
        stage.kill_client(group=group)
    stage.again()
    stage.finish()

    assert len(stage.clients) == 4
    stage.check(reference, contents)
