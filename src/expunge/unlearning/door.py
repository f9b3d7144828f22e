"""The door `unlearn`: the only place that checks, copies, seeds, edits, judges and records."""

from __future__ import annotations

import copy
import dataclasses
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from expunge.certificate.facts import Evidence
from expunge.errors import (
    ContractError,
    InputError,
    ModelError,
)
from expunge.judging.absent import judge_absent
from expunge.judging.outputs import Outputs
from expunge.judging.unseen import judge_unseen
from expunge.methods.base import Before, Method, Progress
from expunge.methods.run import Run
from expunge.network.heads import Head, backbone_digest, head_at
from expunge.network.passes import logits_of
from expunge.network.state import (
    count_changed,
    device_of,
    digest_of,
    hook_count,
    layout_of,
    restore_layout,
    state_of,
)
from expunge.records import (
    Cost,
    Limits,
    Outcome,
    OutcomeReport,
    RunRecord,
)
from expunge.results.forgotten import Forgotten, commitment
from expunge.results.unlearned import Unlearned
from expunge.runtime.machine import environment, peak_resident_bytes, where
from expunge.runtime.randomness import isolated, preserved
from expunge.statistics.collect import collect_statistics, collect_sums
from expunge.statistics.features import FeatureStatistics
from expunge.task import ForgetTask
from expunge.unlearning.checks import (
    checked_method,
    checked_model,
    checked_seed,
    checked_task,
    look_at_data,
    refuse_unfit,
)
from expunge.unlearning.history import exclude_forgotten, judge_again
from expunge.unlearning.joined import joined
from expunge.unlearning.promises import changed_buffers, check_contract, checked_result, weights_of
from expunge.unlearning.request import Door

__all__ = ["unlearn"]


RECORD_VERSION = 1


