"""What a run will need, from the sizes of its layers alone: a first guess, on the safe side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.layer_sizes import prefixes, sizes_of, specs_of
from embedkit.planning.measurement import (
    FLOAT32,
    Forward,
    Measurement,
    NetworkMeasurement,
)

FLOPS = 5e9
"""Floating point operations a second of one core. Vector units of today do ten times as
many in a large convolution; networks of small ones, and shared machines, do no more."""

RESERVED = 2**30
"""Bytes of a worker that has imported PyTorch, Zarr and Dask's own code (measured: 780 MB
on Linux, with the PyTorch that is made for GPUs)."""

MAPS = 4
"""Maps as large as the network's largest that are there at a time: what an operation
takes and gives, a shortcut around it, and what its kernel works in."""

FIXED = 64 * 2**20
"""Bytes of a forward pass whatever its batch: threads, kernels, what is never given back."""

COPIES = 2
"""Times that weights are in memory: as they are, and as kernels want them."""

LOADING = 3
"""Times that weights are in memory besides while a network is loaded: its file, what is
read from that, and what is made of it."""

PIXEL_SECONDS = 5e-8
"""To decode and resize one pixel of a photo. Pillow needs 1e-8 to 2e-8 of a fast core."""

PHOTO = 500 * 375
"""Pixels of an image of which nothing is known."""

BYTES_OF_PIXEL = 12
"""Bytes per pixel while an image is decoded: its file, three bytes, and copies of them."""

RATE = 50e6
"""Bytes a second that are compressed and written, or read: a shared disk."""

BLOCK_SECONDS = 0.1
"""Of a task besides its images: some dozen small files, each brought to the disk."""

_BATCHES = (1, 32)


def rough(looks: Sequence[Asked]) -> Measurement:
    """Return what a run needs by rules of thumb, when nothing may be run to measure it.

    Parameters
    ----------
    looks : sequence of Asked
        What is asked of each network.

    Returns
    -------
    Measurement
        More memory and more seconds than `embedkit.extraction.measure.measuring.measure` finds,
        for common networks. The constants of this module say how much.
    """
    pixels = _pixels(looks[0])
    return Measurement(
        reserved=RESERVED,
        decode_seconds=pixels * PIXEL_SECONDS,
        decoding=pixels * BYTES_OF_PIXEL,
        write_rate=RATE,
        read_rate=RATE,
        networks=tuple(
            _network(asked, prefix)
            for asked, prefix in zip(looks, prefixes(looks), strict=True)
        ),
        block_seconds=BLOCK_SECONDS * len(looks),
    )


def _network(asked: Asked, prefix: str) -> NetworkMeasurement:
    sizes = sizes_of(asked, specs_of(asked, prefix=prefix))
    flops = max(each.flops for each in sizes)
    weights = sum(each.nbytes for each in asked.network.module.parameters())
    entries = math.prod(asked.network.input_shape)
    on_the_way = MAPS * _largest_map(asked)
    per_image = on_the_way + sum(each.buffer_bytes for each in sizes)
    alone = on_the_way + sizes[-1].buffer_bytes
    return NetworkMeasurement(
        name=asked.network.name,
        loaded=COPIES * weights,
        loading=LOADING * weights,
        load_seconds=1.0 + weights / RATE,
        input_bytes=entries * FLOAT32,
        transform_seconds=entries * PIXEL_SECONDS,
        forward=_passes(per_image, flops),
        alone=_passes(alone, flops) if len(sizes) > 1 else (),
        flops=flops,
        layers=sizes,
    )


def _passes(per_image: int, flops: int) -> tuple[Forward, ...]:
    return tuple(
        Forward(batch=size, peak=FIXED + size * per_image, seconds=size * flops / FLOPS)
        for size in _BATCHES
    )


def _largest_map(asked: Asked) -> int:
    """Return the bytes of the largest value of one image on the way to the last layer."""
    table = asked.network.layers
    last = max(map(list(table.index).index, asked.layers))
    entries = math.prod(asked.network.input_shape)
    return max(entries * FLOAT32, int(table["nbytes_full"].iloc[: last + 1].max()))


def _pixels(asked: Asked) -> int:
    """Return how many pixels an image may have, as far as its file's size tells."""
    known = asked.images.sizes[asked.images.sizes >= 0]
    if not len(known):
        return PHOTO
    # A JPEG of a photo has 0.1 to 0.5 bytes a pixel; where it is pixels, three.
    return max(PHOTO, int(4 * float(known.mean())))
