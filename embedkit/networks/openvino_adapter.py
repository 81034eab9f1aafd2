"""All that embedkit asks of OpenVINO. No other file imports it.

Import this module inside the function that needs it: OpenVINO is the extra ``openvino``.

References
----------
Intel, "OpenVINO documentation", CPU device and PyTorch conversion,
https://docs.openvino.ai.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from embedkit.errors import MissingDependencyError, NetworkError
from embedkit.networks.converted import cache_folder, find_converted, keep_converted
from embedkit.networks.layers import Layer
from embedkit.networks.pools import Pool
from embedkit.networks.program import Program
from embedkit.networks.row_errors import largest_error
from embedkit.networks.starts import Start
from embedkit.networks.taps import BACKEND, TapGraph
from embedkit.networks.tracing import FOREIGN_ERRORS, one_line


@contextmanager
def _silence() -> Iterator[None]:
    """Hide the package that would report the import over the network."""
    name = "openvino_telemetry"
    known = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        yield
    finally:
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known


try:
    with _silence():
        import openvino
        from openvino import convert_model, frontend
except ImportError as _error:
    _message = (
        f"backend 'openvino' needs OpenVINO, which cannot be imported ({_error}): "
        "pip install 'embedkit[openvino]', or use backend='torch'"
    )
    raise MissingDependencyError(_message) from _error

_KEPT = 4
"""Compiled graphs a process keeps. A worker needs one."""

_FAILURES = (
    *FOREIGN_ERRORS,
    frontend.GeneralFailure,
    frontend.InitializationFailure,
    frontend.NotImplementedFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
)
"""What converting raises; OpenVINO's own share no class but Exception."""

_compiled: dict[tuple[str, int], Any] = {}


class OpenVinoTaps(TapGraph):
    """A tap graph that OpenVINO runs, on the CPU, in float32.

    It is converted for the first batch of a size, and compared with PyTorch on noise
    before it is used. Both happen once per process, and converting once per user and
    machine: the result is kept on disk.

    Parameters
    ----------
    program, layers, pools, start
        As for `TapGraph`.
    identity : str
        The network's.
    cache : Path, optional
        The folder to keep converted graphs in; by default
        `embedkit.networks.converted.cache_folder`.

    Attributes
    ----------
    tolerance : float
        Over all layers of six networks, with trained and random weights, no row differed
        from PyTorch's by more than 5.6e-6 (MobileNetV2, trained, unpooled). The
        tolerance is 17 times that. What
        `start` gives need not have the bits that the whole graph gives.
    """

    backend: ClassVar[str] = "openvino"

    def __init__(
        self,
        program: Program,
        layers: Sequence[Layer],
        *,
        pools: Mapping[str, Pool],
        start: Start | None = None,
        identity: str,
        cache: Path | None = None,
    ) -> None:
        super().__init__(program, layers, pools=pools, start=start)
        self._identity = identity
        self._cache = cache_folder() if cache is None else cache

    def _find_device(self) -> str:
        return "cpu"

    def _ready(self, module: nn.Module) -> nn.Module:
        return module  # as it is converted; OpenVINO has memory of its own

    def _given(self, batch: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.require(batch, requirements=["C", "W"]))

    def _run(self, values: Tensor) -> dict[str, Tensor]:
        shape = tuple(values.shape)
        key = (self._key(shape), torch.get_num_threads())
        compiled = _compiled.pop(key, None)
        if compiled is None:
            with torch.inference_mode(mode=False), torch.no_grad():
                compiled = self._compile(key[0], shape)
        while len(_compiled) >= _KEPT:
            _compiled.pop(next(iter(_compiled)))
        _compiled[key] = compiled
        return self._named(compiled(values.numpy()))

    @property
    def _graph(self) -> fx.GraphModule:
        assert isinstance(self._module, fx.GraphModule)  # `make_taps` sees to it
        return self._module

    def _key(self, shape: tuple[int, ...]) -> str:
        """Return what tells converted graphs apart."""
        versions = (openvino.__version__, torch.__version__)
        parts = (self._identity, str(self._graph.graph), shape, versions)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _compile(self, key: str, shape: tuple[int, ...]) -> Any:
        """Return a graph that is ready to run, converted or from the disk."""
        core = openvino.Core()
        kept = find_converted(self._cache, key)
        if kept is not None:
            return _compile(core, core.read_model(kept))
        try:
            model = self._convert(shape)
            compiled = _compile(core, model)
        except _FAILURES as error:
            raise self._unfit(f"cannot convert this network ({_why(error)})") from error
        self._compare(compiled, shape)
        keep_converted(
            self._cache,
            key,
            write=lambda path: openvino.save_model(model, path, compress_to_fp16=False),
        )
        return compiled

    def _convert(self, shape: tuple[int, ...]) -> Any:
        """Return the graph as OpenVINO has it, for batches of one shape."""
        with warnings.catch_warnings():
            # PyTorch deprecates its tracer, by which OpenVINO converts, and the tracer
            # warns of every shape that it takes for a constant, as it should.
            warnings.simplefilter("ignore")
            model = convert_model(self._in_order(), example_input=_noise(shape))
        model.reshape(list(shape))
        return model

    def _in_order(self) -> nn.Module:
        dtype = torch.float32 if self._start is None else self._start.layout.dtype
        return _InOrder(self._graph, self.layers, dtype).eval()

    def _compare(self, compiled: Any, shape: tuple[int, ...]) -> None:
        """Refuse a graph that does not compute what PyTorch computes."""
        batch = _noise(shape)
        found = self._named(compiled(batch.numpy()))
        expected = self._in_order()(batch.clone())
        for layer, value in zip(self.layers, expected, strict=True):
            error = largest_error(found[layer].numpy(), value.numpy())
            if error > self.tolerance:
                message = f"gives other values of layer {layer!r} (by {error:.1e})"
                raise self._unfit(message)

    def _named(self, values: Any) -> dict[str, Tensor]:
        found = (torch.from_numpy(values[place]) for place in range(len(self.layers)))
        return dict(zip(self.layers, found, strict=True))

    def _unfit(self, what: str) -> NetworkError:
        message = f"backend {self.backend!r} {what}: use backend={BACKEND!r}"
        return NetworkError(message)


class _InOrder(nn.Module):
    """A tap graph that returns a tuple: converted outputs have no reliable names."""

    def __init__(
        self, graph: fx.GraphModule, layers: tuple[str, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.tapped = graph  # not `graph`: TorchScript has that name
        self.layers = layers
        self.dtype = dtype

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        taps = self.tapped(values.to(self.dtype))
        return tuple(taps[layer] for layer in self.layers)


def _why(error: Exception) -> str:
    """Return the line of a long report that names the operations, or the first."""
    lines = [line for line in str(error).splitlines() if "is failed for:" in line]
    return lines[-1].strip("- ")[:200] if lines else one_line(error)


def _noise(shape: tuple[int, ...]) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def _compile(core: Any, model: Any) -> Any:
    options = {
        # Left alone, it would take bfloat16 where the CPU has it.
        "INFERENCE_PRECISION_HINT": "f32",
        # THROUGHPUT splits the cores among batches, of which there is one at a time.
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Every process would pin its first thread to the same core.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", options)
