"""The command ``embedkit``: one file per noun, the same words as in Python."""

from embedkit.cli.main import cli, main

__all__ = ["cli", "main"]
