"""Which promises a method makes, and all of them checked, also on a method of your own.

`check_method(MyMethod())` runs them all; `contract_checks(MyMethod())` yields them one by one, for
a parametrised test. Which checks apply follows from `method.info` and `method.needs_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import get_args

from expunge.errors import InputError
from expunge.methods.base import Method
from expunge.records import Scope
from expunge.testing.checking import Check, turned
from expunge.testing.declared import info_complete, record_complete, value_is_frozen
from expunge.testing.effect import class_forgotten, sequence_stays_forgotten
from expunge.testing.needs import missing_needs_refused, retain_never_read
from expunge.testing.randomness import (
    global_randomness_untouched,
    same_seed_same_bytes,
    seed_without_effect,
)
from expunge.testing.refusals import (
    bad_requests_refused,
    cnn_served,
    dict_rows_served_or_refused,
    unsupported_refused,
)
from expunge.testing.saved import saved_run_reloads
from expunge.testing.shared import Subject
from expunge.testing.untouched import (
    buffers_unchanged,
    clean_after_an_exception,
    gradients_cleared,
    layout_kept,
    no_hooks_left,
    original_untouched,
    weights_finite,
)

__all__ = ["check_method", "contract_checks", "expected_to_fail", "strict_checks"]

_Promise = Callable[[Subject], None]

_ONCE: tuple[_Promise, ...] = (
    info_complete,
    value_is_frozen,
    bad_requests_refused,
    unsupported_refused,
)
"""Checked once a method, whatever it serves."""

_EACH: tuple[_Promise, ...] = (
    cnn_served,
    original_untouched,
    no_hooks_left,
    clean_after_an_exception,
    weights_finite,
    gradients_cleared,
    same_seed_same_bytes,
    global_randomness_untouched,
    record_complete,
    missing_needs_refused,
    dict_rows_served_or_refused,
    saved_run_reloads,
    layout_kept,
    buffers_unchanged,
    seed_without_effect,
    retain_never_read,
    class_forgotten,
    sequence_stays_forgotten,
)
"""Checked with each kind of request that the method serves, where they apply to it."""


def _of_a_class(subject: Subject) -> bool:
    return subject.scope == "classes" and "absent" in subject.info.aims


_WHERE: Mapping[_Promise, Callable[[Subject], bool]] = {
    layout_kept: lambda subject: subject.info.structure == "same",
    buffers_unchanged: lambda subject: not subject.info.changes_buffers,
    seed_without_effect: lambda subject: not subject.info.stochastic,
    retain_never_read: lambda subject: "retain" not in subject.needs,
    class_forgotten: _of_a_class,
    sequence_stays_forgotten: _of_a_class,
}
"""What else must hold of the method and the kind of request; nothing where a promise is missing."""


def contract_checks(method: Method) -> Iterator[Check]:
    """Yield the checks that apply to `method`, chosen by its `info` and `needs_for`.

    A method that serves classes and records is checked with both: the names of checks with records
    end in `_on_records`.
    """
    known: tuple[Scope, ...] = get_args(Scope)
    scopes = tuple(scope for scope in known if scope in method.info.scopes) or known[:1]
    for scope in scopes:
        subject = Subject(method, scope)
        first = scope == scopes[0]
        for promise in (*_ONCE, *_EACH) if first else _EACH:
            if promise not in _WHERE or _WHERE[promise](subject):
                name = promise.__name__ if first else f"{promise.__name__}_on_{scope}"
                yield Check(name, partial(promise, subject))


def expected_to_fail(method: Method, more: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Names of checks that `method.info` or `more` expect to fail, with the reason.

    Raises InputError for names of checks that do not apply to the method.
    """
    failures = {**method.info.expected_failures, **(more or {})}
    names = [check.name for check in contract_checks(method)]
    unknown = sorted(set(failures) - set(names))
    if unknown:
        raise InputError(
            f"Expected `{_said_in(unknown[0], more)}` to name checks that apply to "
            f"{method.info.name!r}, got {unknown[0]!r}; these do: {', '.join(names)}."
        )
    return failures


def _said_in(name: str, more: Mapping[str, str] | None) -> str:
    return "expected_failures" if name in (more or {}) else "info.expected_failures"


def strict_checks(
    method: Method, *, expected_failures: Mapping[str, str] | None = None
) -> Iterator[Check]:
    """Yield the checks that apply; those expected to fail are turned round, and none is left out.

    `expected_failures` maps names of checks to reasons, beyond `info.expected_failures`.
    """
    failures = expected_to_fail(method, expected_failures)
    for check in contract_checks(method):
        if check.name in failures:
            yield turned(check, method, _said_in(check.name, expected_failures))
        else:
            yield check


def check_method(method: Method, *, expected_failures: Mapping[str, str] | None = None) -> None:
    """Run every check that applies; raises ContractError at the first surprise.

    A check named in `info.expected_failures`, or in `expected_failures` (for a variant that keeps
    less than the defaults), must fail; one that passes is a surprise too. Unknown names there are
    refused with an InputError.
    """
    for check in strict_checks(method, expected_failures=expected_failures):
        check()
