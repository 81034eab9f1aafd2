"""OpenVINO computes what PyTorch does, or refuses."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from embedkit.errors import MissingDependencyError, NetworkError
from embedkit.networks.converted import cache_folder
from embedkit.networks.row_errors import largest_error

pytestmark = pytest.mark.usefixtures("own_cache")


def test_openvino_refuses_writing_to_a_view(noise, little):
    """What OpenVINO cannot convert is refused, never computed otherwise."""
    taps = little("WritesToView").taps("all", pool="none", backend="openvino")
    message = "'openvino' cannot convert this network .Conversion is failed for: .*use"
    with pytest.raises(NetworkError, match=re.compile(message)) as caught:
        taps.forward(noise(3, 3, 8, 8))
    assert "\n" not in str(caught.value)


def test_openvino_starts_within_its_tolerance(digits, noise):
    """From a stored map, OpenVINO gives what the reference gives."""
    start, rest = "stage1.relu_1", ["stage2.add", "fc"]
    raw = digits.taps([start], pool="none").forward(noise(3, 1, 16, 16))[start]
    expected = digits.taps(rest, start=start).forward(raw)
    taps = digits.taps(rest, start=start, backend="openvino")
    for layer, value in taps.forward(raw).items():
        assert largest_error(value, expected[layer]) <= taps.tolerance


def test_missing_openvino_is_named(digits, monkeypatch):
    """Without the extra, the message says which it is."""
    monkeypatch.delitem(
        sys.modules, "embedkit.networks.openvino_adapter", raising=False
    )
    monkeypatch.delattr(
        sys.modules["embedkit.networks"], "openvino_adapter", raising=False
    )
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"embedkit\[openvino\]"):
        digits.taps("fc", backend="openvino")


def test_openvino_refuses_what_it_computes_otherwise(digits, noise, monkeypatch):
    """A converted graph that disagrees with PyTorch is never used or kept."""
    from embedkit.networks import openvino_adapter

    monkeypatch.setattr(openvino_adapter, "_compiled", {})
    monkeypatch.setattr(openvino_adapter, "largest_error", lambda found, true: 0.5)
    message = "'openvino' gives other values of layer 'fc' .by 5.0e-01.: use backend="
    with pytest.raises(NetworkError, match=message):
        digits.taps("fc", backend="openvino").forward(noise(2, 1, 16, 16))
    assert not cache_folder().exists() or not list(cache_folder().iterdir())


def test_openvino_converts_once(digits, noise, monkeypatch):
    """The next process reads what this one kept; damage is converted again."""
    from embedkit.networks import openvino_adapter

    batch = noise(2, 1, 16, 16)
    monkeypatch.setattr(openvino_adapter, "_compiled", {})
    first = digits.taps("all", backend="openvino").forward(batch)
    (kept,) = cache_folder().iterdir()
    converted = []
    true_convert = openvino_adapter.convert_model

    def convert(*args, **kwargs):
        converted.append(1)
        return true_convert(*args, **kwargs)

    monkeypatch.setattr(openvino_adapter, "convert_model", convert)
    openvino_adapter._compiled.clear()
    again = digits.taps("all", backend="openvino").forward(batch)
    assert not converted
    for layer, value in first.items():
        np.testing.assert_array_equal(again[layer], value)
    again.clear()
    openvino_adapter._compiled.clear()
    (kept / "sha256").write_text("damaged")
    digits.taps("all", backend="openvino").forward(batch)
    assert converted == [1]


@pytest.mark.slow
def test_openvino_reports_nothing(run_python):
    """The package that would send reports is never loaded."""
    script = (
        "import sys\n"
        "from embedkit.networks import openvino_adapter\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    assert run_python(script) == "[]"
