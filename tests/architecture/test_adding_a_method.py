"""A method is its file, its tests, its page and one line in `METHODS`: the rest follows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from expunge.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]

METHOD = '''
"""Do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from expunge.methods.base import Method
from expunge.records import MethodInfo, Paper
from expunge.settings import Positive


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DoNothing(Method):
    """Return the copy as it came."""

    pause: Positive = 2.0

    info: ClassVar[MethodInfo] = MethodInfo(
        name="do-nothing",
        title="Do nothing",
        summary="return the copy as it came",
        paper=Paper(title="None", authors="nobody", venue="nowhere"),
        needs=frozenset({"forget"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs",),
        reads="no row at all",
        expected_failures={"effect": "nothing is done"},
    )

    def apply(self, model, task, run):
        """Return it."""
        return model
'''

PAGE = """# Do nothing (`DoNothing`)

<!-- written by: python -m docs.generate -->
<!-- end -->

Prose that stays.
"""

FACE = """
import expunge, expunge.methods
assert expunge.DoNothing is expunge.methods.DoNothing is expunge.METHODS[0]
assert "DoNothing" in expunge.__all__ and "DoNothing" in expunge.methods.__all__
assert "DoNothing" in dir(expunge)
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the package and its documents with one method more, brought up to date."""
    root = tmp_path_factory.mktemp("copied")
    for name in ("src/expunge", "docs"):
        copytree(ROOT / name, root / name, ignore=ignore_patterns("__pycache__"))
    (root / "src/expunge/methods/do_nothing.py").write_text(METHOD.lstrip())
    (root / "docs/methods/do-nothing.md").write_text(PAGE)
    listing = root / "src/expunge/methods/__init__.py"
    before = listing.read_text()
    after = before.replace(
        "METHODS = _resolved(\n", 'METHODS = _resolved(\n    "do_nothing:DoNothing",\n'
    )
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    listing.write_text(after)
    return root, _run(root, "-m", "docs.generate").stderr


def _run(root, *arguments):
    """Run Python in the copy."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_face_knows_it(copied):
    root, _ = copied
    _run(root, "-c", FACE)


def test_what_was_stale_is_written_and_nothing_else(copied):
    root, said = copied
    assert {line.removeprefix("wrote ") for line in said.splitlines()} == {
        "docs/matrix.md",
        "docs/methods/do-nothing.md",
        "src/expunge/__init__.py",
        "src/expunge/methods/__init__.py",
    }
    assert _run(root, "-m", "docs.generate").stderr == ""


def test_type_checkers_know_it(copied):
    root, _ = copied
    for module, home in (("", ""), ("methods", ".do_nothing")):
        text = (root / "src" / "expunge" / module / "__init__.py").read_text()
        assert f"    from expunge.methods{home} import DoNothing as DoNothing\n" in text


def test_the_documents_show_it(copied):
    root, _ = copied
    assert "| [do-nothing](methods/do-nothing.md) |" in (root / "docs/matrix.md").read_text()
    page = (root / "docs/methods/do-nothing.md").read_text()
    for line in (
        "| class | `expunge.DoNothing` |",
        "| rows read | no row at all |",
        "| known not to hold | `effect`: nothing is done |",
        "| `pause` | `2.0` | a number above 0 |",
        "Prose that stays.",
    ):
        assert line in page.splitlines()


def test_the_command_line_lists_it(copied):
    root, _ = copied
    run = "from expunge.cli.main import run; run()"
    (facts, *_) = json.loads(_run(root, "-c", run, "methods", "--json").stdout)
    assert facts["name"] == "do-nothing"
    assert facts["settings"] == {"pause": 2.0}
    assert facts["values"] == {"pause": "a number above 0"}
    _run(root, "-c", run, "init", "new.toml")
    names = ", ".join(["do-nothing", *(m.info.name for m in METHODS)])
    assert names in " ".join((root / "new.toml").read_text().replace("#", " ").split())
