"""The promises every audit makes, checked on made-up cases, also for an audit of your own.

`check_audit(MyAudit())` runs them all; `audit_checks(MyAudit())` yields them one by one, for a
parametrised test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from expunge.audits.base import Audit
from expunge.testing.checking import Check
from expunge.testing.figures import (
    audit_frozen,
    case_untouched,
    facts_only,
    figures_finite,
    figures_named_once,
    interval_holds_value,
    level_honest,
    nothing_left_out,
    question_complete,
    row_order_without_effect,
    rows_counted,
    same_case_same_figures,
)

__all__ = ["audit_checks", "check_audit"]

_PROMISES: Mapping[str, Callable[[Audit], None]] = {
    "info_complete": question_complete,
    "value_is_frozen": audit_frozen,
    "facts_only": facts_only,
    "nothing_left_out": nothing_left_out,
    "figures_finite": figures_finite,
    "interval_holds_value": interval_holds_value,
    "rows_counted": rows_counted,
    "level_honest": level_honest,
    "figures_named_once": figures_named_once,
    "case_untouched": case_untouched,
    "same_case_same_figures": same_case_same_figures,
    "row_order_without_effect": row_order_without_effect,
}


def audit_checks(audit: Audit) -> Iterator[Check]:
    """Yield the checks that every audit must pass."""
    for name, promise in _PROMISES.items():
        yield Check(name, partial(promise, audit))


def check_audit(audit: Audit) -> None:
    """Run every check; raises ContractError at the first broken promise."""
    for check in audit_checks(audit):
        check()
