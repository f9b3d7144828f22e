"""Methods, files and documents agree with each other and with the rules of the house."""

import importlib
import inspect
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import expunge.methods
from expunge.methods import METHODS, Method
from expunge.testing import check_method, contract_checks

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "expunge"
SOURCES = sorted(PACKAGE.rglob("*.py"))
OWN = {"__init__.py", "__pycache__"}


def _modules_below(package):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def _concrete(module):
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    ]


def _method_modules():
    return [module for module in _modules_below(expunge.methods) if _concrete(module)]


def test_methods_is_the_list_of_all_concrete_methods():
    found = [cls for module in _method_modules() for cls in _concrete(module)]
    assert set(found) == set(METHODS)
    assert len(set(METHODS)) == len(METHODS)


def test_one_file_one_method():
    for module in _method_modules():
        assert len(_concrete(module)) == 1, f"{module.__name__} must hold exactly one method"


def test_method_names_are_unique_and_match_their_files():
    names = [cls.info.name for cls in METHODS]
    assert len(set(names)) == len(names)
    for cls in METHODS:
        below = cls.__module__.removeprefix("expunge.methods.")
        folder, _, file = below.rpartition(".")
        stem = folder.replace(".", "_") if file == "method" else file
        assert stem.replace("_", "") == cls.info.name.replace("-", ""), cls


def test_methods_have_only_defaults():
    for cls in METHODS:
        assert cls() == cls(), f"{cls.__name__}() must work: every field has a default"


@pytest.mark.parametrize("module", _method_modules(), ids=lambda m: m.__name__)
def test_method_files_say_what_why_and_from_where(module):
    text = " ".join((module.__doc__ or "").split())
    assert re.search(r"\bEquation\b|←|=", text), "give the equation or the formula"
    assert "Reference" in text, "give the reference"
    assert "What we do differently" in text, "say what differs from it"


@pytest.mark.parametrize("cls", METHODS, ids=lambda c: c.info.name)
def test_every_method_has_its_page(cls):
    page = ROOT / "docs" / "methods" / f"{cls.info.name}.md"
    assert page.is_file(), f"write docs/methods/{page.name}"
    assert cls.__name__ in page.read_text()


def test_every_page_has_its_method():
    names = {cls.info.name for cls in METHODS}
    pages = {page.stem for page in (ROOT / "docs" / "methods").glob("*.md")}
    assert pages - {"index", "README"} <= names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_has_a_docstring(path):
    import ast

    if path.read_text().strip():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} needs a docstring"


def test_no_private_module_stands_at_the_root():
    assert [path.name for path in PACKAGE.glob("_*") if path.name not in OWN] == []


def _tracked():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_no_absolute_paths():
    pattern = re.compile(r"(?<![\w.:/<~-])/(?:home|root|Users|work|tmp|mnt|opt)/\w")
    wrong = []
    for path in _tracked():
        if not path.is_file() or path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not wrong, "\n".join(wrong)


def test_public_checks_are_the_ones_that_run():
    names = [check.name for check in contract_checks(METHODS[0]())]
    assert len(set(names)) == len(names)
    assert callable(check_method)


TWICE = {}
"""Class names that stand twice, each with the reason: none now."""


def _classes():
    """Every public class and the modules that define one of that name."""
    import ast

    found = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    return found


def test_a_class_name_means_one_thing():
    shared = {name: files for name, files in _classes().items() if len(files) > 1}
    assert shared.keys() <= TWICE.keys(), {n: f for n, f in shared.items() if n not in TWICE}
    assert TWICE.keys() <= shared.keys(), "take off the list what stands once"
