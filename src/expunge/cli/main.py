"""The console entry: gathers the commands. Imports of torch wait until a command runs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from expunge.cli.check import check
from expunge.cli.convert import convert
from expunge.cli.demo import demo
from expunge.cli.init import init
from expunge.cli.keygen import keygen
from expunge.cli.methods import methods
from expunge.cli.sign import sign
from expunge.cli.statistics import statistics
from expunge.cli.unlearn import unlearn
from expunge.cli.verify import verify

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="expunge",
    help="Remove data from trained classifiers, and show what was achieved.",
    epilog="Exit codes: 0 done, 2 bad input, 3 internal, 10 refuted, 11 undetermined, "
    "12 no-op or ineffective, 13 wrecked, 14 incomplete.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
_COMMANDS = (demo, init, check, unlearn, methods, statistics, convert, keygen, sign, verify)
for _command in _COMMANDS:
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _face(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("expunge"))
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="expunge")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        return 130
    return 0


def _keep_freed_memory() -> None:
    """Ask glibc not to hand freed memory back to the system at once.

    Training steps free and take the same hundreds of megabytes again and again; returning and
    faulting in these pages took up to half of the time. Only in the command's own process.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_threshold = -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


def run() -> NoReturn:
    """Entry point of the `expunge` script."""
    _keep_freed_memory()
    sys.exit(main())
