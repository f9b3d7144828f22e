"""No module imports, at run time, one that imports it; and the contracts of imports are kept."""

import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]


def test_there_is_no_circle_among_imports_at_run_time():
    graph = grimp.build_graph("expunge", exclude_type_checking_imports=True, cache_dir=None)
    below = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(below) > 150, "the graph is not that of the package"
    try:
        order = tuple(TopologicalSorter(below).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle: {' <- '.join(error.args[1])}") from error
    assert len(order) == len(below)


def test_the_contracts_of_imports_are_kept():
    """Imports go downwards, and a method sees only its own family: see pyproject.toml."""
    command = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken." in done.stdout
