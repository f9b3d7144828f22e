"""Rows of one data set, joined."""

from __future__ import annotations

import torch

from expunge.data.rows import Rows
from expunge.errors import (
    ContractError,
)

__all__ = ["joined"]


def joined(first: Rows, second: Rows) -> Rows:
    """Rows of one data set in one view."""
    if first.read is not second.read:
        raise ContractError("Expected forget and retain rows of one data set. This is our bug.")
    return Rows(
        torch.cat([first.labels, second.labels]),
        first.ids + second.ids,
        torch.cat([first.index, second.index]),
        first.read,
    )
