"""Several layers in one pass against one pass a layer. Printed, never judged.

Both arms stop behind the last layer they want, so one pass a layer costs the sum of the
layers' prefixes: in operations that is the bound which is printed beside the measurement.

References
----------
Nakandala, S., Kumar, A. (2020). Vista: Optimized System for Declarative Feature Transfer
from Deep CNNs at Scale. SIGMOD, section 4.2.1 (lazy and staged plans).
"""

import dask
import numpy as np
import pytest

import embedkit as ek

TOP_5 = [
    *["layer3.5.relu_2", "layer4.0.relu_2", "layer4.1.relu_2"],
    *["layer4.2.relu_2", "fc"],
]


@pytest.mark.slow
def test_one_pass_against_one_a_layer(jpegs, arm, race, threads, cores, full, capsys):
    """ResNet-50's top five layers, from JPEG files to disk."""
    network = ek.load_network("resnet50", weights="none")
    photos = jpegs[: 128 if full else 4]
    flops = network.layers["flops"].loc[TOP_5]

    def extract(layers, path):
        with threads(cores), dask.config.set(scheduler="synchronous"):
            return ek.extract(photos, network, path, layers=layers, batch_size=16)

    def together(place):
        return extract(TOP_5, place / "s.zarr")

    def apart(place):
        stores = [extract([layer], place / f"{layer}.zarr") for layer in TOP_5]
        return {layer: store[layer] for layer, store in zip(TOP_5, stores, strict=True)}

    fused, lazy = arm("one pass", together), arm("one pass a layer", apart)

    results = race([lazy, fused])

    for layer in TOP_5:
        one, other = (results[each.name][layer] for each in (fused, lazy))
        assert np.array_equal(one, other)
    ratio, bound = lazy.best / fused.best, flops.sum() / flops.max()
    with capsys.disabled():
        print(f"\nresnet50, 5 layers, {len(photos)} images, {cores} cores")
        for each in (lazy, fused):
            print(f"  {each.name}: {each.best:.1f} s")
        print(f"  {ratio:.2f} times faster in one pass; by operations {bound:.2f}")
