"""The table of sabotage: models and inputs that were doctored, each with what must come of it.

A row is an action through the real doors, and the outcome and reason that it must end in, or the
error that refuses it. Nothing that forgot nothing, or the wrong thing, may be `done`. Rows marked
as a limit are what the rules do not see: they stand here so that nobody thinks otherwise. To add a
row, add a `Row` or a `Refused` to `sabotage_class.py`, `sabotage_records.py` or
`sabotage_audits.py`.
"""

import pytest
from sabotage_audits import AUDITS
from sabotage_class import A_CLASS
from sabotage_records import SOME_RECORDS
from sabotage_rows import Refused

from expunge.report.table import limits_line

pytestmark = pytest.mark.slow


def _parameters(at, rows):
    for row in rows:
        name = f"{at}: {row.name}{' (a limit)' if getattr(row, 'limit', '') else ''}"
        reason = getattr(row, "open", "")
        marks = pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)
        yield pytest.param(row, at, id=name, marks=marks if reason else ())


def _holds(row, result):
    found = result.outcome
    ends = row.ends if isinstance(row.ends, set) else {row.ends}
    why = row.why if isinstance(row.why, set) else {row.why}
    assert found.outcome in ends, found.reason
    assert found.why in why, found.reason
    said = [*result.record.notes, limits_line(result.record.limits)]
    assert any(row.says in words for words in said), said


@pytest.mark.parametrize(
    ("row", "at"),
    [
        *_parameters("class", A_CLASS),
        *_parameters("records", SOME_RECORDS),
        *_parameters("audit", AUDITS),
    ],
)
def test_sabotage(row, at, tmp_path):
    parts = (tmp_path,) if at == "audit" else ()
    if isinstance(row, Refused):
        with pytest.raises(row.error) as refusal:
            row.run(*parts)
        assert row.says in str(refusal.value)
    else:
        _holds(row, row.run(*parts))
