"""Converted networks on disk: whole or not there, few, in the system's place."""

from __future__ import annotations

import sys

import pytest

from embedkit.networks.converted import cache_folder, find_converted, keep_converted


def test_cache_keeps_whole_entries_and_few(tmp_path):
    """What is written is found; more than eight are not kept; failures leave nothing."""
    for number in range(10):
        keep_converted(
            tmp_path, f"key{number}", write=lambda path: path.write_text("model")
        )
    found = [number for number in range(10) if find_converted(tmp_path, f"key{number}")]
    assert len(found) == 8

    def fail(path):
        raise RuntimeError

    keep_converted(tmp_path, "failed", write=fail)
    assert find_converted(tmp_path, "failed") is None
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("platform", ["win32", "darwin", "linux"])
def test_cache_is_where_the_system_has_caches(platform, monkeypatch, tmp_path):
    """Every system has its own folder for them."""
    for name in ("EMBEDKIT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    expected = {
        "win32": "AppData/Local/embedkit",
        "darwin": "Library/Caches/embedkit",
        "linux": ".cache/embedkit",
    }
    assert cache_folder() == tmp_path / expected[platform]
