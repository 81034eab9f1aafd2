"""Convolutions that do the normalisation behind them as well."""

from __future__ import annotations

from embedkit.networks.backends import FusedTaps


def test_fusing_keeps_tapped_pairs(noise, little):
    """A pair is folded only where neither of its values is tapped."""
    network = little("Nasty")
    fused = {
        layer: [
            str(node.target)
            for node in network.taps([layer], backend="torch_fused")._module.graph.nodes
            if node.op == "call_module"
        ]
        for layer in ("conv", "norm", "relu")
    }
    assert fused == {
        "conv": ["conv"],
        "norm": ["conv", "norm"],
        "relu": ["_fused_0", "relu"],
    }
    assert isinstance(network.taps("all", backend="torch_fused"), FusedTaps)
