"""Every audit keeps every promise; the public checks also find audits that break one."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from expunge.audits import AUDITS, Accuracy, Audit, AuditInfo
from expunge.audits.base import correct
from expunge.errors import ContractError
from expunge.records import Measurement, NotMeasured
from expunge.testing import audit_checks, check_audit
from expunge.testing.cases import full_case, made_cases

BROKEN: dict[tuple[str, str], str] = {}
"""Promises that an audit does not keep, each with its reason."""


def _cases():
    for cls in AUDITS:
        for check in audit_checks(cls()):
            reason = BROKEN.get((cls.info.name, check.name))
            marks = pytest.mark.xfail(strict=True, raises=ContractError, reason=reason)
            name = f"{cls.info.name}-{check.name}"
            yield pytest.param(check, marks=marks if reason else (), id=name)


@pytest.mark.parametrize("check", list(_cases()))
def test_audit_keeps_its_promise(check):
    check()


# --- the checks find what is wrong ---------------------------------------------------------------


class _Counter:
    def __init__(self):
        self.calls = 0

    def next(self):
        self.calls += 1
        return self.calls


CALLS = _Counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Honest(Audit):
    """Accuracy on the judge rows of what stays, and the distance to the first reference."""

    fault: str = ""

    info: ClassVar[AuditInfo] = AuditInfo(
        name="honest", question="How much of what stays is recognised?", source="somebody else"
    )

    def measure(self, case):
        rows = case.part("others")
        if rows is None:
            if self.fault == "leaves out":
                return []
            if self.fault == "crashes":
                return [rows.labels]
            reason = "" if self.fault == "says no reason" else "there are no such rows"
            return [self._not("share", reason), self._not("gap", reason)]
        if self.fault == "says something else":
            return [0.5]
        share = 100.0 * float(correct(rows, "after").double().mean())
        if self.fault == "row order":
            share *= 1.0 if correct(rows, "after")[0] else 0.5
        if self.fault == "chance":
            share -= float(torch.rand(()))
        if self.fault == "counts its calls":
            share -= 1e-6 * CALLS.next()
        if self.fault == "writes":
            rows.logits["after"][0, 0] = 5.0
        if self.fault == "adds a subject":
            rows.logits["mine"] = rows.logits["after"]
        found = Measurement(
            audit=self.info.name if self.fault != "another name" else "else",
            name="share",
            subject="after",
            rows="others",
            value=float("nan") if self.fault == "nan" else share,
            n=0 if self.fault == "counts no rows" else len(rows.labels),
            unit="%",
            direction="higher",
            level="C1" if self.fault == "level" else "C4",
            interval=self._interval(share),
        )
        out = [found, self._gap(case, found)]
        return [*out, found] if self.fault == "twice" else out

    def _interval(self, share):
        if self.fault == "beside the value":
            return share + 1e-3, 100.0
        return share - 1.0, 100.5 if self.fault == "above all" else 100.0

    def _gap(self, case, found):
        if not case.references:
            return self._not("gap", "no retrained model was given")
        rows = case.part("others")
        theirs = 100.0 * float(correct(rows, case.references[0]).double().mean())
        gap = found.value - theirs
        level = "C1" if self.fault == "trusts all" else case.level()
        return replace(found, name="gap", value=gap, unit="points", level=level, interval=None)

    def _not(self, name, reason):
        return NotMeasured(
            audit=self.info.name, name=name, subject="after", rows="others", reason=reason
        )


def _checks(audit):
    return {check.name: check for check in audit_checks(audit)}


def test_an_honest_audit_passes():
    check_audit(Honest())


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("says something else", "facts_only", "Measurement or NotMeasured only, got .'float'"),
        ("another name", "facts_only", "a figure calls its audit 'else'"),
        ("crashes", "facts_only", r"with a reason for what cannot be measured, got AttributeError"),
        (
            "leaves out",
            "nothing_left_out",
            r"nothing for share of after on others \(classes: forge",
        ),
        ("says no reason", "nothing_left_out", "expected a reason for share of after on others"),
        ("nan", "figures_finite", r"finite numbers, got \(nan"),
        ("beside the value", "interval_holds_value", "within its interval"),
        ("above all", "interval_holds_value", r"a rate within \[0, 100\], got"),
        ("counts no rows", "rows_counted", "n above 0, got 0"),
        ("level", "level_honest", r"level C1 without a reference .* \(classes: no reference\)"),
        ("trusts all", "level_honest", "level C1 against a reference that is unverified .*gap"),
        ("twice", "figures_named_once", "each figure once"),
        ("writes", "case_untouched", "the case changed"),
        ("adds a subject", "case_untouched", "the case changed"),
        ("chance", "same_case_same_figures", "the same case gave other figures"),
        ("counts its calls", "same_case_same_figures", "the same case gave other figures"),
        ("row order", "row_order_without_effect", "the order of rows"),
    ],
)
def test_a_fault_is_found_by_its_check(fault, check, words):
    with pytest.raises(ContractError, match=rf"Audit 'honest': .*{words}"):
        _checks(Honest(fault=fault))[check]()
    with pytest.raises(ContractError):
        check_audit(Honest(fault=fault))


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling(Honest):
    """Asks nothing."""

    info: ClassVar[AuditInfo] = AuditInfo(name="telling", question="It says.", source="me")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymous(Honest):
    """Has no source."""

    info: ClassVar[AuditInfo] = AuditInfo(name="anonymous", question="Who?", source=" ")


@dataclass
class Loose(Audit):
    """Can be changed."""

    share: float = 0.5
    info: ClassVar[AuditInfo] = AuditInfo(name="loose", question="Who?", source="me")

    def measure(self, case):
        return []


@dataclass(frozen=True, slots=True)
class Idle(Audit):
    """Never measures anything."""

    info: ClassVar[AuditInfo] = AuditInfo(name="idle", question="Who?", source="me")

    def measure(self, case):
        return []


@pytest.mark.parametrize(
    ("audit", "check", "words"),
    [
        (Telling(), "info_complete", "expected `info.question` to ask"),
        (Anonymous(), "info_complete", "expected `info.source` to say something"),
        (Loose(), "value_is_frozen", "expected a hashable value"),
        (Idle(), "facts_only", "nothing was measured on any case"),
    ],
)
def test_what_is_not_declared_is_found(audit, check, words):
    with pytest.raises(ContractError, match=words):
        _checks(audit)[check]()


# --- the made-up cases ---------------------------------------------------------------------------


def test_made_up_cases_are_of_both_scopes_with_and_without_references():
    cases = [made.case for made in made_cases()]
    for scope in ("classes", "records"):
        mine = [case for case in cases if case.scope == scope]
        parts = set(full_case(scope).parts)
        assert {len(case.references) for case in mine} == {0, 1, 3}
        assert {part for case in mine for part in parts - set(case.parts)} == parts
    assert len({made.words for made in made_cases()}) == len(cases)


def test_made_up_cases_are_what_the_door_makes():
    for made in made_cases():
        case = made.case
        for rows in case.parts.values():
            assert set(rows.logits) == set(case.subjects)
            assert all(z.shape == (len(rows.labels), case.classes) for z in rows.logits.values())
        assert set(case.references) <= set(case.subjects)
        assert "after" in case.subjects
        assert ("mask-class" in case.subjects) == ("before" in case.subjects and bool(case.gone))


def test_a_case_is_made_anew_each_time():
    before = Accuracy().measure(full_case("classes"))
    full_case("classes").parts["others"].logits["after"].zero_()
    assert Accuracy().measure(full_case("classes")) == before
