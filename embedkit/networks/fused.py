"""Fold normalisations into the convolutions in front of them.

References
----------
B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2 (batch normalisation folding).
"""

from __future__ import annotations

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from embedkit.networks.pooling import pool_tap


def fuse(module: fx.GraphModule) -> fx.GraphModule:
    """Return a tap graph in which pairs of convolution and normalisation are one.

    Only pairs of which neither value is tapped: a tapped convolution has to be there,
    and a tapped normalisation stays the module that the layer is named after.

    Parameters
    ----------
    module : GraphModule
        A tap graph. It is changed; the modules that it calls are not.

    Returns
    -------
    GraphModule
        The same object.
    """
    graph = module.graph
    pairs = [
        (node.all_input_nodes[0], node)
        for node in graph.nodes
        if _is_norm(node, module) and _only_feeds(node.all_input_nodes[0], node, module)
    ]
    for number, (conv, norm) in enumerate(pairs):
        name = f"_fused_{number}"
        module.add_submodule(name, _folded(conv, norm, module))
        conv.target = name
        norm.replace_all_uses_with(conv)
        graph.erase_node(norm)
    module.recompile()
    return module


def _called(node: fx.Node, module: fx.GraphModule) -> nn.Module | None:
    if node.op != "call_module":
        return None
    return module.get_submodule(str(node.target))


def _is_norm(node: fx.Node, module: fx.GraphModule) -> bool:
    """Tell whether a node normalises by fixed numbers and is not tapped."""
    norm = _called(node, module)
    tapped = any(user.target is pool_tap for user in node.users)
    # Not isinstance: a class of one's own may do anything in its forward method.
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None and not tapped


def _only_feeds(node: fx.Node, user: fx.Node, module: fx.GraphModule) -> bool:
    """Tell whether a node is a convolution whose value nobody but `user` reads."""
    return type(_called(node, module)) is nn.Conv2d and list(node.users) == [user]


def _folded(conv: fx.Node, norm: fx.Node, module: fx.GraphModule) -> nn.Module:
    first, second = _called(conv, module), _called(norm, module)
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.BatchNorm2d)
    folded: nn.Module = fuse_conv_bn_eval(first, second)
    return folded.requires_grad_(requires_grad=False)
