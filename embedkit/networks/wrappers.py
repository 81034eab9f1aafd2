"""Modules that stand for another module: what is looked at is the one they wrap."""

from __future__ import annotations

from torch import nn
from torch.jit import ScriptModule

from embedkit.errors import NetworkError

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module behind `torch.compile` and behind parallel wrappers.

    Parameters
    ----------
    module : Module
        Is not changed. What is wrapped further inside it stays wrapped.

    Examples
    --------
    >>> unwrapped(nn.DataParallel(nn.Identity()))
    Identity()
    """
    inner = module
    while True:
        compiled = getattr(inner, "_orig_mod", None)  # what torch.compile returns
        if isinstance(compiled, nn.Module):
            inner = compiled
        elif isinstance(inner, _PARALLEL):
            inner = inner.module
        else:
            return inner


def unwrap_inside(module: nn.Module) -> None:
    """Replace every wrapper inside a module by what it wraps."""
    for parent in list(module.modules()):
        # Not `named_children`, which tells a part that has two names only once.
        for name, child in list(parent._modules.items()):
            if child is not None and unwrapped(child) is not child:
                setattr(parent, name, unwrapped(child))


def refuse_scripts(module: nn.Module, *, name: str) -> None:
    """Refuse a network of TorchScript, in which no hook runs and no graph can be traced.

    Parameters
    ----------
    module : Module
        The network.
    name : str
        For messages.

    Raises
    ------
    NetworkError
        Naming the part of the network.
    """
    for path, part in module.named_modules():
        if isinstance(part, ScriptModule):
            where = f"its module {path!r}" if path else "it"
            message = (
                f"network {name} cannot be looked into: {where} is TorchScript "
                f"({type(part).__name__}), which hides its layers; pass the Python module "
                "it was made from, with weights= where they are in a file"
            )
            raise NetworkError(message)
