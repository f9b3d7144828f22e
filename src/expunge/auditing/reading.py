"""Which rows an audit reads, and each of them once a model; what the door has read is reused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.audits.base import Part
from expunge.data.rows import Rows
from expunge.judging.outputs import Outputs
from expunge.judging.split import tune_and_judge
from expunge.network.passes import logits_of
from expunge.network.state import device_of, digest_of, hook_count, state_of
from expunge.results.forgotten import never_forgotten
from expunge.results.read import Read
from expunge.results.unlearned import Unlearned
from expunge.runtime.machine import where
from expunge.task import ForgetTask

__all__ = ["Areas", "Logits", "areas_of", "known_after", "known_before", "logits_in"]

_MOST_RETAINED = 2_000
_Area = Literal["forget", "judge", "retained"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Areas:
    """The rows to read, each once, and where in them the parts of the audit lie."""

    rows: Mapping[_Area, Rows]
    parts: Mapping[Part, tuple[_Area, Int[Tensor, " part"]]]

    def labels(self, part: Part) -> Int[Tensor, " part"]:
        """The labels of a part's rows."""
        area, places = self.parts[part]
        return self.rows[area].labels[places]


Logits = Mapping[_Area, Float[Tensor, "rows classes"]]
"""What one model says on each area."""


def areas_of(result: Unlearned, task: ForgetTask, gone: frozenset[int]) -> Areas:
    """Forget rows, judge rows (classes that are gone, and the rest), and rows that stay."""
    rows: dict[_Area, Rows] = {"forget": task.forget}
    parts: dict[Part, tuple[_Area, Tensor]] = {
        "forget-train": ("forget", torch.arange(len(task.forget)))
    }
    judge = _judge_rows(result, task)
    if judge is not None:
        rows["judge"] = judge
        absent = torch.isin(judge.labels, torch.tensor(sorted(gone), dtype=torch.int64))
        same = torch.isin(judge.labels, task.forget.labels.unique())
        parts["forget-test"] = "judge", (absent if task.classes else same).nonzero().flatten()
        parts["others"] = "judge", (~absent).nonzero().flatten()
    if task.scope == "records" and task.retain is not None:
        stays = never_forgotten(task.retain, result.forgotten)
        same = torch.isin(stays.labels, task.forget.labels.unique()).nonzero().flatten()
        every, own = _spread(torch.arange(len(stays))), _spread(same)
        together, places = torch.cat([every, own]).unique(return_inverse=True)
        rows["retained"] = stays.select(together)
        parts["retained"] = "retained", places[: len(every)]
        parts["retained-same"] = "retained", places[len(every) :]
    filled = {part: found for part, found in parts.items() if len(found[1])}
    return Areas(rows={a: r for a, r in rows.items() if len(r)}, parts=filled)


def _spread(places: Int[Tensor, " places"]) -> Int[Tensor, " some"]:
    """At most 2,000 of these places, evenly spaced."""
    chosen = torch.linspace(0, len(places) - 1, min(_MOST_RETAINED, len(places))).long()
    return places[chosen] if len(places) else places


def _judge_rows(result: Unlearned, task: ForgetTask) -> Rows | None:
    if result.read is not None and result.read.task is task:
        return result.read.judge
    if task.holdout is None:
        return None
    past = [r.rows for r in result.forgotten if r.rows is not None]
    stays = None
    if result.record.repeats_count and task.retain is not None:
        stays = never_forgotten(task.retain, result.forgotten)
    return tune_and_judge(task.holdout, [task.forget, *past], result.split_seed, stays).judge


def logits_in(
    areas: Areas,
    model: nn.Module,
    known: Logits,
    *,
    batch_size: int,
    device: torch.device | str | None,
) -> Logits:
    """What `model` says on every area; those in `known` are not read again."""
    missing = {area: rows for area, rows in areas.rows.items() if area not in known}
    placed = _placed(model, device) if missing else model
    own = device_of(placed)
    read = {
        area: logits_of(placed, rows, batch_size=batch_size, device=own)
        for area, rows in missing.items()
    }
    return {area: known[area] if area in known else read[area] for area in areas.rows}


def _placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """The model, or a copy of it on `device`: the user's own is never moved."""
    if device is None or where(device) == device_of(model):
        return model
    return copy.deepcopy(model).to(where(device))


def known_before(
    result: Unlearned, task: ForgetTask, model: nn.Module, device: torch.device | str | None
) -> Logits:
    """What the door has read with the model as it was given, where `model` is that very one.

    Equal weights are not enough: another module may answer otherwise.
    """
    read = _usable(result, task, model, device)
    if read is None or model is not result.original or hook_count(model) != read.hooks_before:
        return {}
    if digest_of(state_of(model)) != result.record.digest_before:
        return {}
    return _areas_in(read.before)


def known_after(
    result: Unlearned, task: ForgetTask, digest: str, device: torch.device | str | None
) -> Logits:
    """What the door has read with the edited model, where that has not changed since."""
    read = _usable(result, task, result.model, device)
    if read is None or hook_count(result.model) != read.hooks_after:
        return {}
    if digest != result.record.digest_after:
        return {}
    return _areas_in(read.after)


def _usable(
    result: Unlearned, task: ForgetTask, model: nn.Module, device: torch.device | str | None
) -> Read | None:
    """The door's own reading, where it was of this request and on such a device."""
    wanted = device_of(model) if device is None else where(device)
    same = wanted.type == result.record.environment.get("device")
    return result.read if same and result.read is not None and result.read.task is task else None


def _areas_in(outputs: Outputs) -> Logits:
    if outputs.judge is None:
        return {"forget": outputs.forget}
    return {"forget": outputs.forget, "judge": outputs.judge}
