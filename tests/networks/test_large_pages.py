"""What PyTorch is told before its first tensor."""

import os
import subprocess
import sys

import pytest

_CODE = """
import embedkit.networks.load, os, torch
print(os.environ["THP_MEM_ALLOC_ENABLE"], torch.empty(2**20).data_ptr() % 4096)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")
@pytest.mark.parametrize(("given", "said"), [(None, "1"), ("0", "0")])
def test_large_values_lie_in_large_pages(given, said):
    """They begin where a page does; whoever has said otherwise is heard."""
    env = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    if given is not None:
        env["THP_MEM_ALLOC_ENABLE"] = given

    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )

    heard, place = done.stdout.split()
    assert heard == said
    assert (place == "0") == (said == "1")
