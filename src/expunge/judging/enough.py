"""How many records, judge rows or references would settle what the data leave open."""

from __future__ import annotations

import math

import torch

from expunge.judging.signal import ENOUGH, Labels, Side, prediction_factor

__all__ = ["would_settle"]


_MOST = 1_000_000
_MOST_REFERENCES = 100


def would_settle(
    side: Side, limit: float, labels: Labels, references: int, confidence: float
) -> str:
    """One sentence: what would bring the whole interval to one side of ± `limit`.

    Against ½ the variance of an AUC falls as 1/records + 1/rows; against references it is their own
    spread, known the better the more there are.
    """
    away = abs(abs(side.offset) - limit)
    inwards = abs(side.offset) < limit
    # the end that has to move: the far one to come inside, the near one to leave
    up, down = side.high - side.offset, side.offset - side.low
    half = max(up, down) if inwards else (down if side.offset > 0 else up)
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
        judge = _rounded(max(1 / (wanted - 1 / records), rows + 1))
        return f"About {judge} judge rows of their classes would settle it"
    if records * factor > _MOST:
        return "No number of rows that can be had would settle it; three retrained references may"
    more = max(factor, 2.0)
    many = f"{_rounded(records * more)} records and {_rounded(rows * more)} judge rows"
    return f"No holdout settles it for so few records: {many} would, or three retrained references"


def _rounded(count: float) -> str:
    """Two digits, rounded up: it is a rough figure."""
    scale = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return f"{math.ceil(count / scale) * scale:,}"
