"""Bias shift: how much of the change of the logits is one constant added to every row.

A bias alone can bring forget accuracy to zero without any change in what the network knows.
Equation: with Δ_i the change of row i's logits, centred over the classes, the share is
‖mean_i Δ_i‖² / mean_i ‖Δ_i‖² over all judge rows: 1 is a pure bias shift, 0 has no constant part.
Source: the bias dependence of unlearning methods is the subject of arXiv 2605.08730; this share is
our own, simpler figure, defined on outputs so that it serves edits of any layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from expunge.audits.base import Audit, AuditInfo, Case, Part
from expunge.records import Measurement, NotMeasured

__all__ = ["BiasShift"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BiasShift(Audit):
    """Share of the logit change, over judge rows, that is one constant vector."""

    info: ClassVar[AuditInfo] = AuditInfo(
        name="bias-shift",
        question="Is the change more than a constant added to the logits?",
        source="our definition; cf. arXiv 2605.08730 on bias dependence",
    )

    def measure(self, case: Case) -> Sequence[Measurement | NotMeasured]:
        """Measure the edited model against the original."""
        names: tuple[Part, ...] = ("forget-test", "others")
        parts = [rows for name in names if (rows := case.part(name)) is not None]
        if not parts:
            return [_not("there are no judge rows")]
        if "before" not in case.subjects:
            return [_not("the original model was not given")]
        change = torch.cat(
            [rows.logits["after"].double() - rows.logits["before"].double() for rows in parts]
        )
        if not bool(torch.isfinite(change).all()):
            return [_not("the edited model gives −inf for removed classes")]
        change = change - change.mean(1, keepdim=True)
        total = float(change.square().sum(1).mean())
        if total == 0.0:
            return [_not("the logits did not change")]
        return [
            Measurement(
                audit="bias-shift",
                name="bias_share",
                subject="after",
                rows="judge",
                value=100.0 * float(change.mean(0).square().sum()) / total,
                n=len(change),
                unit="%",
                direction="lower",
                level="C4",
            )
        ]


def _not(reason: str) -> NotMeasured:
    return NotMeasured(
        audit="bias-shift", name="bias_share", subject="after", rows="judge", reason=reason
    )
