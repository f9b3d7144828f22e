"""The package face: lazy, complete, and usable where torch is not installed."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import expunge

BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Refuse())
"""


def _run(script, **where):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, **where
    )


def test_every_public_name_is_real():
    for name in expunge.__all__:
        assert getattr(expunge, name) is not None, name
    assert len(set(expunge.__all__)) == len(expunge.__all__)


def test_names_come_from_the_modules_that_define_them():
    names = [name for names in expunge._HOME.values() for name in names]
    methods = [method.__name__ for method in expunge.METHODS]
    assert sorted(names + methods) == sorted(expunge.__all__)
    for module, names in expunge._HOME.items():
        assert set(names) <= set(importlib.import_module(module).__all__)
    assert set(expunge.__all__) <= set(dir(expunge))


def test_the_methods_are_listed_once():
    home = importlib.import_module("expunge.methods")
    own = {method.__name__: method for method in home.METHODS}
    assert set(home.__all__) == {*own, "METHODS", "Before", "Method", "Progress"}
    for name, method in own.items():
        assert getattr(home, name) is method
        assert getattr(expunge, name) is method
        assert not any(name in names for names in expunge._HOME.values())


def test_everything_public_can_be_taken_at_once():
    script = "from expunge import *\nimport expunge\nassert set(expunge.__all__) <= set(dir())\n"
    done = _run(script)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'forget_me'"):
        expunge.forget_me  # noqa: B018


def _guarded(module):
    """The names that only type checkers import in a module."""
    tree = ast.parse(Path(module.__file__).read_text())
    guards = [node for node in tree.body if isinstance(node, ast.If)]
    assert all(node.test.id == "TYPE_CHECKING" for node in guards)
    return sorted(alias.asname for g in guards for node in g.body for alias in node.names)


def test_type_checkers_see_the_same_names():
    assert _guarded(expunge) == sorted(expunge.__all__)
    home = importlib.import_module("expunge.methods")
    assert _guarded(home) == sorted(method.__name__ for method in home.METHODS)


PAPER_SIDE = ("expunge", "expunge.records", "expunge.errors", "expunge.report")


def test_paper_side_imports_without_torch():
    script = BLOCKED.format(blocked={"torch"})
    script += f"import importlib\nfor name in {PAPER_SIDE!r}: importlib.import_module(name)\n"
    script += "assert not any(m == 'torch' or m.startswith('torch.') for m in sys.modules)\n"
    script += "import expunge; expunge.RunRecord, expunge.Outcome, expunge.ExpungeError\n"
    done = _run(script)
    assert done.returncode == 0, done.stderr


def test_records_and_errors_need_the_standard_library_only():
    script = BLOCKED.format(blocked={"torch", "numpy", "scipy", "safetensors", "jaxtyping"})
    script += "import expunge, expunge.records, expunge.errors\n"
    done = _run(script)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_torch():
    done = _run("import sys, expunge\nassert 'torch' not in sys.modules\n")
    assert done.returncode == 0, done.stderr


COMMAND = "from expunge.cli.main import main\nraise SystemExit(main({arguments!r}))\n"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["methods", "--help"], ["methods"], ["methods", "--json"], ["init", "new.toml"]],
    ids=" ".join,
)
def test_what_lists_the_methods_starts_without_torch(arguments, tmp_path):
    script = BLOCKED.format(blocked={"torch", "numpy", "scipy", "jaxtyping"})
    done = _run(script + COMMAND.format(arguments=arguments), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [method.info.name for method in expunge.METHODS]
    if arguments[-1] == "--json":
        assert [facts["name"] for facts in json.loads(done.stdout)] == names
    elif arguments == ["methods"]:
        assert all(name in done.stdout for name in names)
    elif arguments[0] == "init":
        assert ", ".join(names) in (tmp_path / "new.toml").read_text()


def test_every_module_names_its_public_face():
    import pkgutil

    for found in pkgutil.walk_packages(expunge.__path__, "expunge."):
        if found.name.startswith("expunge.cli"):
            continue
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name} exports {name} and lacks it"
