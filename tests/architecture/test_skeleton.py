"""The skeletons in CONTRIBUTING are whole: copied into a package, they keep every promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from expunge.testing import audit_checks, check_audit, contract_checks
from expunge.testing.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL
)
FILES = {"my_method.py": "class MyMethod(Method)", "my_audit.py": "class MyAudit(Audit)"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody's own, below the working directory."""
    folder = tmp_path / "tmp_pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for name, words in FILES.items():
        (block,) = [block for block in BLOCKS if words in block]
        (folder / name).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.partition(".")[0] == "tmp_pkg"]:
        del sys.modules[name]


def _run(*arguments, typed=""):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, input=typed
    )


def test_the_method_keeps_every_promise(package):
    done = _run("-m", "expunge.testing", "tmp_pkg.my_method:MyMethod")
    from tmp_pkg.my_method import MyMethod

    names = [check.name for check in contract_checks(MyMethod())]
    assert done.stdout.splitlines() == [f"kept  {name}" for name in names], done.stderr
    assert done.returncode == 0


def test_the_audit_keeps_every_promise(package, capsys):
    assert main(["tmp_pkg.my_audit:MyAudit"]) == 0
    from tmp_pkg.my_audit import MyAudit

    names = [check.name for check in audit_checks(MyAudit())]
    assert capsys.readouterr().out.splitlines() == [f"kept  {name}" for name in names]
    check_audit(MyAudit())


def test_the_method_is_read_where_torch_is_not_installed(package):
    done = _run("-c", "import sys; sys.modules['torch'] = None; import tmp_pkg.my_method")
    assert done.returncode == 0, done.stderr


def test_the_method_says_what_why_and_from_where(package):
    from tmp_pkg import my_method

    for word in ("Equation:", "Reference:", "What we do differently"):
        assert word in my_method.__doc__
    assert my_method.MyMethod.info.name.replace("-", "_") == "my_method"
    assert my_method.MyMethod() == my_method.MyMethod.small()


@pytest.mark.parametrize("name", FILES)
def test_the_skeletons_pass_the_gates(package, monkeypatch, name):
    monkeypatch.chdir(ROOT)
    place = f"--stdin-filename=src/expunge/{name}"
    for command in (("check", "--no-cache"), ("format", "--check", "--no-cache")):
        done = _run("-m", "ruff", *command, place, "-", typed=(package / name).read_text())
        assert done.returncode == 0, done.stdout
