"""Renderers of stored facts: text from records, without torch."""

from __future__ import annotations

from expunge.report.table import audit_rows, detail_rows, standing_rows

__all__ = ["audit_rows", "detail_rows", "standing_rows"]
