"""Distance to retrained models on test data of the forgotten class, beside the trivial mask.

Equation: mean over rows and retrained models of JS(softmax z, softmax z_r) in bits (0 the same, 1
disjoint), and the share of rows with the same most likely class. Source: J. Lin, "Divergence
Measures Based on the Shannon Entropy", IEEE T-IT 1991. Released code often divides by the number
of classes too (`F.kl_div` with reduction `mean`) and so prints values smaller by that factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from expunge.audits.base import Audit, AuditInfo, Case, RowSet
from expunge.functional.divergence import agreement, jensen_shannon
from expunge.functional.intervals import mean_interval
from expunge.records import Level, Measurement, NotMeasured

__all__ = ["Divergence"]

_MEASURES = (
    ("js_to_retrained", "bits", "lower"),
    ("agreement_with_retrained", "%", "higher"),
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence(Audit):
    """JS divergence from, and argmax agreement with, retrained models on forget-class test rows."""

    info: ClassVar[AuditInfo] = AuditInfo(
        name="divergence",
        question="Does the model answer on the forgotten class as a retrained model does?",
        source="J. Lin, IEEE Transactions on Information Theory 1991",
    )

    def measure(self, case: Case) -> Sequence[Measurement | NotMeasured]:
        """Measure every subject, and the retrained models against each other."""
        rows = case.part("forget-test")
        if rows is None or not case.references:
            reason = "there are no such rows" if rows is None else "no retrained model was given"
            return [
                NotMeasured(
                    audit="divergence", name=n, subject="after", rows="forget-test", reason=reason
                )
                for n, _, _ in _MEASURES
            ]
        own = [s for s in case.subjects if s not in case.references]
        out: list[Measurement | NotMeasured] = []
        for subject in own:
            out += _against(case, rows, subject, [(subject, r) for r in case.references])
        names = case.references
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        if pairs:
            out += _against(case, rows, "retrained", pairs)
        else:
            out += [
                NotMeasured(
                    audit="divergence",
                    name=n,
                    subject="retrained",
                    rows="forget-test",
                    reason="a single retrained model has no spread; give three or more",
                )
                for n, _, _ in _MEASURES
            ]
        return out


def _against(
    case: Case, rows: RowSet, subject: str, pairs: Sequence[tuple[str, str]]
) -> list[Measurement | NotMeasured]:
    z = rows.logits
    far = torch.stack([jensen_shannon(z[a], z[b]) for a, b in pairs]).mean(0)
    same = torch.stack([agreement(z[a], z[b]).double() for a, b in pairs]).mean(0)
    return [
        _measured("js_to_retrained", subject, far, case.level()),
        _measured("agreement_with_retrained", subject, same, case.level()),
    ]


def _measured(name: str, subject: str, values: Tensor, level: Level) -> Measurement:
    unit, scale = ("bits", 1.0) if name == "js_to_retrained" else ("%", 100.0)
    mean, low, high = mean_interval(values)
    return Measurement(
        audit="divergence",
        name=name,
        subject=subject,
        rows="forget-test",
        value=scale * mean,
        n=len(values),
        unit=unit,
        direction="lower" if name == "js_to_retrained" else "higher",
        level=level,
        interval=(scale * max(low, 0.0), scale * min(high, 1.0)),
    )
