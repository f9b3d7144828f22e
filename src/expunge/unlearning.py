"""The door `unlearn`: the only place that checks, copies, seeds, edits, judges and records."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, final

import torch
from torch import Tensor, nn

from expunge._judging import (
    Outputs,
    absent_again,
    judge_absent,
    judge_unseen,
    tune_and_judge,
    unseen_again,
)
from expunge._rng import isolated, preserved
from expunge._state import (
    count_changed,
    device_of,
    digest_of,
    hook_count,
    layout_of,
    not_finite,
    peak_resident_bytes,
    restore_layout,
    state_of,
)
from expunge.certificate.evidence import Evidence
from expunge.data.rows import Rows, content_digests
from expunge.errors import (
    ContractError,
    DataError,
    InputError,
    ModelError,
    TaskError,
    UnsupportedError,
)
from expunge.heads import (
    Head,
    as_logits,
    backbone_digest,
    find_head,
    head_at,
    logits_of,
    to_device,
    tried,
)
from expunge.methods.base import Before, Method, Progress, Run
from expunge.models.reassure import RegionPatched
from expunge.records import (
    Aim,
    Cost,
    Limits,
    Need,
    Outcome,
    OutcomeReport,
    RunRecord,
    Scope,
    Structure,
)
from expunge.statistics import FeatureStatistics, collect_statistics, collect_sums
from expunge.task import ForgetTask

__all__ = [
    "Forgotten",
    "Unlearned",
    "environment",
    "found_again",
    "never_forgotten",
    "unlearn",
    "where",
]

RECORD_VERSION = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forgotten:
    """One request that was served: its ids and classes stay forgotten in every later request.

    `labels` are those of the ids then, None where an old history does not tell. `rows` is kept in
    memory so that later requests check it again; None after a reload.
    """

    aim: Aim
    scope: Scope
    classes: frozenset[int]
    ids: tuple[str, ...]
    salt: str
    labels: tuple[int, ...] | None = None
    rows: Rows | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unlearned:
    """What `unlearn` returns: the edited model, the record, and statistics where they were kept.

    `original` is the model that was given (not a copy). `forgotten` lists every request so far,
    the latest last. `split_seed` fixes the holdout split for all later requests and audits.
    `history_known` is False for a run loaded without its private part: it cannot serve further.
    `evidence` is what a certificate is written from, where the method proves something;
    `certificate` the digest of the one saved with the run, where it was loaded from a folder.
    """

    model: nn.Module
    record: RunRecord
    statistics: FeatureStatistics | None
    forgotten: tuple[Forgotten, ...]
    split_seed: int
    original: nn.Module | None = None
    head: Head | None = None
    history_known: bool = True
    evidence: Evidence | None = None
    certificate: str | None = None

    @property
    def outcome(self) -> OutcomeReport:
        """The outcome and its reason."""
        return self.record.outcome


@final
@dataclass(slots=True)
class _Door:
    """Everything the steps of one call share."""

    original: nn.Module
    method: Method
    task: ForgetTask
    seed: int
    split_seed: int
    limits: Limits
    batch_size: int
    device: torch.device
    forgotten: tuple[Forgotten, ...]
    initial: Mapping[str, Tensor] | None
    progress: Progress | None
    head: Head | None = None
    classes: int = 0
    tune: Rows | None = None
    judge: Rows | None = None
    dropped: int = 0
    evidence: Evidence | None = None
    predecessor: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def needs(self) -> frozenset[Need]:
        return self.method.needs_for(self.task.scope)

    @property
    def gone(self) -> frozenset[int]:
        earlier = (request.classes for request in self.forgotten)
        return self.task.classes.union(*earlier)


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
    edited = _checked_result(edited, method).to(own_device)
    restore_layout(edited, layout)
    _check_contract(door, edited, digest_before, hooks, structure)
    changed = {
        "parameters": count_changed(_weights_of(door.original), _weights_of(edited)),
        "buffers": _changed_buffers(door, edited),
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
            parameters=sum(tensor.numel() for tensor in _weights_of(edited).values()),
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


def _inside(model: nn.Module) -> nn.Module:
    """The model, or the one inside patches on linear regions: its tensors keep their names."""
    return model.base if isinstance(model, RegionPatched) else model


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, and what patches on linear regions are made of, row by row."""
    weights: dict[str, Tensor] = dict(_inside(model).named_parameters())
    if isinstance(model, RegionPatched):
        for name in ("active", "steepness", "owner", "shift"):
            weights |= {f"{name}[{i}]": row for i, row in enumerate(model.get_buffer(name))}
    return weights


