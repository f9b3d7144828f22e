"""The audits, one question each. `AUDITS` is written by hand."""

from __future__ import annotations

from expunge.audits.accuracy import Accuracy
from expunge.audits.base import Audit, AuditInfo, Case, Part, RowSet
from expunge.audits.bias_shift import BiasShift
from expunge.audits.divergence import Divergence
from expunge.audits.membership import Membership

__all__ = [
    "AUDITS",
    "Accuracy",
    "Audit",
    "AuditInfo",
    "BiasShift",
    "Case",
    "Divergence",
    "Membership",
    "Part",
    "RowSet",
]

AUDITS: tuple[type[Audit], ...] = (Accuracy, Divergence, BiasShift, Membership)
