"""A measured network, and questions about it."""

from dataclasses import replace

import pytest

from embedkit.planning.measurement import (
    Forward,
    LayerSize,
    Measurement,
    NetworkMeasurement,
)
from embedkit.planning.question import Question

MB = 10**6


@pytest.fixture(scope="session")
def layers():
    """Four stages of a network like ResNet-18, averaged, float32."""
    return tuple(
        LayerSize(
            name=f"layer{at}",
            shape=(64 * 2**at,),
            itemsize=4,
            flops=(at + 1) * 900 * MB,
            raw_entries=64 * 2**at * (56 // 2**at) ** 2,
            channels=64 * 2**at,
        )
        for at in range(4)
    )


@pytest.fixture(scope="session")
def measured(layers):
    """What such a network might measure on a laptop."""
    network = NetworkMeasurement(
        name="resnet18",
        loaded=60 * MB,
        load_seconds=0.5,
        input_bytes=3 * 224 * 224 * 4,
        transform_seconds=0.002,
        forward=tuple(
            Forward(batch=b, peak=(20 + 8 * b) * MB, seconds=0.01 + 0.02 * b)
            for b in (1, 2, 4, 8, 16, 32, 64)
        ),
        flops=3600 * MB,
        layers=layers,
    )
    return Measurement(
        reserved=350 * MB,
        decode_seconds=0.004,
        decoding=2 * MB,
        write_rate=2e8,
        read_rate=4e8,
        networks=(network,),
        block_seconds=0.05,
        held_seconds=0.001,
        speedup=((1, 1.0), (2, 1.7), (4, 2.9)),
    )


@pytest.fixture(scope="session")
def question(measured):
    """Fifty thousand images on two cores with 8 GiB."""
    return Question(measured=measured, n_images=50_000, cores=2, memory=8 * 2**30)


@pytest.fixture(scope="session")
def maps(measured, layers, question):
    """A thousand images, unpooled: rows of 12 MB, and passes that hold all of them."""
    whole = tuple(
        replace(each, shape=(2 * each.raw_entries,), raw_entries=2 * each.raw_entries)
        for each in layers
    )
    held = sum(each.buffer_bytes for each in whole)
    alone = tuple(
        replace(each, peak=each.peak + each.batch * whole[-1].buffer_bytes)
        for each in measured.networks[0].forward
    )
    network = replace(
        measured.networks[0],
        layers=whole,
        alone=alone,
        forward=tuple(
            replace(each, peak=each.peak + 2 * each.batch * held) for each in alone
        ),
    )
    return replace(
        question, measured=replace(measured, networks=(network,)), n_images=1000
    )
