"""The repeated building blocks of a network, found in the tree of its modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import nn

from embedkit.networks.layers import Layer, module_aliases

# What only holds others. Their subclasses are somebody's own, with a meaning.
_CONTAINERS = (nn.Module, nn.ModuleDict, nn.ModuleList, nn.Sequential)
_Found = dict[str, nn.Module]


def block_taps(module: nn.Module, layers: Sequence[Layer]) -> list[str]:
    """Choose the last tap of every building block.

    A building block is a module with at least two weights of two or more axes (so a
    convolution with its normalisation is none), of a class that occurs at least twice
    among the children of one module, where lists and sequences count as not being there.
    Blocks lie inside blocks; the outermost are chosen. But where all blocks of one class
    end at different resolutions and hold others, they are the stages of the network, and
    the blocks inside them are chosen.

    So a ResNet gives its residual blocks, a vision transformer its encoder layers, a
    DenseNet its dense layers. A network that is a plain sequence of layers has none.

    Parameters
    ----------
    module : Module
        The network.
    layers : sequence of Layer
        Its layers, in execution order.

    Returns
    -------
    list of str
        Names, in execution order.
    """
    taps = module_aliases([layer.name for layer in layers])
    found = {
        path: part for path, part in _repeated(module).items() if path in taps
    }  # what never runs has no tap
    sizes = {layer.name: layer.resolution for layer in layers}
    ends = {path: sizes[taps[path]] for path in found}
    kinds = {type(part) for part in found.values()}
    outer = {kind for kind in kinds if not _is_stage(kind, found, ends)}
    blocks = {path: part for path, part in found.items() if type(part) in outer}
    chosen = {taps[path] for path in blocks if not _inside(path, blocks)}
    return [layer.name for layer in layers if layer.name in chosen]


def _is_stage(
    kind: type[nn.Module], found: _Found, ends: dict[str, tuple[int, ...]]
) -> bool:
    paths = [path for path, part in found.items() if type(part) is kind]
    distinct = len({ends[path] for path in paths}) == len(paths)
    return distinct and any(_inside(path, paths) for path in found)


def _inside(path: str, others: Sequence[str] | _Found) -> bool:
    return any(path.startswith(f"{other}.") for other in others)


def _repeated(module: nn.Module) -> _Found:
    """Return all modules of classes that repeat among siblings, by their paths."""
    kinds: set[type[nn.Module]] = set()
    for path, part in module.named_modules():
        if type(part) not in _CONTAINERS or not path:
            counts = Counter(type(each) for each in _children(part) if _is_block(each))
            kinds |= {kind for kind, count in counts.items() if count > 1}
    named = module.named_modules()
    return {path: part for path, part in named if path and type(part) in kinds}


def _children(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child) in _CONTAINERS:
            yield from _children(child)
        else:
            yield child


def _is_block(module: nn.Module) -> bool:
    return sum(weight.ndim > 1 for weight in module.parameters()) > 1
