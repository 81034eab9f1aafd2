"""Runs as turns: what each takes, and what they take together."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.planning.chains import in_a_row, map_block, raw
from embedkit.planning.costs import Layout, cost
from embedkit.planning.grid import choose_block
from embedkit.planning.memory import MemoryModel
from embedkit.planning.turns import (
    cost_of_turns,
    n_passes,
    parts_of,
    scratch_bytes,
    scratch_files,
    turns_of,
)

LAYOUTS = st.builds(
    lambda workers, threads, batch, times, decode_threads: Layout(
        workers=workers,
        threads=threads,
        batch=batch,
        block=batch * times,
        decode_threads=decode_threads,
    ),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([1, 2, 8, 32]),
    st.sampled_from([1, 2, 16]),
    st.integers(1, 4),
)


@given(LAYOUTS)
def test_one_pass_is_one_turn(question, layout):
    """It is what was measured, and costs what that costs."""
    (turn,) = turns_of(question)

    whole = cost(
        question.measured, layout, n_images=question.n_images, cores=question.cores
    )
    assert turn.measured is question.measured
    assert cost_of_turns((turn,), layout, question, works={}) == whole
    assert parts_of(question, layout) == MemoryModel.of(question.measured).parts(
        batch=layout.batch,
        block=layout.block,
        threads=layout.threads,
        decode_threads=layout.decode_threads,
    )


@settings(deadline=None)
@given(LAYOUTS)
def test_a_layer_alone_needs_no_more_than_all_of_them(maps, layout):
    """One after the other they take less memory at a time, and no less work."""
    lazy = turns_of(replace(maps, strategy="lazy"))
    (fused,) = turns_of(maps)

    one, many = (
        cost_of_turns(turns, layout, maps, works={}) for turns in ((fused,), lazy)
    )

    for each in lazy:
        assert each.projected_mem(layout, 1000) <= fused.projected_mem(layout, 1000)
    assert len(lazy) == n_passes(replace(maps, strategy="lazy")) == 4
    assert many.stages["decode"] == pytest.approx(4 * one.stages["decode"])
    assert many.stages["write"] >= one.stages["write"]
    assert many.seconds >= one.seconds


def test_images_are_read_once_where_maps_are_kept(maps, layers, measured):
    """Only the first turn decodes; the others read what the one before has written."""
    pooled = replace(maps.measured.networks[0], layers=layers)
    asked = replace(
        maps,
        strategy="staged",
        measured=replace(maps.measured, networks=(pooled,)),
    )

    turns = turns_of(asked)

    assert len(turns) == 7  # a map and a layer each, and the last layer
    assert [turn.map_bytes > 0 for turn in turns] == [True, False] * 3 + [False]
    assert turns[0].measured.decode_seconds == measured.decode_seconds
    read = [4 * each.raw_entries / measured.read_rate for each in layers]
    seconds = [turn.measured.decode_seconds for turn in turns[1:]]
    assert seconds == pytest.approx(
        [read[0], read[0], read[1], read[1], read[2], read[2]]
    )
    assert [turn.measured.networks[0].load_seconds for turn in turns] == [0.5] + [0] * 6
    flops = sum(turn.measured.layers[0].flops for turn in turns)
    assert flops == layers[-1].flops


def test_turns_that_write_maps_are_a_stage_of_their_own(question, layers):
    """Records of a store do not tell of them."""
    layout = Layout(workers=1, threads=1, batch=8, block=512, decode_threads=2)
    asked = replace(question, strategy="staged")
    turns = turns_of(asked)

    found = cost_of_turns(turns, layout, asked, works={})

    only = [turn for turn in turns if turn.map_bytes]
    assert found.stages["maps"] > 0
    whole = cost_of_turns(only, layout, asked, works={})
    assert whole.stages == {"maps": pytest.approx(found.stages["maps"])}
    assert found.seconds > whole.seconds > 0


def test_without_a_pass_alone_that_of_all_layers_stands_for_it(question):
    """More is planned for then, never less."""
    network = question.measured.networks[0]
    (first, *_) = turns_of(replace(question, strategy="lazy"))
    staged = turns_of(replace(question, strategy="staged"))

    assert first.measured.networks[0].forward == network.forward
    for turn in staged:
        for mine, whole in zip(
            turn.measured.networks[0].forward, network.forward, strict=True
        ):
            assert mine.peak >= whole.peak


def test_several_networks_take_turns(question, measured):
    """Those that have been loaded stay in the process."""
    first = measured.networks[0]
    second = replace(first, name="other", layers=first.layers[:1], loaded=7)
    both = replace(question, measured=replace(measured, networks=(first, second)))

    turns = turns_of(replace(both, strategy="lazy"))

    assert len(turns) == 5
    assert turns[0].measured.reserved == measured.reserved + 7
    assert turns[-1].measured.reserved == measured.reserved + first.loaded
    assert turns[0].measured.block_seconds == measured.block_seconds / 2
    assert n_passes(both) == 2


def test_nothing_lies_there_but_for_staged(question):
    """One pass, and passes from the images, keep no maps."""
    for strategy in ("fused", "lazy"):
        asked = replace(question, strategy=strategy)

        assert (scratch_bytes(asked), scratch_files(asked, 32)) == (0, 0)


def test_whole_layers_need_no_map_besides(maps):
    """What is stored as it is, is what the next one begins from."""
    links = in_a_row(maps.measured.networks[0])

    assert [link.is_map for link in links] == [False] * 4
    assert [link.start and link.start.name for link in links] == [
        None,
        "layer0",
        "layer1",
        "layer2",
    ]
    assert scratch_bytes(replace(maps, strategy="staged")) == 0


def test_no_more_than_two_maps_lie_there(layers, measured):
    """The one that is read, and the one that is written."""
    links = in_a_row(replace(measured.networks[0], layers=layers))

    assert max(len(link.maps) for link in links) == 2
    assert links[2].maps == (raw(layers[0]), raw(layers[1]))


@given(
    st.integers(1, 10**9),
    st.integers(1, 10**6),
    st.sampled_from([1, 8, 32]),
    st.integers(1, 8192),
)
def test_blocks_of_maps(map_bytes, n_images, batch, block):
    """No fewer than a forward pass, no more than those of the store, else as usual."""
    found = map_block(map_bytes, n_images=n_images, batch=batch, block=block)

    assert batch <= found <= max(block, batch)
    usual = choose_block(n_images, map_bytes)
    assert found in (usual, batch, block)