@preserved()
def unlearn(
    model: nn.Module | Unlearned,
    method: Method,
    task: ForgetTask,
    *,
    seed: int,
    device: torch.device | str | None = None,
    head: str | None = None,
    initial: Mapping[str, Tensor] | None = None,
    limits: Limits | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Unlearned:
    """Return a model that forgets `task.forget`, with the record of how and how well.

    `model` is a classifier that returns logits (batch, classes), or the result of an earlier call:
    then everything forgotten so far stays forgotten and is checked again. The given model, data
    and global random state are unchanged. `device` defaults to the model's own. `head` names the
    final linear layer where it cannot be found; `initial` are the weights before training, where
    kept. Raises an `ExpungeError` before any edit if something is wrong.

    A poor result is not an error: it is named in `record.outcome` (`no-op`, `ineffective`,
    `wrecked`, `undetermined` or `done`).
    """
    began = time.perf_counter()
    door = _opened(model, method, task, seed, device, head, initial, limits, batch_size, progress)
    task = door.task
    digest_before = digest_of(state_of(door.original))
    layout = layout_of(door.original)
    copied = _private_copy(door)
    before = _outputs(door, copied)
    if any(_undefined(outputs) for outputs in before):
        raise ModelError(
            "Expected logits that are numbers, got NaN or +infinity on some rows. Check the "
            "model's normalisation and the data."
        )
    with isolated(door.seed, door.device) as generator:
        run = Run(
            device=door.device,
            generator=generator,
            batch_size=batch_size,
            classes=door.classes,
            kept=tuple(c for c in range(door.classes) if c not in door.gone),
            head=door.head,
            initial=initial,
            progress=progress,
            notes=door.notes,
            seed=door.seed,
            evidence=door.evidence,
            predecessor=door.predecessor,
        )
        handed = _handed(door, copied, run)
        hooks = hook_count(copied)
        _reset_peak(door.device)
        start = time.perf_counter()
        edited = method.apply(copied, handed, run)
        if door.device.type == "cuda":
            torch.cuda.synchronize(door.device)
        seconds = time.perf_counter() - start
        peak = _peak_bytes(door.device)
    structure = run.structure or method.info.structure
    if run.evidence is door.evidence and door.evidence is not None:
        run.note("the certificate of the earlier requests is void: this method proves nothing")
        run.evidence = None
    own_device = next(iter(layout.devices.values()), torch.device("cpu"))
    edited = checked_result(edited, method).to(own_device)
    restore_layout(edited, layout)
    check_contract(door, edited, digest_before, hooks, structure)
    changed = {
        "parameters": count_changed(weights_of(door.original), weights_of(edited)),
        "buffers": changed_buffers(door, edited),
    }
    if changed["buffers"] and not method.info.changes_buffers:
        raise ContractError(
            f"Expected method {method.info.name!r} to leave buffers alone (it does not declare "
            f"`changes_buffers`), but {changed['buffers']} entries changed. This is a bug in the "
            "method."
        )
    outcome = _judge(door, before, edited.to(door.device), sum(changed.values()), run.evidence)
    edited.to(own_device)
    forgotten = Forgotten(
        aim=task.aim,
        scope=task.scope,
        classes=task.classes,
        ids=task.forget.ids,
        salt=secrets.token_hex(32),
        labels=tuple(task.forget.labels.tolist()),
        rows=task.forget,
    )
    statistics = _carried_statistics(door, handed, edited, run)
    record = RunRecord(
        version=RECORD_VERSION,
        method=method.info.name,
        settings={
            f.name: _setting(getattr(method, f.name))
            for f in dataclasses.fields(method)  # type: ignore[arg-type]
        },
        seed=seed,
        aim=task.aim,
        scope=task.scope,
        claims=method.info.claims,
        structure=structure,
        outcome=outcome,
        limits=door.limits,
        cost=Cost(
            seconds=seconds,
            door_seconds=time.perf_counter() - began - seconds,
            peak_bytes=peak,
            samples_touched=run.samples_touched,
            gradient_steps=run.gradient_steps,
            parameters=sum(tensor.numel() for tensor in weights_of(edited).values()),
            parameters_changed=changed["parameters"],
            buffers_changed=changed["buffers"],
        ),
        forget_count=len(task.forget),
        retain_count=None if door.task.retain is None else len(door.task.retain),
        tune_count=0 if door.tune is None else len(door.tune),
        judge_count=0 if door.judge is None else len(door.judge),
        dropped_from_holdout=door.dropped,
        commitment=commitment(forgotten),
        digest_before=digest_before,
        digest_after=digest_of(state_of(edited)),
        head=None if door.head is None else door.head.name,
        earlier_requests=len(door.forgotten),
        notes=tuple(run.notes),
        log={name: tuple(values) for name, values in run.scalars.items()},
        environment=environment(door.device),
    )
    return Unlearned(
        model=edited,
        record=record,
        statistics=statistics,
        forgotten=(*door.forgotten, forgotten),
        split_seed=door.split_seed,
        original=door.original,
        head=_head_after(door, edited),
        evidence=run.evidence,
    )


def _head_after(door: Door, edited: nn.Module) -> Head | None:
    if door.head is None:
        return None
    try:
        layer = edited.get_submodule(door.head.name)
    except AttributeError:  # the method wrapped the whole model
        return None
    return head_at(door.head.name, layer) if isinstance(layer, nn.Linear) else None


def _opened(
    model: nn.Module | Unlearned,
    method: Method,
    task: ForgetTask,
    seed: int,
    device: torch.device | str | None,
    head: str | None,
    initial: Mapping[str, Tensor] | None,
    limits: Limits | None,
    batch_size: int,
    progress: Progress | None,
) -> Door:
    """Check everything that can be checked before an edit; nothing is copied or changed."""
    earlier = model if isinstance(model, Unlearned) else None
    if earlier is not None and not earlier.history_known:
        raise InputError(
            "Expected a run whose history is known to unlearn further, got one loaded without its "
            "private/ part: what it forgot could serve as training data again. Put private/ back "
            "beside its record.json, and load it again."
        )
    if not batch_size >= 1:
        raise InputError(f"Expected `batch_size` of at least 1, got {batch_size}.")
    given = checked_model(earlier.model if earlier else model)
    door = Door(
        original=given,
        method=checked_method(method),
        task=checked_task(task),
        seed=checked_seed(seed),
        split_seed=earlier.split_seed if earlier else int(seed),
        limits=limits or Limits(),
        batch_size=batch_size,
        device=device_of(given) if device is None else where(device),
        forgotten=earlier.forgotten if earlier else (),
        initial=initial,
        progress=progress,
        evidence=earlier.evidence if earlier else None,
        predecessor=earlier.certificate if earlier else None,
    )
    if earlier is not None and not earlier.outcome.outcome.accepted:
        door.notes.append(
            f"the run this one starts from ended {earlier.outcome.outcome.value!r}: "
            f"{earlier.outcome.reason}"
        )
    if earlier is not None and door.task.statistics is None and "statistics" in method.needs:
        door.task = dataclasses.replace(door.task, statistics=earlier.statistics)
    refuse_unfit(door)
    look_at_data(door, head or (earlier.head.name if earlier and earlier.head else None))
    exclude_forgotten(door, earlier)
    before = Before(head=door.head, evidence=door.evidence, predecessor=door.predecessor)
    door.method.refuse(door.original, door.task, before)
    return door


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What `rehearse` found: the request is fit to run, with these sizes."""

    head: Head | None
    classes: int
    forget_count: int
    retain_count: int | None
    tune_count: int
    judge_count: int
    dropped_from_holdout: int
    statistics: bool


def rehearse(
    model: nn.Module | Unlearned,
    method: Method,
    task: ForgetTask,
    *,
    seed: int,
    device: torch.device | str | None = None,
    head: str | None = None,
    initial: Mapping[str, Tensor] | None = None,
    limits: Limits | None = None,
) -> Rehearsal:
    """Make every check that `unlearn` makes before it edits, and edit nothing."""
    door = _opened(model, method, task, seed, device, head, initial, limits, 256, None)
    retain = door.task.retain
    return Rehearsal(
        head=door.head,
        classes=door.classes,
        forget_count=len(door.task.forget),
        retain_count=None if retain is None else len(retain),
        tune_count=0 if door.tune is None else len(door.tune),
        judge_count=0 if door.judge is None else len(door.judge),
        dropped_from_holdout=door.dropped,
        statistics=door.task.statistics is not None,
    )


def _setting(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None), tuple)) else repr(value)


def _private_copy(door: Door) -> nn.Module:
    try:
        copied = copy.deepcopy(door.original)
    except Exception as error:
        raise ModelError(
            "Expected a model that can be copied, but copy.deepcopy raised "
            f"{type(error).__name__}: {error}. Remove hooks and graph tensors from it."
        ) from error
    for parameter in copied.parameters():
        parameter.grad = None
    return copied.to(door.device).eval()


def _handed(door: Door, model: nn.Module, run: Run) -> ForgetTask:
    """The task as the method sees it: `tune` as holdout, nothing it did not declare."""
    needs = door.needs
    task = door.task
    statistics = task.statistics
    if "statistics" in needs and statistics is None and door.head is not None:
        assert task.retain is not None
        rows = joined(task.forget, task.retain)
        chosen = torch.zeros(len(rows), dtype=torch.bool)
        chosen[: len(task.forget)] = True
        start = time.perf_counter()
        statistics, run.forget_sums = collect_statistics(
            model, door.head, rows, forget=chosen, batch_size=run.batch_size, device=run.device
        )
        run.samples_touched += len(rows)
        run.log("statistics_seconds", time.perf_counter() - start)
    return dataclasses.replace(
        task,
        retain=task.retain if "retain" in needs else None,
        holdout=door.tune,
        statistics=statistics if "statistics" in needs else None,
        training=task.training if "training" in needs else None,
    )


def _outputs(door: Door, model: nn.Module) -> list[Outputs]:
    """Logits on judge, and on the records of this request and of every earlier one at hand."""
    judge = (
        None
        if door.judge is None or not len(door.judge)
        else logits_of(model, door.judge, batch_size=door.batch_size, device=door.device)
    )
    sets = [door.task.forget, *(r.rows for r in door.forgotten if r.rows is not None)]
    return [
        Outputs(
            forget=logits_of(model, rows, batch_size=door.batch_size, device=door.device),
            judge=judge,
        )
        for rows in sets
    ]


def _undefined(outputs: Outputs) -> bool:
    parts = (outputs.forget, outputs.judge)
    return any(bool((torch.isnan(z) | (z == torch.inf)).any()) for z in parts if z is not None)


def _judge(
    door: Door, before: list[Outputs], edited: nn.Module, changed: int, evidence: Evidence | None
) -> OutcomeReport:
    if changed == 0:
        return OutcomeReport(
            outcome=Outcome.NO_OP, reason="the weights are bit-identical to the original's"
        )
    after = _outputs(door, edited)
    if any(_undefined(outputs) for outputs in after):
        return OutcomeReport(
            outcome=Outcome.WRECKED, reason="the edited model gives NaN or +infinity on some rows"
        )
    judge_labels = None if before[0].judge is None or door.judge is None else door.judge.labels
    judge = judge_absent if door.task.aim == "absent" else judge_unseen
    report = judge(
        before[0], after[0], door.task.forget.labels, judge_labels, door.gone, door.limits
    )
    report = judge_again(door, before[1:], after[1:], judge_labels, report, evidence)
    if "training" in door.method.info.needs and not report.outcome.accepted:
        return OutcomeReport(
            outcome=Outcome.DONE,
            reason=f"retrained from scratch; never rejected (measured: {report.reason})",
            figures=report.figures,
        )
    return report


def _carried_statistics(
    door: Door, handed: ForgetTask, edited: nn.Module, run: Run
) -> FeatureStatistics | None:
    """Statistics of what stays: head edits update them, backbone edits invalidate them."""
    statistics = handed.statistics or door.task.statistics
    if statistics is None or door.head is None or statistics.members is None:
        return None
    if backbone_digest(edited, door.head) != statistics.backbone:
        run.note("the feature statistics are void: the backbone changed")
        return None
    sums = run.forget_sums
    if sums is None:
        sums = collect_sums(
            edited,
            door.head,
            door.task.forget,
            mean=statistics.mean,
            batch_size=door.batch_size,
            device=device_of(edited),
        )
    return statistics.without(sums, door.task.forget.ids)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident_bytes()
