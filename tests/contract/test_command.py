"""`python -m expunge.testing METHOD`: a line a promise, and an exit code."""

import sys

import pytest

from expunge.testing.__main__ import main

METHODS = '''
from dataclasses import dataclass, replace

import torch

from expunge.methods import MaskClass, Method

INFO = MaskClass.info


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetful(MaskClass):
    """Unmasks again, which it says, and draws from the seed, which it does not say."""

    info = replace(
        INFO,
        name="forgetful",
        expected_failures={
            "class_forgotten": "it unmasks again",
            "sequence_stays_forgotten": "it unmasks again",
            "weights_finite": "a wrong guess",
        },
    )

    def apply(self, model, task, run):
        layer = run.needed_head.of(model)
        run.touched(len(task.forget))
        with torch.no_grad():
            layer.bias += 1e-3 * torch.rand(layer.bias.shape, generator=run.generator)
        if run.needed_head.features == 24:
            raise KeyError("dict\\nrows")
        return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Misspelt(MaskClass):
    info = replace(INFO, expected_failures={"effect": "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Needy(MaskClass):
    margin: float


class Vague(Method):
    info = INFO


class Nameless(Method):
    def apply(self, model, task, run):
        return model


NUMBER = 3.0
'''

AUDITS = """
from dataclasses import dataclass, replace

from expunge.audits import Accuracy, BiasShift


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubled(BiasShift):
    def measure(self, case):
        return [*BiasShift.measure(self, case)] * 2


class Outer:
    Inner = BiasShift


VALUE = BiasShift()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with modules of somebody's own."""
    (tmp_path / "their_methods.py").write_text(METHODS)
    (tmp_path / "their_audits.py").write_text(AUDITS)
    (tmp_path / "their_typo.py").write_text("import no_such_module\n")
    (tmp_path / "their_fault.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("their_")]:
        del sys.modules[name]


def test_a_method_is_checked_line_by_line(folder, capsys):
    assert main(["their_methods:Forgetful"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "kept  original_untouched" in lines
    assert "expected failure  class_forgotten: it unmasks again" in lines
    assert "expected failure  sequence_stays_forgotten: it unmasks again" in lines
    assert (
        "broken  seed_without_effect: Method 'forgetful': the seed matters, but `info.stochastic` "
        "is not declared" in lines
    )
    assert (
        "broken  weights_finite: Method 'forgetful': `weights_finite` is expected to fail, but "
        "passes: take it off `info.expected_failures`" in lines
    )
    assert "broken  dict_rows_served_or_refused: KeyError: 'dict\\nrows'" in lines
    assert all(line.startswith(("kept  ", "broken  ", "expected failure  ")) for line in lines)


@pytest.mark.parametrize(
    "name", ["their_audits:VALUE", "their_audits:Outer.Inner", "expunge.audits:Membership"]
)
def test_an_audit_is_checked(folder, capsys, name):
    path = list(sys.path)
    assert main([name]) == 0
    said = capsys.readouterr()
    assert {line.partition("  ")[0] for line in said.out.splitlines()} == {"kept"}
    assert said.err == ""
    assert sys.path == path


def test_an_audit_that_breaks_a_promise_is_told(folder, capsys):
    assert main(["their_audits:Doubled"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (broken,) = [line for line in lines if not line.startswith("kept")]
    assert broken.startswith("broken  figures_named_once: Audit 'bias-shift': expected each figure")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MaskClass", "Expected METHOD as \"package.module:name\", got 'MaskClass'"),
        ("their_methods", 'Expected METHOD as "package.module:name"'),
        ("no_such_package.module:name", "'no_such_package.module', which is not found. Install"),
        ("their_typo:Name", "raised ModuleNotFoundError: No module named 'no_such_module'. Fix"),
        ("their_fault:Name", "raised ZeroDivisionError: division by zero. Fix the module."),
        ("their_methods:Forgetfull", "got 'Forgetfull', which is not there. Did you mean 'Forget"),
        ("their_methods:NUMBER", "a Method or an Audit, a class or a value, got 'their_methods:NU"),
        ("expunge.methods:Method", "got 'expunge.methods:Method' without apply. Define it."),
        ("their_methods:Vague", "without apply. Define it."),
        ("their_methods:Nameless", "Expected Nameless to say what it is in `info`, got none. Give"),
        ("their_methods:Needy", "Expected Needy() to work with defaults alone, but"),
        ("their_methods:Misspelt", "`info.expected_failures` to name checks that apply to 'mask-"),
    ],
)
def test_what_cannot_be_checked_is_refused(folder, capsys, name, words):
    assert main([name]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_one_name_is_asked_for(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: python -m expunge.testing [-h] METHOD" in capsys.readouterr().err
