"""The package face: lazy, complete, and usable where torch is not installed."""

import importlib
import subprocess
import sys

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


def _run(script):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )


def test_every_public_name_is_real():
    for name in expunge.__all__:
        assert getattr(expunge, name) is not None, name
    assert len(set(expunge.__all__)) == len(expunge.__all__)


def test_names_come_from_the_modules_that_define_them():
    names = [name for names in expunge._HOME.values() for name in names]
    assert sorted(names) == sorted(expunge.__all__)
    for module, names in expunge._HOME.items():
        assert set(names) <= set(importlib.import_module(module).__all__)
    assert set(expunge.__all__) <= set(dir(expunge))


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'forget_me'"):
        expunge.forget_me  # noqa: B018


def test_type_checkers_see_the_same_names():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(expunge.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in guarded.body for alias in node.names}
    assert seen == set(expunge.__all__)


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


def test_every_module_names_its_public_face():
    import pkgutil

    for found in pkgutil.walk_packages(expunge.__path__, "expunge."):
        if found.name.startswith("expunge.cli"):
            continue
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name} exports {name} and lacks it"
