"""How many records, judge rows or references would settle what the data leave open."""

from __future__ import annotations

import math

import torch

from expunge.judging.signal import ENOUGH, Labels, Side, prediction_factor

__all__ = ["would_settle"]


_MOST = 1_000_000
_MOST_REFERENCES = 100


def would_settle(
    side: Side, away: float, labels: Labels, references: int, confidence: float
) -> str:
    """One sentence: what would make the half-width of the interval smaller than `away`.

    Against ½ the variance of an AUC falls as 1/records + 1/rows; against references it is their own
    spread, known the better the more there are.
    """
    half = (side.high - side.low) / 2
    if references >= ENOUGH:
        spread = half / prediction_factor(references, confidence)
        for count in range(references + 1, _MOST_REFERENCES + 1):
            if prediction_factor(count, confidence) * spread < away:
                return f"About {count} references would settle it"
        return "More references alone would not settle it: they differ too much among themselves"
    used = torch.isin(labels.forget, labels.judge)
    rows = int(torch.isin(labels.judge, labels.forget.unique()).sum())
    records = int(used.sum())
    factor = (half / away) ** 2 if away > 0 else math.inf
    wanted = (1 / records + 1 / rows) / factor if factor else math.inf
    if wanted > 1 / records:
        judge = _rounded(1 / (wanted - 1 / records))
        return f"About {judge} judge rows of their classes would settle it"
    if records * factor > _MOST:
        return "No number of rows that can be had would settle it; three retrained references may"
    many = f"{_rounded(records * factor)} records and {_rounded(rows * factor)} judge rows"
    return f"No holdout settles it for so few records: {many} would, or three retrained references"


def _rounded(count: float) -> str:
    """Two digits, rounded up: it is a rough figure."""
    scale = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return f"{math.ceil(count / scale) * scale:,}"
