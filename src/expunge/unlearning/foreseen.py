"""What makes the outcome `undetermined` from the start, whatever a method does."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from expunge.data.rows import Rows
from expunge.functional.intervals import rows_for_bound, upper_bound
from expunge.judging.known import chance_of, near_chance_before, not_known_before
from expunge.judging.outputs import hits, masked, percent
from expunge.network.passes import logits_of
from expunge.network.state import device_of
from expunge.reasons import Reason
from expunge.records import Limits, Outcome, OutcomeReport
from expunge.runtime.randomness import preserved
from expunge.unlearning.request import Request

__all__ = ["foreseen"]

_LOOK = 2_048
_LEAST = 64


@preserved()
def foreseen(request: Request) -> tuple[OutcomeReport, ...]:
    """Why no run of this request can end `done`; empty where nothing stands in its way.

    For a class, the given model is read on some 2,000 forget rows and as many judge rows of classes
    that stay, evenly spaced; classes that earlier requests took away do not count. The rest is
    counted.
    """
    if request.task.aim == "unseen":
        return _of_records(request)
    return (*_not_known(request), *_near_chance(request), *_few_rows(request))


def _not_known(request: Request) -> tuple[OutcomeReport, ...]:
    forget = request.task.forget
    classes = forget.labels.unique().tolist()
    each = max(_LEAST, _LOOK // len(classes))
    places = torch.cat([_spaced((forget.labels == c).nonzero().flatten(), each) for c in classes])
    few = forget.select(places.sort()[0])
    return not_known_before(hits(_said(request, few), few.labels), few.labels, request.means.limits)


def _near_chance(request: Request) -> tuple[OutcomeReport, ...]:
    """Too few judge rows of what stays, none at all, or an accuracy on them near chance."""
    stays = _staying(request)
    if isinstance(stays, OutcomeReport):
        return (stays,)
    few = stays.select(_spaced(torch.arange(len(stays)), _LOOK))
    logits = masked(_said(request, few), request.task.gone)
    found = near_chance_before(percent(hits(logits, few.labels)), chance_of(logits))
    return () if found is None else (found,)


def _staying(request: Request) -> Rows | OutcomeReport:
    """The judge rows of classes that stay, or what is wrong with their number."""
    judge, least = request.split.judge, request.means.limits.least_rows
    if judge is None or not len(judge):
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_HOLDOUT)
    gone = torch.tensor(sorted(request.task.gone), dtype=torch.int64)
    places = (~torch.isin(judge.labels, gone)).nonzero().flatten()
    if len(places) < least:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.FEW_ROWS_STAY, least=least)
    return judge.select(places)


def _few_rows(request: Request) -> tuple[OutcomeReport, ...]:
    """Too few judge rows of a class to exclude that it is recognised, even if none of them is."""
    judge = request.split.judge
    if judge is None or not len(judge):
        return ()
    found = (
        _few_rows_of(label, int((judge.labels == label).sum()), request.means.limits)
        for label in request.task.forget.labels.unique().tolist()
    )
    return tuple(report for report in found if report is not None)


def _few_rows_of(label: int, rows: int, limits: Limits) -> OutcomeReport | None:
    if not rows:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_ROW_OF_CLASS, label=label)
    bound = 100 * upper_bound(0, rows, confidence=limits.confidence)
    if bound <= limits.class_bound:
        return None
    enough = rows_for_bound(0, limits.class_bound / 100, confidence=limits.confidence)
    return OutcomeReport(
        outcome=Outcome.UNDETERMINED,
        why=Reason.CLASS_NOT_EXCLUDED,
        reason=f"with {rows} judge rows of class {label} up to {bound:.1f} % of such rows may be "
        f"recognised even if none of them is (limit: {limits.class_bound:g} %); {enough} judge "
        "rows, half of the holdout's, would settle it",
    )


def _of_records(request: Request) -> tuple[OutcomeReport, ...]:
    stays, judge = _staying(request), request.split.judge
    found = [stays] if isinstance(stays, OutcomeReport) else []
    if judge is not None and len(judge):
        compared = torch.isin(request.task.forget.labels, judge.labels)
        if not bool(compared.any()):
            found.append(OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_ROW_OF_RECORDS))
    return tuple(found)


def _spaced(places: Tensor, most: int) -> Tensor:
    """At most so many of these places, evenly spaced."""
    return places[torch.linspace(0, len(places) - 1, min(most, len(places))).long()]


def _said(request: Request, rows: Rows) -> Float[Tensor, "rows classes"]:
    model, size = request.model, request.means.batch_size
    return logits_of(model, rows, batch_size=size, device=device_of(model))
