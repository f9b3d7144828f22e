"""Streams and exit codes: stdout carries the result, all else goes to stderr."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, final

import typer

from expunge.errors import ExpungeError

__all__ = ["Screen", "command"]

_INPUT, _INTERNAL, _STOPPED = 2, 3, 130
_TRACE = "EXPUNGE_TRACEBACK"


@final
class Screen:
    """Where a command speaks: `result` once on stdout, everything else on stderr."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        from rich.console import Console

        self._out = out
        wide = None if err.isatty() else 120
        self._console = Console(file=err, highlight=False, markup=False, soft_wrap=True, width=wide)

    def result(self, text: str) -> None:
        """Write the result: one path, or JSON."""
        print(text, file=self._out, flush=True)

    def json(self, facts: Mapping[str, Any] | Sequence[Any]) -> None:
        """Write the result as JSON."""
        self.result(json.dumps(facts, indent=2, ensure_ascii=False))

    def say(self, text: str) -> None:
        """Write a line for people."""
        self._console.print(text)

    def warn(self, text: str) -> None:
        """Write a warning."""
        self._console.print(f"warning: {text}", style="yellow")

    def then(self, text: str) -> None:
        """Write the last line: what to type next."""
        self._console.print(f"next: {text}")

    def table(
        self,
        heading: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        left: bool = False,
        result: bool = False,
    ) -> None:
        """Draw a table of figures (or of texts, `left`); on stdout where it is the result."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=any(heading), header_style="bold")
        for i, name in enumerate(heading):
            table.add_column(Text(name), justify="left" if i == 0 or left else "right")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console = self._console
        if result:
            wide = None if self._out.isatty() else 200
            console = Console(file=self._out, highlight=False, markup=False, width=wide)
        console.print(table)

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """Yield `report(what, done, total)`, shown as bars on a terminal and nowhere else."""
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        if not self._console.is_terminal:
            yield lambda _what, _done, _total: None
            return
        bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        with bars:
            yield report


@contextmanager
def command() -> Iterator[Screen]:
    """Run a command: its errors become messages and exit codes, without a traceback.

    What the user's own code prints goes to stderr, so that stdout holds the result alone.
    """
    out, err = sys.stdout, sys.stderr
    screen = Screen(out, err)
    try:
        with redirect_stdout(err):
            yield screen
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        screen.say("stopped: nothing is left half-written")
        raise typer.Exit(_STOPPED) from None
    except ExpungeError as error:
        _trace()
        screen.say(f"error: {error}")
        raise typer.Exit(_INPUT) from None
    except Exception as error:  # noqa: BLE001  (the outermost guard: everything becomes a code)
        _trace()
        screen.say(
            f"internal error: {type(error).__name__}: {error}\nThis is a fault in Expunge, or in "
            f"code that the job names. Run again with {_TRACE}=1 to see where, and report it."
        )
        raise typer.Exit(_INTERNAL) from None


def _trace() -> None:
    if os.environ.get(_TRACE):
        traceback.print_exc(file=sys.stderr)
