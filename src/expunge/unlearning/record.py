"""What a call leaves behind: the record, and the result that holds it."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

from torch import nn

from expunge.methods.base import Method
from expunge.network.heads import backbone_digest
from expunge.network.state import device_of, digest_of, hook_count, state_of
from expunge.records import RECORD_VERSION, Cost, RunRecord
from expunge.results.forgotten import Forgotten, commitment, holdout_commitment
from expunge.results.read import Read, Reading
from expunge.results.unlearned import Unlearned
from expunge.runtime.machine import environment
from expunge.statistics.collect import collect_sums
from expunge.statistics.features import FeatureStatistics
from expunge.statistics.sums import Sums, augment
from expunge.unlearning.looks import Verdict
from expunge.unlearning.promises import Edited
from expunge.unlearning.request import Look, Request
from expunge.unlearning.served import Served
from expunge.unlearning.work import Work

__all__ = ["result_of"]


def result_of(
    served: Served, look: Look, work: Work, edited: Edited, verdict: Verdict, seconds: float
) -> Unlearned:
    """The edited model with everything that is known of it; `seconds` are those of the call.

    Only the records that were served are remembered as forgotten.
    """
    request, whole = served.request, served.whole.task.forget
    forgotten, names = _forgotten(served), request.task.rows.names
    statistics, void = _carried_statistics(served, look, work, edited.model)
    certificate, certified = served.certified(verdict.outcome, edited.evidence)
    notes = (*request.past.notes, *work.run.record.notes, *_voided(request, edited))
    record = RunRecord(
        version=RECORD_VERSION,
        method=request.method.info.name,
        settings=_settings(request.method),
        seed=request.means.seed,
        aim=request.task.aim,
        scope=request.task.scope,
        ceiling=request.method.info.claims,
        structure=edited.structure,
        outcome=verdict.outcome,
        limits=request.means.limits,
        cost=_cost(work, edited, seconds),
        forget_count=len(whole),
        retain_count=None if request.task.retain is None else len(request.task.retain),
        tune_count=0 if request.split.tune is None else len(request.split.tune),
        judge_count=0 if request.split.judge is None else len(request.split.judge),
        dropped_from_holdout=request.split.dropped,
        commitment=commitment(forgotten),
        digest_before=look.digest,
        digest_after=digest_of(state_of(edited.model)),
        head=None if request.head is None else request.head.name,
        earlier_requests=len(request.past.forgotten),
        notes=(*notes, *_twins(served), *verdict.notes, *void),
        log={name: tuple(values) for name, values in work.run.record.scalars.items()},
        environment=environment(request.means.device),
        served_count=len(served.places),
        certified_count=certified,
        certificate=certificate,
        reach=request.method.info.reach,
        holdout_commitment=None
        if request.task.holdout is None
        else holdout_commitment(forgotten.salt, request.task.holdout),
        trained_anew="training" in request.method.info.needs,
        repeats_count=request.split.repeats,
        twins_count=None if served.twins is None else len(served.twins),
    )
    return Unlearned(
        model=edited.model,
        record=record,
        statistics=statistics,
        forgotten=(*request.past.forgotten, forgotten),
        split_seed=request.past.split_seed,
        original=request.model,
        head=edited.head,
        evidence=edited.evidence,
        refused={whole.ids[i]: reason for i, reason in served.refused.items()},
        twins=served.twins or {},
        class_names=request.past.class_names if names is None else names.names,
        read=_read(served.whole, look, verdict, edited.model, record.digest_after),
    )


def _forgotten(served: Served) -> Forgotten:
    task, asked = served.request.task, set(served.request.asked.forget.ids)
    return Forgotten(
        aim=task.aim,
        scope=task.scope,
        classes=task.classes,
        ids=task.forget.ids,
        salt=secrets.token_hex(32),
        labels=tuple(task.forget.labels.tolist()),
        rows=task.forget,
        joined=tuple(i for i in served.whole.task.forget.ids if i not in asked),
    )


def _settings(method: Method) -> dict[str, Any]:
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    return {f.name: _setting(getattr(method, f.name)) for f in fields}


def _setting(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None), tuple)) else repr(value)


def _twins(served: Served) -> tuple[str, ...]:
    if not served.twins:
        return ()
    count, words = len(served.twins), "stay in the training data under another id"
    return (f"{count} forget records {words}: rows with the same content",)


def _voided(request: Request, edited: Edited) -> tuple[str, ...]:
    if request.past.evidence is None or edited.evidence is not None:
        return ()
    return ("the certificate of the earlier requests is void: this method proves nothing",)


def _cost(work: Work, edited: Edited, seconds: float) -> Cost:
    return Cost(
        seconds=work.seconds,
        door_seconds=seconds - work.seconds,
        peak_bytes=work.peak_bytes,
        samples_touched=work.run.record.samples_touched,
        gradient_steps=work.run.record.gradient_steps,
        parameters=edited.parameters,
        parameters_changed=edited.parameters_changed,
        buffers_changed=edited.buffers_changed,
    )


def _read(
    request: Request, look: Look, verdict: Verdict, edited: nn.Module, digest: str
) -> Read | None:
    """The logits, where they are those of the request as it was asked for."""
    if verdict.after is None or request.asked.forget.ids != request.task.forget.ids:
        return None
    return Read(
        task=request.asked,
        judge=request.split.judge,
        stays=look.beside.stays,
        before=Reading(
            model=request.model,
            digest=look.digest,
            hooks=hook_count(request.model),
            outputs=verdict.before,
            stays=look.beside.retained,
            copies=look.beside.copies,
        ),
        after=Reading(
            model=edited,
            digest=digest,
            hooks=hook_count(edited),
            outputs=verdict.after,
            copies=verdict.copies,
        ),
        references=look.beside.readings,
        views=request.task.views,
    )


def _carried_statistics(
    served: Served, look: Look, work: Work, edited: nn.Module
) -> tuple[FeatureStatistics | None, tuple[str, ...]]:
    """Statistics of what stays: head edits update them, backbone edits invalidate them; notes."""
    request = served.request
    statistics, head = work.handed.statistics or request.task.statistics, request.head
    if statistics is None or head is None or statistics.members is None:
        return None, ()
    if backbone_digest(edited, head) != statistics.backbone:
        return None, ("the feature statistics are void: the backbone changed",)
    forget = request.task.forget
    taken = None if served.refused else work.run.record.forget_sums
    if taken is not None:
        return statistics.without(taken, forget.ids), ()
    if look.features is None:
        # made for this request by a method that then refused some records: they are read again
        sums = collect_sums(
            edited,
            head,
            forget,
            mean=statistics.mean,
            batch_size=request.means.batch_size,
            device=device_of(edited),
        )
        return statistics.without(sums, forget.ids), ()
    # the backbone is the given one's, and so are the features
    own = augment(look.features[served.places], statistics.mean)
    return statistics.without(Sums.of(own, forget.labels, head.classes), forget.ids), ()
