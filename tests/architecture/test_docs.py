"""Documents: generated parts are fresh, links resolve, examples run, quoted commands exist."""

import dataclasses
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
import typer

import expunge
from expunge.cli.init import template
from expunge.cli.main import app
from expunge.methods import METHODS
from expunge.reasons import Reason
from expunge.records import Outcome, OutcomeReport

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
COMMANDS = typer.main.get_command(app).commands


def _name(path):
    return str(path.relative_to(ROOT))


def _blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def _generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_documents_are_fresh():
    for path, text in _generator().wanted().items():
        assert path.is_file(), f"{_name(path)} is missing: run `make docs`"
        assert path.read_text() == text, f"{_name(path)} is stale: run `make docs`"


def test_matrix_names_every_method():
    text = (ROOT / "docs" / "matrix.md").read_text()
    for cls in METHODS:
        assert f"[{cls.info.name}](methods/{cls.info.name}.md)" in text


def test_the_audit_page_names_every_reason_with_its_outcome():
    text = (ROOT / "docs" / "audit.md").read_text()
    for reason in Reason:
        assert f"| `{reason.value}` | `{Outcome(reason.outcome).value}` | " in text


def test_a_reason_stands_with_its_own_outcome():
    with pytest.raises(AssertionError, match="class-gone is a reason for done"):
        OutcomeReport.of(Outcome.WRECKED, Reason.CLASS_GONE, left=0.0, change=0.0)


def test_method_pages_name_every_field():
    for cls in METHODS:
        text = (ROOT / "docs" / "methods" / f"{cls.info.name}.md").read_text()
        prose = text.partition("<!-- end -->")[2]
        for field in dataclasses.fields(cls):
            assert f"`{field.name}" in prose, f"{cls.info.name}.md: explain `{field.name}`"
        for heading in ("Equation", "What we do differently", "What it cannot show", "In a job"):
            assert f"## {heading}" in text, f"{cls.info.name}.md has no section {heading!r}"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_relative_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        place = (path.parent / target.partition("#")[0]).resolve()
        assert place.exists(), f"{_name(path)} links to {target}, which is not there"
        assert place.is_relative_to(ROOT), f"{_name(path)} links outside: {target}"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_quoted_commands_exist(path):
    text = path.read_text()
    quoted = re.findall(r"`(expunge [^`\n]+)`", text)
    quoted += [f[1] for f in re.findall(r"^(```\n)?(expunge [a-z].*)$", text, re.MULTILINE)]
    for line in quoted:
        words = shlex.split(line, comments=True)
        assert words[1] in COMMANDS, f"{_name(path)} quotes `{line}`, which is no command"
        known = {o for p in COMMANDS[words[1]].params for o in p.opts}
        for word in words[2:]:
            assert not word.startswith("--") or word in known, f"{_name(path)}: {word} in `{line}`"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_public_names_in_python_snippets_exist(path):
    for block in _blocks(path, "python"):
        compile(block, _name(path), "exec")
        for name in re.findall(r"\bexpunge\.([A-Za-z_]\w*)", block):
            assert hasattr(expunge, name) or (ROOT / "src" / "expunge" / name).is_dir(), name


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_job_snippets_use_known_keys(path):
    known = _job_keys()
    by_name = {cls.info.name: {f.name for f in dataclasses.fields(cls)} for cls in METHODS}
    for block in _blocks(path, "toml"):
        for table, values in tomllib.loads(block).items():
            assert table in known, f"{_name(path)}: unknown table or key {table!r}"
            if not isinstance(values, dict):
                continue
            allowed = known[table]
            if table == "method":
                allowed = {"name"} | by_name[values["name"]]
            assert set(values) <= allowed, f"{_name(path)}: unknown keys in [{table}]"


def _job_keys():
    """Tables and keys of the template of `expunge init`, commented ones included."""
    keys, table = {}, None
    for line in template().splitlines():
        plain = re.sub(r"^# ", "", line)
        if found := re.match(r"\[(\w+)\]", plain):
            table = found[1]
            keys[table] = set()
        elif found := re.match(r"(\w+) = ", plain):
            keys.setdefault(found[1], set()) if table is None else keys[table].add(found[1])
    return keys


def test_job_page_explains_every_key():
    text = (ROOT / "docs" / "job.md").read_text()
    for table, keys in _job_keys().items():
        for key in keys or {table}:
            assert f"`{key}`" in text or f"`{key} = " in text, f"job.md does not explain {key}"


def test_readme_example_runs(capsys):
    (example,) = _blocks(ROOT / "README.md", "python")
    assert "epochs=30" in example
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(example.replace("epochs=30", "epochs=8"), {"__name__": "readme"})
    said = capsys.readouterr().out
    assert said.startswith("done because")
    assert "% of unseen threes are still recognised" in said


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_pages_stay_inside_the_repository(path):
    text = path.read_text()
    assert ".." + "/shared" not in text
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert all(len(line) <= 105 or "|" in line or "http" in line for line in prose.splitlines())
    assert "<!-- figures:" not in text, "fill in what the command printed"