def _changed_buffers(door: _Door, edited: nn.Module) -> int:
    """How many entries changed in buffers that the given model has, those of its head apart."""
    own = set() if door.head is None else door.head.tensor_names()
    old = {n: t for n, t in _inside(door.original).named_buffers() if n not in own}
    new = {n: t for n, t in _inside(edited).named_buffers() if n in old}
    return count_changed(old, new)


def _head_after(door: _Door, edited: nn.Module) -> Head | None:
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
) -> _Door:
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
    given = _checked_model(earlier.model if earlier else model)
    door = _Door(
        original=given,
        method=_checked_method(method),
        task=_checked_task(task),
        seed=_checked_seed(seed),
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
    _refuse_unfit(door)
    _look_at_data(door, head or (earlier.head.name if earlier and earlier.head else None))
    _exclude_forgotten(door, earlier)
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


def commitment(request: Forgotten) -> str:
    """Salted SHA-256 of the forget selection; the salt is private."""
    text = json.dumps(
        [request.salt, sorted(request.classes), list(request.ids)], separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def environment(device: torch.device) -> dict[str, str]:
    """Versions and the device: what the bytes of a result depend on besides the seed."""
    try:
        own = version("expunge")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "expunge": own,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "threads": str(torch.get_num_threads()),
    }


def _setting(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None), tuple)) else repr(value)


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"Expected `seed` to be an integer from 0, got {seed!r}.")
    return seed


def _checked_method(method: Method) -> Method:
    if not isinstance(method, Method):
        hint = " Call it: pass `Method()`." if isinstance(method, type) else ""
        raise InputError(f"Expected `method` to be a Method, got {method!r}.{hint}")
    return method


def _checked_result(edited: Any, method: Method) -> nn.Module:
    if not isinstance(edited, nn.Module):
        raise ContractError(
            f"Expected method {method.info.name!r} to return a module, got "
            f"{type(edited).__name__}. `apply` must end with `return model` (for retrain: so must "
            "`fit`)."
        )
    return edited


def _checked_task(task: ForgetTask) -> ForgetTask:
    if not isinstance(task, ForgetTask):
        raise InputError(
            f"Expected `task` to be a ForgetTask, got {type(task).__name__}. Make one with "
            "forget_classes, forget_indices or forget_ids."
        )
    return task


