"""How long a run takes, and what it waits for."""

from dataclasses import replace

import pytest

from embedkit.planning.costs import CORES, PYTHON, Layout, Work, batches, cost


def test_larger_batches_have_to_be_worth_it(measured):
    """Beyond the size that is within 5 % of the fastest none is looked at."""
    assert batches(measured) == (1, 2, 4, 8, 16)


def test_layers_that_are_early_take_less(measured, layers):
    """Without its last layer a network is run only as far as needed."""
    shorter = replace(measured.networks[0], layers=layers[:2])

    assert shorter.seconds(8) == pytest.approx(measured.networks[0].seconds(8) / 2)


def test_a_network_of_unknown_work_is_taken_whole(measured):
    """Without operations there is nothing to scale by."""
    assert replace(measured.networks[0], flops=0).share == 1.0


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"decode_seconds": 0.5}, CORES),
        ({"held_seconds": 1.0}, PYTHON),
        ({"write_rate": 1e3}, "write"),
    ],
)
def test_what_a_run_waits_for(measured, changes, stage):
    """The reason is named: all cores busy, Python's lock, or a stage."""
    layout = Layout(workers=1, threads=2, batch=16, block=256, decode_threads=2)
    if stage == "write":
        layout = replace(layout, threads=1)

    found = cost(replace(measured, **changes), layout, n_images=1000, cores=2)

    assert found.waits_for == stage


def test_rounds_of_tasks_by_hand(measured):
    """Five blocks on two slots take three rounds; what is left over rides along."""
    layout = Layout(workers=2, threads=1, batch=16, block=100, decode_threads=2)
    one = Work.of(measured, batch=16)
    wall = one.decode + one.transform + one.forward + one.write

    full = cost(measured, layout, n_images=450, cores=2).seconds
    rest = cost(measured, layout, n_images=401, cores=2).seconds

    assert full == pytest.approx(0.5 + 2 * (100 * wall + 0.05) + (64 * wall + 0.05))
    assert rest == pytest.approx(0.5 + 2 * (100 * wall + 0.05) + (16 * wall + 0.05))


def test_threads_inside_a_forward_pass_help_as_measured(measured):
    """One task on four cores is 2.9 times faster; a shared core is slower."""
    assert measured.faster(4) == 2.9
    assert measured.faster(0.5) == 0.5
    assert measured.faster(1) == 1.0


def test_rows_are_put_into_their_block(measured):
    """What that takes is forward time, whatever the threads inside a pass."""
    slow = replace(measured, keep_seconds=1e-6)
    layout = Layout(workers=1, threads=1, batch=8, block=256, decode_threads=2)

    plain, kept = (
        cost(each, layout, n_images=256, cores=2) for each in (measured, slow)
    )

    more = kept.stages["forward"] - plain.stages["forward"]
    assert more == pytest.approx(256 * 1e-6 * measured.buffer_bytes)


def test_forward_passes_of_one_process_take_turns(measured):
    """Two threads of it take as long as one where these are most of the work."""
    quick = replace(measured, decode_seconds=0.0, held_seconds=0.0, write_rate=1e12)
    layout = Layout(workers=1, threads=2, batch=16, block=256, decode_threads=2)

    together = cost(quick, layout, n_images=4096, cores=2)
    apart = cost(quick, replace(layout, workers=2, threads=1), n_images=4096, cores=2)

    forward = 4096 * quick.forward_seconds(16)
    assert together.seconds >= forward
    assert together.waits_for == "python"
    assert apart.seconds < 0.6 * together.seconds
