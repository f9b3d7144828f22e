"""The paper that both prototype surgeries come from."""

from __future__ import annotations

from expunge.records import Paper

__all__ = ["PAPER"]

PAPER = Paper(
    title="Prototype Surgery (title of the released code: Modifying Neural Prototypes via "
    "Soft Labels for Enhanced Machine Unlearning Efficiency)",
    authors="see the proceedings",
    venue="ACM CCS 2025",
)