def _checked_model(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ModelError(f"Expected `model` to be an nn.Module, got {type(model).__name__}.")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ModelError(
            f"Expected a plain module, got {type(model).__name__}. Pass its `.module`."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("Expected a plain module, got TorchScript. Pass the module it came from.")
    if type(model).__name__ == "OptimizedModule":
        raise ModelError(
            "Expected a plain module, got the result of torch.compile. Pass its `._orig_mod`, and "
            "compile the unlearned model afterwards."
        )
    for name, module in model.named_modules():
        if "quantized" in type(module).__module__.split("."):
            raise ModelError(
                f"Expected floating weights, got the quantised layer {name!r}. Unlearn the model "
                "before quantising it."
            )
    state = state_of(model)
    if not state:
        raise ModelError("Expected a model with weights, got one without any.")
    bad = not_finite(state)
    if bad:
        raise ModelError(
            f"Expected finite weights, got NaN or infinity in {bad[0]!r} ({len(bad)} tensors). "
            "The checkpoint is damaged or diverged."
        )
    return model


def where(device: torch.device | str) -> torch.device:
    """The device of this name, `auto` resolved; raises InputError where there is none."""
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    found = torch.device(device)
    missing = (found.type == "cuda" and not torch.cuda.is_available()) or (
        found.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InputError(
            f"Expected `device` {found.type!r} to be there, but this machine has none. Use "
            '"auto" or "cpu".'
        )
    return found


def _refuse_unfit(door: _Door) -> None:
    info, task = door.method.info, door.task
    if task.scope not in info.scopes:
        raise UnsupportedError(
            f"Expected a method that serves {task.scope}, got {info.name!r}, which serves "
            f"{', '.join(sorted(info.scopes))} only. "
            + (
                "For records use prune, retrain or fine-tune."
                if task.scope == "records"
                else "See `expunge methods`."
            )
        )
    if task.aim not in info.aims:
        raise UnsupportedError(
            f"Expected a method with aim {task.aim!r}, got {info.name!r}, which serves "
            f"{', '.join(sorted(info.aims))} only."
        )
    needs = door.needs
    if "retain" in needs and task.retain is None:
        raise UnsupportedError(
            f"Expected training data for {info.name!r}, got the forget rows alone. Give `train`, "
            "or use a method that needs forget data only (mu-mis, mask-class)."
        )
    if "statistics" in needs and task.statistics is None and task.retain is None:
        raise UnsupportedError(
            f"Expected training data or feature statistics for {info.name!r}, got neither. Give "
            "`train` or `statistics` (made by `expunge statistics` while the data were there)."
        )
    if "training" in needs and task.training is None:
        raise UnsupportedError(
            f"Expected `training` (a factory and how to fit it) for {info.name!r}, got none."
        )
    if "holdout" in needs and task.holdout is None:
        raise UnsupportedError(
            f"Expected a `holdout` for {info.name!r}, got none. Give rows never trained on."
        )
    if task.statistics is not None and task.retain is None and not task.explicit_ids:
        raise TaskError(
            "Expected explicit `ids` where statistics are used with the forget rows alone, got row "
            "numbers: they would not match those of the training data. Give the forget rows' ids."
        )


def _look_at_data(door: _Door, head_name: str | None) -> None:
    """Read a few rows twice, run the model once, find the head, check every label."""
    task = door.task
    shown = {"forget": task.forget, "holdout": task.holdout}
    needs = door.needs
    if "retain" in needs or ("statistics" in needs and task.statistics is None):
        shown["train"] = task.retain
    for name, rows in shown.items():
        if rows is not None and not len(rows):
            raise DataError(f"Expected `{name}` to hold at least one row, got none.")
        if rows is not None:
            refuse_random_rows(rows, name)
    inputs, _ = task.forget.batch(torch.arange(min(2, len(task.forget))))
    own = device_of(door.original)
    inputs = to_device(inputs, own)
    if isinstance(door.original, RegionPatched):
        if not {"head", "statistics"}.isdisjoint(needs):
            raise UnsupportedError(
                f"Expected a plain linear head for {door.method.info.name!r}, got a model patched "
                "on linear regions (prune as published). Go on with that, or retrain."
            )
        door.classes = _count_classes(door.original, inputs, "forget")
    elif "head" in needs or "statistics" in needs:
        door.head = find_head(door.original, inputs, name=head_name)
        door.classes = door.head.classes
    else:
        door.classes = _count_classes(door.original, inputs, "forget")
        try:
            door.head = find_head(door.original, inputs, name=head_name)
        except ModelError:
            if head_name is not None:
                raise
    _refuse_patched(door)
    for name, rows in shown.items():
        if rows is not None and name != "forget":
            few, _ = rows.batch(torch.arange(min(2, len(rows))))
            _count_classes(door.original, to_device(few, own), name)
    for name, rows in (("forget", task.forget), ("holdout", task.holdout), ("train", task.retain)):
        if rows is not None and int(rows.labels.max()) >= door.classes:
            raise DataError(
                f"Expected labels of `{name}` below the model's {door.classes} classes, got "
                f"{int(rows.labels.max())}. Check the label numbering."
            )


def _refuse_patched(door: _Door) -> None:
    """Methods that edit a plain head do not know gates and missing rows."""
    if door.head is None or door.head.kind == "plain" or door.method.info.structure != "same":
        return
    if not {"head", "statistics"}.isdisjoint(door.needs):
        raise UnsupportedError(
            f"Expected a plain linear head for {door.method.info.name!r}, got one that is "
            f"{door.head.kind} by an earlier request. Go on with `prune`, or retrain."
        )


def _count_classes(model: nn.Module, inputs: Any, name: str) -> int:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return int(as_logits(tried(model, inputs, name)).shape[1])
    finally:
        for module, mode in modes:
            module.training = mode


def refuse_random_rows(rows: Rows, name: str) -> None:
    """Raise DataError where reading the same 32 rows twice gives different values."""
    positions = torch.linspace(0, len(rows) - 1, min(32, len(rows))).long()
    first, _ = rows.batch(positions)
    second, _ = rows.batch(positions)
    pairs = (
        [(first, second)]
        if isinstance(first, Tensor) and isinstance(second, Tensor)
        else [(first[k], second[k]) for k in first]  # type: ignore[index]
    )
    if any(a.is_floating_point() and not bool(torch.isfinite(a).all()) for a, _ in pairs):
        raise DataError(
            f"Expected finite inputs in `{name}`, got NaN or infinity among the first rows read. "
            "Clean the data, or check its normalisation (a division by zero?)."
        )
    if not all(torch.equal(a, b) for a, b in pairs):
        raise DataError(
            f"Expected `{name}` to give the same row each time, but reading 32 rows twice gave "
            "different values. Switch off random augmentation: features must be repeatable. "
            "Augmentation belongs in the training recipe."
        )


def _exclude_forgotten(door: _Door, earlier: Unlearned | None) -> None:
    """Drop what was forgotten before from the retain set, clean and split the holdout."""
    task = door.task
    if task.retain is not None:
        everything = _joined(task.forget, task.retain)
        door.forgotten = tuple(found_again(request, everything) for request in door.forgotten)
    lost = sum(request.rows is None for request in door.forgotten)
    if lost:
        door.notes.append(f"{lost} earlier requests were not checked again: no rows at hand")
    past_ids = {i for request in door.forgotten for i in request.ids}
    past_classes = frozenset().union(*(r.classes for r in door.forgotten))
    again = sorted(past_classes & task.classes)
    if again:
        raise TaskError(
            f"Expected classes not forgotten before, got class {again[0]} again. It stays "
            "forgotten; leave it out of this request."
        )
    repeated = next((i for i in task.forget.ids if i in past_ids), None)
    if repeated is not None and task.scope == "classes":
        # The class goes, and some of its records went before it: those are not removed twice.
        fresh = [n for n, i in enumerate(task.forget.ids) if i not in past_ids]
        if fresh:
            door.notes.append(
                f"{len(task.forget) - len(fresh)} records of the request were forgotten before"
            )
            task = dataclasses.replace(task, forget=task.forget.select(torch.tensor(fresh)))
            repeated = None
    if repeated is not None:
        raise TaskError(
            f"Expected records not forgotten before, got {repeated!r} again. It stays forgotten; "
            "leave it out of this request."
        )
    if not door.gone < frozenset(range(door.classes)) or door.classes - len(door.gone) < 2:
        raise TaskError(
            f"Expected at least two of the model's {door.classes} classes to stay, got a request "
            f"that leaves {door.classes - len(door.gone)}."
        )
    retain = _staying(door)
    if task.holdout is not None:
        past_rows = [r.rows for r in door.forgotten if r.rows is not None]
        door.tune, door.judge, door.dropped = tune_and_judge(
            task.holdout, [task.forget, *past_rows], door.split_seed
        )
        if door.dropped:
            door.notes.append(
                f"{door.dropped} holdout rows are also in a forget set and were left out"
            )
    statistics = task.statistics
    if statistics is None and earlier is not None:
        statistics = earlier.statistics
        if (
            statistics is not None
            and statistics.covers(task.forget.ids) is False
            and "statistics" not in door.needs
        ):
            door.notes.append("the feature statistics are void: they do not cover the forget rows")
            statistics = None
    if statistics is not None and door.head is not None:
        statistics.check(door.original, door.head)
        if statistics.members is not None and any(
            statistics.member(i) in statistics.members for i in past_ids
        ):
            raise TaskError(
                "Expected statistics without the records forgotten earlier, got some that still "
                "hold them. Leave `statistics` out (a run carries its own), or make them again "
                "from the run with `expunge statistics`."
            )
        if statistics.covers(task.forget.ids) is False:
            raise TaskError(
                "Expected statistics that cover every forget record, got some that do not. Check "
                "the ids against those the statistics were made from."
            )
    door.task = dataclasses.replace(task, retain=retain, statistics=statistics, gone=door.gone)


def _staying(door: _Door) -> Rows | None:
    """The retain rows that no earlier request took away."""
    if door.task.retain is None:
        return None
    retain = never_forgotten(door.task.retain, door.forgotten)
    summed = "statistics" in door.needs and door.task.statistics is None
    if not len(retain) and ("retain" in door.needs or summed):
        raise TaskError(
            "Expected some rows of `train` to stay, got none: this request and the earlier ones "
            "take all of them. Delete the model instead."
        )
    return retain


def never_forgotten(rows: Rows, requests: Sequence[Forgotten]) -> Rows:
    """The rows that none of these requests took away, by id or by class."""
    if not requests:
        return rows
    ids = {i for request in requests for i in request.ids}
    classes = sorted({c for request in requests for c in request.classes})
    stays = torch.tensor([i not in ids for i in rows.ids], dtype=torch.bool)
    stays &= ~torch.isin(rows.labels, torch.tensor(classes, dtype=torch.int64))
    return rows.select(stays.nonzero().flatten())


def found_again(request: Forgotten, rows: Rows) -> Forgotten:
    """The request with its records, found by id among `rows` where they were not kept.

    Raises DataError where these ids name other rows than then: other labels, or other content.
    """
    wanted = set(request.ids)
    places = [n for n, i in enumerate(rows.ids) if i in wanted]
    if not places:
        return request
    found = rows.select(torch.tensor(places))
    _refuse_others(request, found)
    return request if request.rows is not None else dataclasses.replace(request, rows=found)


def _refuse_others(request: Forgotten, found: Rows) -> None:
    """Raise DataError where `found`, rows with ids of the request, are not its records."""
    others: list[str] = []
    labels = zip(found.ids, found.labels.tolist(), strict=True)
    if request.labels is not None:
        then = dict(zip(request.ids, request.labels, strict=True))
        others = [i for i, label in labels if label != then[i]]
    elif request.scope == "classes":
        others = [i for i, label in labels if label not in request.classes]
    what = "of another class" if others else "with other content"
    if not others and request.rows is not None:
        others = _different(request.rows, found)
    if others:
        raise DataError(
            f"Expected row {others[0]!r} of `train` to be the record that an earlier request "
            f"forgot, got one {what}. The data or their order changed since, and the ids now name "
            "other rows: give rows `ids` that stay the same."
        )


def _different(first: Rows, second: Rows) -> list[str]:
    """Ids in both whose rows differ in content; only these are read."""
    places = {i: n for n, i in enumerate(first.ids)}
    shared = [n for n, i in enumerate(second.ids) if i in places]
    new = second.select(torch.tensor(shared, dtype=torch.int64))
    old = first.select(torch.tensor([places[i] for i in new.ids], dtype=torch.int64))
    pairs = zip(new.ids, content_digests(old), content_digests(new), strict=True)
    return [i for i, a, b in pairs if a != b]


def _private_copy(door: _Door) -> nn.Module:
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


def _handed(door: _Door, model: nn.Module, run: Run) -> ForgetTask:
    """The task as the method sees it: `tune` as holdout, nothing it did not declare."""
    needs = door.needs
    task = door.task
    statistics = task.statistics
    if "statistics" in needs and statistics is None and door.head is not None:
        assert task.retain is not None
        rows = _joined(task.forget, task.retain)
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


def _joined(first: Rows, second: Rows) -> Rows:
    if first.read is not second.read:
        raise ContractError("Expected forget and retain rows of one data set. This is our bug.")
    return Rows(
        torch.cat([first.labels, second.labels]),
        first.ids + second.ids,
        torch.cat([first.index, second.index]),
        first.read,
    )


def _outputs(door: _Door, model: nn.Module) -> list[Outputs]:
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
    door: _Door, before: list[Outputs], edited: nn.Module, changed: int, evidence: Evidence | None
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
    report = _judge_again(door, before[1:], after[1:], judge_labels, report, evidence)
    if "training" in door.method.info.needs and not report.outcome.accepted:
        return OutcomeReport(
            outcome=Outcome.DONE,
            reason=f"retrained from scratch; never rejected (measured: {report.reason})",
            figures=report.figures,
        )
    return report


def _judge_again(
    door: _Door,
    before: list[Outputs],
    after: list[Outputs],
    judge_labels: Tensor | None,
    report: OutcomeReport,
    evidence: Evidence | None,
) -> OutcomeReport:
    """The report, or `ineffective` where records of an earlier request came back."""
    proven = set() if evidence is None else {record.id for record in evidence.records}
    figures, back, unjudged = dict(report.figures), list[str](), dict[str, list[str]]()
    past = [(n, r, r.rows) for n, r in enumerate(door.forgotten, 1) if r.rows is not None]
    records = sum(request.aim == "unseen" for _, request, _ in past)
    current = set(content_digests(door.task.forget)) if records else set()
    for (number, request, rows), old, new in zip(past, before, after, strict=True):
        labels, limits, judge = rows.labels, door.limits, absent_again
        if request.aim == "unseen":
            # an input that this request forgets too is judged as part of it
            own = torch.tensor([d not in current for d in content_digests(rows)])
            old, new = (dataclasses.replace(z, forget=z.forget[own]) for z in (old, new))
            # each request is one more chance of a false alarm
            once = 1 - (1 - limits.confidence) / records
            limits = dataclasses.replace(limits, confidence=once)
            labels, judge = labels[own], unseen_again
        again = judge(old, new, labels, judge_labels, door.gone, limits)
        for name, value in again.figures.items():
            figures[name] = max(figures.get(name, value), value)
        if again.outcome is Outcome.INEFFECTIVE:
            back.append(f"request {number}, {again.reason}")
        if again.outcome is Outcome.UNDETERMINED and not proven.issuperset(request.ids):
            unjudged.setdefault(again.reason, []).append(str(number))
    for reason, numbers in unjudged.items():
        door.notes.append(
            f"records of earlier requests were not judged again: {reason} (request "
            f"{', '.join(numbers)})"
        )
    if back and report.outcome is not Outcome.WRECKED:
        report = OutcomeReport(
            outcome=Outcome.INEFFECTIVE,
            reason=f"records of an earlier request came back: {'; '.join(back)}",
        )
    return dataclasses.replace(report, figures=figures)


def _check_contract(
    door: _Door, edited: nn.Module, digest_before: str, hooks: int, structure: Structure
) -> None:
    name = door.method.info.name
    if digest_of(state_of(door.original)) != digest_before:
        raise ContractError(
            f"Expected method {name!r} to work on its copy, but the given model changed. This is a "
            "bug in the method (or `factory` returns the model itself)."
        )
    own = {t.data_ptr() for t in state_of(door.original).values() if t.numel()}
    if any(t.data_ptr() in own for t in state_of(edited).values() if t.numel()):
        raise ContractError(
            f"Expected method {name!r} to return a model of its own, got one that shares memory "
            "with the given model (does `factory` return the model itself?)."
        )
    bad = not_finite(state_of(edited))
    if bad:
        raise ContractError(
            f"Expected finite weights from method {name!r}, got NaN or infinity in {bad[0]!r}."
        )
    if hook_count(edited) > hooks:
        raise ContractError(f"Expected method {name!r} to remove its hooks, got some left over.")
    plain = door.head is None or door.head.kind == "plain"
    plain = plain and not isinstance(door.original, RegionPatched)
    if structure == "same" and (plain or "training" not in door.needs):
        old, new = layout_of(door.original), layout_of(edited)
        for what in ("shapes", "dtypes", "devices"):
            if getattr(old, what) != getattr(new, what):
                raise ContractError(
                    f"Expected method {name!r} to keep names, shapes, dtypes and devices, but "
                    f"{what} differ. For retrain: does `factory` build the same architecture?"
                )


def _carried_statistics(
    door: _Door, handed: ForgetTask, edited: nn.Module, run: Run
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
