"""Write what follows from the code: the matrix, methods' facts, reasons, names for type checkers.

    python -m docs.generate

Everything comes from `MethodInfo`, the fields of the methods and `Reason`, so that it is said once.
What is written stands between two comment lines, which stay; the rest of a page or module is left
alone. A test fails where a file is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import expunge
from expunge.reasons import Reason
from expunge.settings import facts_of

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "src" / "expunge"
BEGIN = "<!-- written by: python -m docs.generate -->"
END = "<!-- end -->"
CODE_BEGIN = "# written by: python -m docs.generate"
CODE_END = "# end"
WIDTH = 100

_MATRIX = """\
# The methods side by side

{begin}

| method | what it does | needs | aim | for | supports at most | structure | buffers | seed | cost |
|---|---|---|---|---|---|---|---|---|---|
{rows}

{end}

How to read it:

- **needs**: what a run refuses to start without. `statistics` is met by feature statistics made
  earlier, or by training data, from which they are then made. `head` is a final linear layer whose
  output is the logits. `prototype-surgery` with `anchor = "retain"` also needs `retain`.
- **aim**: `absent`, the class is gone; `unseen`, records of a class that stays are treated as never
  seen.
- **supports at most**: the ceiling of what the method can be used to claim, not what a run
  achieved. `outputs`: the model answers like a retrained one. `features`: the forget data are no
  easier to recover from the network than from a retrained one. `file`: the old model and the
  forgotten records cannot be rebuilt from what is shipped. The three are never blended.
- **structure** `same`: every tensor keeps its name, shape and dtype.
- **buffers**: whether batch-norm statistics may move.
- **seed**: whether the seed changes the result.

The same table on a terminal: `expunge methods`; with every setting: `expunge methods --json`.
Which method for which situation: [choose.md](choose.md).
"""


def matrix() -> str:
    """The text of matrix.md."""
    rows = []
    for method in expunge.METHODS:
        info = method.info
        cells = (
            f"[{info.name}](methods/{info.name}.md)",
            info.summary,
            method().needs_in_words(),
            _listed(info.aims),
            _listed(info.scopes),
            ", ".join(info.claims),
            info.structure,
            "may move" if info.changes_buffers else "unchanged",
            "matters" if info.stochastic else "no effect",
            info.cost,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return _MATRIX.format(begin=BEGIN, end=END, rows="\n".join(rows))


def page(method: type[expunge.Method], text: str) -> str:
    """The page of a method with its facts brought up to date; raises ValueError without marks."""
    return _between(text, (BEGIN, END), f"\n\n{_facts(method)}\n\n", f"{method.info.name}.md")


def reasons(text: str) -> str:
    """The page of the audit with the table of all reasons brought up to date."""
    lines = ["| code | outcome | what the reason says |", "|---|---|---|"]
    lines += [f"| `{r.value}` | `{r.outcome}` | {_open(r.sentence)} |" for r in Reason]
    return _between(text, (BEGIN, END), "\n\n" + "\n".join(lines) + "\n\n", "audit.md")


def _open(sentence: str) -> str:
    """A sentence with dots where it is filled in."""
    return re.sub("…+", "…", re.sub(r"\{[^}]*\}", "…", sentence))


def module(text: str, homes: Mapping[str, str], name: str) -> str:
    """A module with the imports that only type checkers read brought up to date.

    `homes` maps each class to the module it is imported from.
    """
    by_home = sorted((home, kind) for kind, home in homes.items())
    lines = "".join(_import(home, kind) for home, kind in by_home)
    return _between(text, (CODE_BEGIN, CODE_END), f"\nif TYPE_CHECKING:\n{lines}", name)


def _import(home: str, kind: str) -> str:
    line = f"    from {home} import {kind} as {kind}\n"
    if len(line) <= WIDTH + 1:
        return line
    return f"    from {home} import (\n        {kind} as {kind},\n    )\n"


def _between(text: str, marks: tuple[str, str], part: str, name: str) -> str:
    before, begin, rest = text.partition(f"{marks[0]}\n")
    _, end, after = rest.partition(f"{marks[1]}\n")
    if not begin or not end:
        raise ValueError(f"Expected the lines {marks[0]} and {marks[1]} in {name}.")
    return f"{before}{marks[0]}{part}{marks[1]}\n{after}"


def _facts(method: type[expunge.Method]) -> str:
    info, paper = method.info, method.info.paper
    source = f"{paper.authors}: {paper.title}. {paper.venue}."
    if paper.link:
        source += f" <{paper.link}>"
    lines = [
        "| | |",
        "|---|---|",
        f"| class | `expunge.{method.__name__}` |",
        f"| summary | {info.summary} |",
        f"| needs | {method().needs_in_words()} |",
        f"| aim | {_listed(info.aims)} |",
        f"| for | {_listed(info.scopes)} |",
        f"| supports at most | {', '.join(info.claims)} |",
        f"| buffers | {'may move' if info.changes_buffers else 'unchanged'} |",
        f"| seed | {'matters' if info.stochastic else 'no effect'} |",
        f"| cost | {info.cost} |",
        f"| rows read | {info.reads} |",
        *(
            f"| known not to hold | `{check}`: {reason} |"
            for check, reason in sorted(info.expected_failures.items())
        ),
        f"| paper | {source} |",
        "",
    ]
    fields = facts_of(method)
    if fields:
        lines += ["| field | default | values |", "|---|---|---|"]
        lines += [
            f"| `{name}` | `{_toml(facts['default'])}` | {_marked(facts['values'])} |"
            for name, facts in fields.items()
        ]
    else:
        lines.append("It has no fields.")
    return "\n".join(lines)


def _listed(values: frozenset[Any]) -> str:
    return ", ".join(sorted(values))


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _marked(words: str) -> str:
    """The words for a setting with its literal values marked as code."""
    quoted = re.sub(r'"[^"]*"', r"`\g<0>`", words)
    return re.sub(r"\bNone\b", "`None` (in Python only)", quoted)


def wanted() -> dict[Path, str]:
    """Every file that is written here, with the text it should hold."""
    audit = DOCS / "audit.md"
    files = {
        DOCS / "matrix.md": matrix(),
        audit: reasons(audit.read_text(encoding="utf-8")),
    }
    for method in expunge.METHODS:
        path = DOCS / "methods" / f"{method.info.name}.md"
        files[path] = page(method, path.read_text(encoding="utf-8"))
    homes = {method.__name__: method.__module__ for method in expunge.METHODS}
    for name, known in (
        ("__init__.py", dict.fromkeys(homes, "expunge.methods")),
        ("methods/__init__.py", homes),
    ):
        path = PACKAGE / name
        files[path] = module(path.read_text(encoding="utf-8"), known, f"expunge/{name}")
    return files


def main() -> None:
    """Write the files that are stale and name them."""
    for path, text in wanted().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stderr.write(f"wrote {path.relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    main()
