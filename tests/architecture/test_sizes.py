"""Functions take at most eight things, values carry at most eight, files stay below 300 lines."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "expunge"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MOST = 8

DOORS = {
    ("unlearning/door.py", "unlearn"),
    ("unlearning/door.py", "rehearse"),
    ("auditing/door.py", "audit"),
}
"""The two doors, and the dry run of one: their keyword-only options do not count."""

FACTS = {
    "certificate/facts.py": "what a certificate states: one record of facts a certificate",
    "records.py": "records of facts, written as JSON",
    "results/report.py": "what an audit found, written as JSON",
    "results/unlearned.py": "the answer to its user: each field is a public name of its own, "
    "written to the run folder or kept with the model; the steps of a call hand on smaller values",
}
"""Files whose values are records of facts: these are written down, and do not travel."""

LONG = {
    "records.py": "every frozen fact in one place, with their reader",
    "task.py": "the request and its four makers, which share their refusals",
}
"""Files above 300 lines, each with its reason: three at most."""


def _name(path):
    return path.relative_to(PACKAGE).as_posix()


def _nodes(path, *kinds):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]


def _parameters(node, *, options):
    given = node.args
    found = [*given.posonlyargs, *given.args, *(given.kwonlyargs if options else ())]
    return len(found) + bool(given.vararg) + bool(given.kwarg)


def _is_dataclass(node):
    return any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def _fields(node):
    declared = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    return [n for n in declared if "ClassVar" not in ast.unparse(n.annotation)]


def _is_method(node):
    return any(ast.unparse(base) == "Method" for base in node.bases)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_functions_take_at_most_eight_things(path):
    for node in _nodes(path, ast.FunctionDef, ast.AsyncFunctionDef):
        options = (_name(path), node.name) not in DOORS
        count = _parameters(node, options=options)
        assert count <= MOST, f"{node.name} takes {count}: hand over one value instead of a train"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_values_that_travel_carry_at_most_eight(path):
    for node in _nodes(path, ast.ClassDef):
        if not _is_dataclass(node) or _is_method(node) or _name(path) in FACTS:
            continue
        count = len(_fields(node))
        assert count <= MOST, f"{node.name} carries {count}: group what belongs together"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_are_short_or_say_why(path):
    lines, name = len(path.read_text().splitlines()), _name(path)
    if name in LONG:
        assert lines > 300, f"{name} is short again: take it off the list"
    else:
        assert lines <= 300, f"{name} has {lines} lines: split it, or list it with a reason"


def test_few_files_are_long():
    assert len(LONG) <= 3


def test_exemptions_are_needed():
    for name in FACTS:
        counts = [len(_fields(n)) for n in _nodes(PACKAGE / name, ast.ClassDef) if _is_dataclass(n)]
        assert max(counts) > MOST, f"{name} holds no large value: take it off the list"
    for name, function in DOORS:
        assert any(n.name == function for n in _nodes(PACKAGE / name, ast.FunctionDef))
