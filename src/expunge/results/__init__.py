"""What the doors return and run folders hold."""

from __future__ import annotations

from expunge.results.forgotten import Forgotten
from expunge.results.report import AuditReport
from expunge.results.unlearned import Unlearned

__all__ = ["AuditReport", "Forgotten", "Unlearned"]
