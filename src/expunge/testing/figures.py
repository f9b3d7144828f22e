"""What an audit promises of its figures: facts only, nothing left out, plausible, repeatable."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch

from expunge.audits.base import Audit, Case
from expunge.errors import ContractError
from expunge.network.state import digest_of
from expunge.records import Measurement, NotMeasured
from expunge.runtime.randomness import isolated
from expunge.testing.cases import MadeCase, full_case, made_cases, rearranged
from expunge.testing.checking import CPU, require
from expunge.testing.declared import frozen, named

__all__ = [
    "audit_frozen",
    "case_untouched",
    "facts_only",
    "figures_finite",
    "figures_named_once",
    "interval_holds_value",
    "level_honest",
    "nothing_left_out",
    "question_complete",
    "row_order_without_effect",
    "rows_counted",
    "same_case_same_figures",
]

_Facts = Sequence[Measurement | NotMeasured]
_Key = tuple[str, str, str]
_KINDS = (Measurement, NotMeasured)

_RATES: Mapping[str, float] = {"%": 100.0, "AUC": 1.0}
"""The largest value of a rate, by its unit; the least is 0."""

_SLACK = 1e-9
_PER_CLASS = re.compile(r".*_\d+")
"""A figure a class, `class_3`: it exists where the class has rows."""


def _facts(audit: Audit, made: MadeCase) -> _Facts:
    """What the audit says of a case; an exception, or another kind of answer, breaks a promise."""
    try:
        facts = tuple(audit.measure(made.case))
    except Exception as error:
        raise ContractError(
            f"Audit {audit.info.name!r}: expected a NotMeasured with a reason for what cannot be "
            f"measured, got {type(error).__name__}: {error} ({made.words})"
        ) from error
    other = [type(fact).__name__ for fact in facts if not isinstance(fact, _KINDS)]
    require(not other, audit, f"expected Measurement or NotMeasured only, got {other[:1]}")
    return facts


def _measured(audit: Audit) -> Iterator[tuple[MadeCase, Measurement]]:
    """Every figure of every case."""
    for made in made_cases():
        for fact in _facts(audit, made):
            if isinstance(fact, Measurement):
                yield made, fact


def _key(fact: Measurement | NotMeasured) -> _Key:
    return fact.name, fact.subject, fact.rows


def _words(made: MadeCase, fact: Measurement | NotMeasured) -> str:
    return f"{fact.name} of {fact.subject} on {fact.rows} ({made.words})"


def question_complete(audit: Audit) -> None:
    """`info` names the audit, asks one question and gives its source."""
    named(audit)
    info = audit.info
    require(info.question.strip().endswith("?"), audit, "expected `info.question` to ask, with a ?")
    require(bool(info.source.strip()), audit, "expected `info.source` to say something, got none")


def audit_frozen(audit: Audit) -> None:
    """An audit is a frozen value: equal fields make equal, hashable audits."""
    frozen(audit)


def facts_only(audit: Audit) -> None:
    """Only Measurement and NotMeasured under the audit's own name, and on some case a figure."""
    for made in made_cases():
        for fact in _facts(audit, made):
            require(
                fact.audit == audit.info.name, audit, f"a figure calls its audit {fact.audit!r}"
            )
    require(any(True for _ in _measured(audit)), audit, "nothing was measured on any case")


def nothing_left_out(audit: Audit) -> None:
    """What a full case gives stands in every poorer case too, as a NotMeasured with a reason.

    By name and rows: which subjects there are depends on the case, and so does which classes have
    rows (figures a class end in the class's number).
    """
    for made in made_cases():
        facts = _facts(audit, made)
        for fact in facts:
            told = isinstance(fact, Measurement) or bool(fact.reason.strip())
            require(told, audit, f"expected a reason for {_words(made, fact)}, got none")
        there = {(fact.name, fact.rows) for fact in facts}
        scope = made.case.scope
        for fact in _facts(audit, MadeCase(f"{scope}: full", full_case(scope))):
            absent = (fact.name, fact.rows) not in there and not _PER_CLASS.fullmatch(fact.name)
            require(
                not absent,
                audit,
                f"expected a NotMeasured with a reason, got nothing for {_words(made, fact)}",
            )


