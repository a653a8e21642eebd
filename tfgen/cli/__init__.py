"""The command line: parse, call, print. Each command has a module of its own."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from tfgen._files import OutputExistsError
from tfgen.cli._output import echo, printable
from tfgen.cli._streams import keep_streams_open

__all__ = ["main"]

# name -> module that defines the click command of that name with "-" turned into "_".
# Imported on demand: `tfgen --help` must not wait for TensorFlow.
COMMANDS = {
    "dataset": "tfgen.cli.dataset",
    "train": "tfgen.cli.train",
    "generate": "tfgen.cli.generate",
    "reconstruct": "tfgen.cli.reconstruct",
    "evaluate": "tfgen.cli.evaluate",
    "export": "tfgen.cli.export",
    "demo": "tfgen.cli.demo",
}


# Bad input and failing machines raise these; anything else may be an error in tfgen.
_FORESEEN = (ValueError, OSError, ArithmeticError, ImportError)


class _Commands(click.Group):
    """Loads commands on demand, and reports a failure as one line with exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # This process is tfgen's: what keras.json or the user's environment says is for others.
        os.environ["KERAS_BACKEND"] = "tensorflow"
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program; a closed standard stream does it no harm."""
        keep_streams_open()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # the help could not be printed; commands say so below
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = printable(error.message)  # type: ignore[misc]  # final for subclasses
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get("TFGEN_DEBUG"):
                raise
            if isinstance(error, OutputExistsError):
                line = f"{str(error.path)!r} {error.reason}; use --overwrite to replace it"
            else:
                # An error about several values has a line for each.
                problems = getattr(error, "problems", (str(error),))
                *others, line = (" ".join(text.split())[:500] for text in problems)
                for other in others:
                    echo(f"Error: {other}", err=True)
            if not isinstance(error, _FORESEEN) or not line:
                line = f"{type(error).__name__}: {line} (TFGEN_DEBUG=1 shows where)"
            raise click.ClickException(printable(line)) from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="tfgen", prog_name="tfgen")
def main() -> None:
    """Design atomic structures: name a property value, and get new, verified structures.

    An error is reported as one line; TFGEN_DEBUG=1 shows where it comes from.
    """


if __name__ == "__main__":
    sys.exit(main())
