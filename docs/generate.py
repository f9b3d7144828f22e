"""Write what the documents take from the code: the method matrix and each method's facts.

    python -m docs.generate

Everything comes from `MethodInfo` and the fields of the methods, so that it is said once. The
facts of a method page stand between two comment lines, which stay; the rest of the page is prose
and is left alone. A test fails where a file is stale.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import expunge

DOCS = Path(__file__).resolve().parent
BEGIN = "<!-- written by: python -m docs.generate -->"
END = "<!-- end -->"

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
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"Expected the lines {BEGIN} and {END} in {method.info.name}.md.")
    return f"{before}{BEGIN}\n\n{_facts(method)}\n\n{END}{after}"


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
        f"| paper | {source} |",
        "",
    ]
    hints = get_type_hints(method)
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    if fields:
        lines += ["| field | default | values |", "|---|---|---|"]
        lines += [f"| `{f.name}` | `{_toml(f.default)}` | {_kind(hints[f.name])} |" for f in fields]
    else:
        lines.append("It has no fields.")
    return "\n".join(lines)


def _listed(values: frozenset[Any]) -> str:
    return ", ".join(sorted(values))


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _kind(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(hint))
    if get_args(hint):
        return " or ".join(_kind(part) for part in get_args(hint))
    if hint is type(None):
        return "`None` (in Python only)"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a text"}[hint]


def wanted() -> dict[Path, str]:
    """Every file that is written here, with the text it should hold."""
    files = {DOCS / "matrix.md": matrix()}
    for method in expunge.METHODS:
        path = DOCS / "methods" / f"{method.info.name}.md"
        files[path] = page(method, path.read_text(encoding="utf-8"))
    return files


def main() -> None:
    """Write the files that are stale and name them."""
    for path, text in wanted().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stderr.write(f"wrote {path.relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    main()
