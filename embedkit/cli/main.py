"""The command group, and how its errors are shown."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

import embedkit
from embedkit.cli.output import say
from embedkit.errors import EmbedkitError

COMMANDS = {
    "demo": "Run the whole journey on handwritten digits.",
    "layers": "List the layers of a network: type, shape, size and cost.",
    "plan": "Say what an extraction would write, need and take.",
    "extract": "Write a network's layers of every image into a store.",
    "info": "Show what a store holds.",
    "verify": "Check a store against its records, recompute rows, repair.",
    "search": "Find the stored images nearest to an image.",
    "index": "Build and save a search index, with a recall that is measured.",
    "neighbors": "Find the exact nearest neighbors of every image.",
    "duplicates": "Group the images that are one picture; find leaks between splits.",
    "communities": "Group the images into communities of their neighbor graph.",
    "cluster": "Find dense clusters among the images.",
    "project": "Lay the images out on a map and draw it.",
    "probe": "Score how much of a label every layer knows.",
}

UNEXPECTED = 70  # sysexits.h: an internal software error


class _Commands(click.Group):
    """A group that imports a command's file only when that command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names in the order of a first session, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Return the command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"embedkit.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; show an error of ours as one message, without a traceback."""
        try:
            return super().invoke(ctx)
        except EmbedkitError as error:
            if debugging():
                raise
            say(f"Error: {error}")
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if debugging():
                raise
            said = " ".join(str(error).split())
            say(
                f"Error: {type(error).__name__}: {said} (unexpected: --debug shows where)"
            )
            ctx.exit(UNEXPECTED)
        except KeyboardInterrupt:
            say("Interrupted. What is written is kept: run the same command to go on.")
            ctx.exit(130)


def debugging() -> bool:
    """Whether tracebacks were asked for."""
    return os.environ.get("EMBEDKIT_DEBUG", "") not in ("", "0")


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: embedkit demo",
)
@click.version_option(embedkit.__version__, prog_name="embedkit")
def cli() -> None:
    """Every layer of every image: extract activations, then search, cluster, map, probe."""


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a character
            stream.reconfigure(errors="replace")
    cli(prog_name="embedkit")
