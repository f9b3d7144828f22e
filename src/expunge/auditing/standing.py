"""What shows that a reference is a model of its own, from what the audit has read anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from expunge.auditing.reading import Areas, Logits
from expunge.audits.base import Part
from expunge.functional.membership import Auc
from expunge.judging.independence import able_as, agreement_of, seen_auc, standing_of
from expunge.judging.outputs import masked
from expunge.records import Limits, Scope, Standing

__all__ = ["Compared", "standing_in"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """What references are compared with: the original where it is at hand, and its initial weights.

    `said` holds the logits of every subject, `before` those of the original.
    """

    scope: Scope
    gone: frozenset[int]
    original: nn.Module | None
    initial: Mapping[str, Tensor] | None
    limits: Limits
    areas: Areas
    said: Mapping[str, Logits]

    def on(self, part: Part, subject: str) -> Tensor | None:
        """The subject's logits on a part; None where there are no such rows, or subject."""
        if subject not in self.said or part not in self.areas.parts:
            return None
        area, places = self.areas.parts[part]
        return self.said[subject][area][places]


def standing_in(case: Compared, name: str, reference: nn.Module) -> Standing:
    """What shows of the subject `name` that it was trained on its own; see `standing_of`."""
    return standing_of(
        reference,
        case.original,
        name=name,
        scope=case.scope,
        initial=case.initial,
        agree=_agreement(case, name) if case.scope == "classes" else None,
        seen=_seen(case, name) if case.scope == "records" else None,
        able=_able(case, name),
    )


def _able(case: Compared, name: str) -> bool:
    own, given = case.on("others", name), case.on("others", "before")
    if own is None or given is None:
        return False
    labels = case.areas.labels("others")
    return able_as(own, masked(given, case.gone), labels, case.scope, case.limits)


def _agreement(case: Compared, name: str) -> float | None:
    own, given = case.on("others", name), case.on("others", "before")
    return None if own is None or given is None else agreement_of(own, given, case.gone)


def _seen(case: Compared, name: str) -> Auc | None:
    forget, few = case.on("forget-train", name), case.areas.few
    if forget is None or few is None:
        return None
    retained, labels = case.said[name]["retained"][few], case.areas.rows["retained"].labels[few]
    return seen_auc(forget, case.areas.labels("forget-train"), retained, labels)
