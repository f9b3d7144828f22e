"""How long the command line takes to start, against an empty Python and against `import torch`.

Each command runs in a process of its own, in turn with the others, so that a busy machine slows all
alike. The first turn warms the disk and is not counted; the figures are medians of the rest.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks._common import table

_RUN = "from expunge.cli.main import run; run()"

_COMMANDS: dict[str, list[str]] = {
    "python -c pass": ["-c", "pass"],
    "expunge --help": ["-c", _RUN, "--help"],
    "expunge methods": ["-c", _RUN, "methods"],
    "expunge methods --json": ["-c", _RUN, "methods", "--json"],
    "python -c 'import torch'": ["-c", "import torch"],
}

_TURNS = 9


def _seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(1 + _TURNS):
        for name, arguments in _COMMANDS.items():
            taken[name].append(_seconds(arguments))
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    empty, torch = medians["python -c pass"], medians["python -c 'import torch'"]
    print(f"## Start of the command line, medians of {_TURNS} runs each\n")
    table(
        ("command", "seconds", "of an empty Python", "of `import torch`"),
        [
            (f"`{name}`", f"{value:.3f}", f"{value / empty:.1f}×", f"{value / torch:.2f}×")
            for name, value in medians.items()
        ],
    )
