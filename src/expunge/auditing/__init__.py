"""The door `audit`: measures, and judges the latest request again."""

from __future__ import annotations

from expunge.auditing.door import audit
from expunge.results.references import refuse_references
from expunge.results.report import AuditReport

__all__ = ["AuditReport", "audit", "refuse_references"]
