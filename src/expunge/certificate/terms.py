"""Numbers that maker and checker of a certificate share."""

from __future__ import annotations

__all__ = ["WIDEST"]

WIDEST = 2.0**-4
"""The widest bound around a target that a certificate may claim, in logits."""
