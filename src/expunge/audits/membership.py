"""Membership: can forget records be told from unseen rows of the same classes by their outputs?

Equation: AUC of −loss and of the margin z_y − max of the others, forget records against
judge rows of the same class, weighted by class. 0.5 is chance; below 0.5 the records stand out by
being treated worse than new data, which is a leak too. Source: S. Yeom et al., CSF 2018 (loss).
Intervals: Newcombe, Statistics in Medicine 2006, and DeLong et al., Biometrics 1988. What we do
differently: the interval spans both, since neither holds its coverage everywhere; the margin is not
the logit of the label's probability, which orders rows exactly as the loss does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from expunge.audits.base import Audit, AuditInfo, Case
from expunge.functional.membership import class_matched_auc, losses, margins
from expunge.records import Measurement, NotMeasured

__all__ = ["Membership"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(Audit):
    """Class-matched AUC of loss and margin, forget records against judge rows."""

    info: ClassVar[AuditInfo] = AuditInfo(
        name="membership",
        question="Can the forget records be told from rows the model never saw?",
        source="S. Yeom et al., CSF 2018; N. Carlini et al., IEEE S&P 2022",
    )

    def measure(self, case: Case) -> Sequence[Measurement | NotMeasured]:
        """Measure every subject."""
        members, outsiders = case.part("forget-train"), case.part("forget-test")
        out: list[Measurement | NotMeasured] = []
        for subject in case.subjects:
            if case.scope == "classes" and subject == "mask-class":
                continue
            for name, score in (("loss_auc", lambda z, y: -losses(z, y)), ("margin_auc", margins)):
                if members is None or outsiders is None:
                    out.append(_not(name, subject, "there are no judge rows of these classes"))
                    continue
                value, low, high, used = class_matched_auc(
                    score(members.logits[subject], members.labels),
                    members.labels,
                    score(outsiders.logits[subject], outsiders.labels),
                    outsiders.labels,
                )
                if not used:
                    out.append(_not(name, subject, "there are no judge rows of these classes"))
                    continue
                out.append(
                    Measurement(
                        audit="membership",
                        name=name,
                        subject=subject,
                        rows="forget-train",
                        value=value,
                        n=used,
                        unit="AUC",
                        direction="nearest",
                        level="C4",
                        interval=(max(low, 0.0), min(high, 1.0)),
                    )
                )
        return out


def _not(name: str, subject: str, reason: str) -> NotMeasured:
    return NotMeasured(
        audit="membership", name=name, subject=subject, rows="forget-train", reason=reason
    )
