"""Made-up cases for the promises of an audit: small, fixed, of both scopes, rich and poor.

A full case has every part and three references; poorer ones lack references, parts, or the
original. No network is run: the logits are noise with a lead for the label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expunge.audits.base import Case, Part, RowSet
from expunge.judging.outputs import masked
from expunge.records import Scope, Standing

__all__ = ["MadeCase", "full_case", "made_cases", "rearranged"]

_CLASSES, _GONE = 5, 3
_REFERENCES = ("retrained-0", "retrained-1", "retrained-2")


@final
@dataclass(frozen=True, slots=True)
class MadeCase:
    """A case and what is special about it, in words."""

    words: str
    case: Case


def made_cases() -> tuple[MadeCase, ...]:
    """Every case of both scopes, the full one first in each; made anew at each call."""
    return tuple(made for scope in get_args(Scope) for made in _of(scope))


def full_case(scope: Scope) -> Case:
    """Every part, the original, and three references."""
    labels = _labels(scope)
    draw = torch.Generator().manual_seed(11 if scope == "classes" else 12)
    gone = frozenset({_GONE} if scope == "classes" else ())
    seen = {part: {"before": _logits(own, 3.0, draw)} for part, own in labels.items()}
    for part, own in labels.items():
        fresh = part.startswith("forget")
        seen[part]["after"] = _logits(own, 0.0 if fresh else 2.5, draw)
        if scope == "classes":
            seen[part]["mask-class"] = masked(seen[part]["before"], gone)
        for name in _REFERENCES:
            seen[part][name] = _logits(own, 0.5 if fresh else 2.5, draw)
    return Case(
        aim="absent" if scope == "classes" else "unseen",
        scope=scope,
        gone=gone,
        classes=_CLASSES,
        subjects=tuple(seen["others"]),
        standing=tuple(Standing(reference=name, level="C1") for name in _REFERENCES),
        parts={part: RowSet(own, seen[part]) for part, own in labels.items()},
        seed=7,
    )


def _labels(scope: Scope) -> Mapping[Part, Int[Tensor, " rows"]]:
    stays = torch.tensor([c for c in range(_CLASSES) if c != _GONE])
    if scope == "classes":
        gone = torch.tensor([_GONE])
        return {
            "forget-train": gone.repeat(30),
            "forget-test": gone.repeat(25),
            "others": stays.repeat(20),
        }
    own = torch.tensor([0, 1, 4])
    return {
        "forget-train": own.repeat(8),
        "forget-test": own.repeat(15),
        "others": torch.arange(_CLASSES).repeat(18),
        "retained": torch.arange(_CLASSES).repeat(12),
        "retained-same": own.repeat(12),
    }


def _logits(
    labels: Int[Tensor, " rows"], lead: float, draw: torch.Generator
) -> Float[Tensor, "rows classes"]:
    noise = torch.randn(len(labels), _CLASSES, generator=draw)
    return noise + lead * torch.nn.functional.one_hot(labels, _CLASSES)


def _of(scope: Scope) -> list[MadeCase]:
    full = full_case(scope)
    made = [
        MadeCase("every part, three references", full),
        MadeCase("one reference", _less(full, *_REFERENCES[1:])),
        MadeCase("no reference", _less(full, *_REFERENCES)),
        MadeCase("a reference that nothing shows to be one", _doubted(full)),
        MadeCase("no original", _less(full, "before", "mask-class")),
        MadeCase("nothing changed", _replaced(full, "before")),
        MadeCase("all but one row as retrained", _less(_nearly(full), *_REFERENCES[1:])),
        MadeCase("one row a part", _chosen(full, {p: torch.arange(1) for p in full.parts})),
        MadeCase("forget rows alone", _with_parts(full, {"forget-train"})),
        MadeCase("no rows at all", _with_parts(full, set())),
        *(MadeCase(f"no {p}", _with_parts(full, set(full.parts) - {p})) for p in full.parts),
    ]
    if scope == "classes":
        made.append(MadeCase("the edited model lacks the output", _replaced(full, "mask-class")))
    return [MadeCase(f"{scope}: {one.words}", one.case) for one in made]


def _less(full: Case, *lost: str) -> Case:
    """The case without some of its subjects."""
    subjects = tuple(name for name in full.subjects if name not in lost)
    standing = tuple(one for one in full.standing if one.reference not in lost)
    parts = {
        part: RowSet(rows.labels, {name: rows.logits[name] for name in subjects})
        for part, rows in full.parts.items()
    }
    return dataclasses.replace(full, subjects=subjects, standing=standing, parts=parts)


def _doubted(full: Case) -> Case:
    """The case with its first reference unverified."""
    first, *others = full.standing
    doubted = dataclasses.replace(first, level="unverified")
    return dataclasses.replace(full, standing=(doubted, *others))


def _replaced(full: Case, subject: str) -> Case:
    """The case with another subject's logits as those of the edited model."""
    parts = {
        part: RowSet(rows.labels, {**rows.logits, "after": rows.logits[subject].clone()})
        for part, rows in full.parts.items()
    }
    return dataclasses.replace(full, parts=parts)


def _nearly(full: Case) -> Case:
    """The case with an edited model that answers as the first reference, but for a row a part."""
    close = _replaced(full, _REFERENCES[0])
    for rows in close.parts.values():
        rows.logits["after"][0] = -rows.logits["after"][0]
    return close


def _with_parts(full: Case, names: set[Part]) -> Case:
    parts = {part: rows for part, rows in full.parts.items() if part in names}
    return dataclasses.replace(full, parts=parts)


def _chosen(case: Case, places: Mapping[Part, Int[Tensor, " some"]]) -> Case:
    """The case with some rows of each part, in this order."""
    parts = {
        part: RowSet(
            rows.labels[places[part]], {name: z[places[part]] for name, z in rows.logits.items()}
        )
        for part, rows in case.parts.items()
    }
    return dataclasses.replace(case, parts=parts)


def rearranged(case: Case) -> Case:
    """The same rows of each part in another order, as views into a larger batch."""
    draw = torch.Generator().manual_seed(5)
    orders = {p: torch.randperm(len(r.labels), generator=draw) for p, r in case.parts.items()}
    mixed = _chosen(case, orders)
    parts = {
        part: RowSet(_within(rows.labels), {name: _within(z) for name, z in rows.logits.items()})
        for part, rows in mixed.parts.items()
    }
    return dataclasses.replace(mixed, parts=parts)


def _within(rows: Tensor) -> Tensor:
    """The rows as every other row of a batch twice as long."""
    return rows.repeat_interleave(2, dim=0)[::2]