def figures_finite(audit: Audit) -> None:
    """Values and the ends of intervals are finite numbers."""
    for made, fact in _measured(audit):
        numbers = (fact.value, *(fact.interval or ()))
        finite = all(math.isfinite(number) for number in numbers)
        require(finite, audit, f"expected finite numbers, got {numbers} for {_words(made, fact)}")


def interval_holds_value(audit: Audit) -> None:
    """An interval holds its value; rates and their intervals lie between 0 and all."""
    for made, fact in _measured(audit):
        low, high = fact.interval or (fact.value, fact.value)
        require(
            low - _SLACK <= fact.value <= high + _SLACK,
            audit,
            f"expected {fact.value} within its interval [{low}, {high}] for {_words(made, fact)}",
        )
        most = _RATES.get(fact.unit, math.inf)
        require(
            fact.unit not in _RATES or (low >= -_SLACK and high <= most + _SLACK),
            audit,
            f"expected a rate within [0, {most:g}], got [{low}, {high}] for {_words(made, fact)}",
        )


def rows_counted(audit: Audit) -> None:
    """Every figure says how many rows, or models, it rests on."""
    for made, fact in _measured(audit):
        require(fact.n > 0, audit, f"expected n above 0, got {fact.n} for {_words(made, fact)}")


def level_honest(audit: Audit) -> None:
    """No figure claims retrained models (C1) where none was given, or not all are shown to be some.

    `case.level()` says which level figures against the references have.
    """
    for made, fact in _measured(audit):
        honest = fact.level not in ("C1", "unverified") or bool(made.case.references)
        where = _words(made, fact)
        require(honest, audit, f"level {fact.level} without a reference for {where}")
        shown = fact.level != "C1" or made.case.level() == "C1"
        require(shown, audit, f"level C1 against a reference that is unverified for {where}")


def figures_named_once(audit: Audit) -> None:
    """Name, subject and rows together name one figure."""
    for made in made_cases():
        keys = [_key(fact) for fact in _facts(audit, made)]
        twice = [key for key in keys if keys.count(key) > 1]
        require(not twice, audit, f"expected each figure once, got two {twice[:1]} ({made.words})")


def _content(case: Case) -> dict[str, str]:
    return {
        part: digest_of({**rows.logits, "labels": rows.labels}) for part, rows in case.parts.items()
    }


def case_untouched(audit: Audit) -> None:
    """The case is the same afterwards, bit for bit."""
    for made in made_cases():
        before = _content(made.case)
        _facts(audit, made)
        require(_content(made.case) == before, audit, f"the case changed ({made.words})")


def same_case_same_figures(audit: Audit) -> None:
    """The case alone decides, whatever the global random state is."""
    for made in made_cases():
        said = []
        for seed in (1, 2):
            with isolated(seed, CPU):
                said.append(_facts(audit, made))
        require(said[0] == said[1], audit, f"the same case gave other figures ({made.words})")


def row_order_without_effect(audit: Audit) -> None:
    """Rows in another order, or cut from a larger batch, give the same figures to 1e-9."""
    for made in made_cases():
        first = _numbers(_facts(audit, made))
        second = _numbers(_facts(audit, MadeCase(made.words, rearranged(made.case))))
        require(
            first.keys() == second.keys() and all(_close(first[k], second[k]) for k in first),
            audit,
            f"the order of rows, or the batch they lie in, changes the figures ({made.words})",
        )


def _numbers(facts: _Facts) -> dict[_Key, tuple[float, ...]]:
    """Value, rows and interval of each figure; nothing where it was not measured."""
    return {
        _key(fact): (fact.value, fact.n, *(fact.interval or ()))
        if isinstance(fact, Measurement)
        else ()
        for fact in facts
    }


def _close(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return len(first) == len(second) and torch.allclose(
        torch.tensor(first, dtype=torch.float64),
        torch.tensor(second, dtype=torch.float64),
        rtol=0.0,
        atol=_SLACK,
    )
