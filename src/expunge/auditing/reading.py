"""Which rows an audit reads, and each of them once a model; what the door has read is reused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.audits.base import Part
from expunge.data.copies import Views
from expunge.data.rows import Rows
from expunge.judging.copies import Copies
from expunge.judging.independence import RETAINED_SEED, chosen_retained
from expunge.judging.outputs import Outputs
from expunge.judging.split import tune_and_judge
from expunge.network.passes import logits_of
from expunge.network.placed import placed
from expunge.network.state import device_of
from expunge.results.forgotten import never_forgotten
from expunge.results.unlearned import Unlearned
from expunge.runtime.machine import where
from expunge.task import ForgetTask

__all__ = ["Areas", "Known", "Logits", "areas_of", "known_of", "logits_in"]

_MOST_RETAINED = 2_000
_Area = Literal["forget", "judge", "retained"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Areas:
    """The rows to read, each once, and where in them the parts of the audit lie.

    `few` are places of retained rows: those of the records' classes that the door looks at, too.
    """

    rows: Mapping[_Area, Rows]
    parts: Mapping[Part, tuple[_Area, Int[Tensor, " part"]]]
    few: Int[Tensor, " few"] | None = None

    def labels(self, part: Part) -> Int[Tensor, " part"]:
        """The labels of a part's rows."""
        area, places = self.parts[part]
        return self.rows[area].labels[places]


Logits = Mapping[_Area, Float[Tensor, "rows classes"]]
"""What one model says on each area."""


def areas_of(result: Unlearned, task: ForgetTask, gone: frozenset[int]) -> Areas:
    """Forget rows, judge rows (classes that are gone, and the rest), and rows that stay."""
    few: Tensor | None = None
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
        chosen = chosen_retained(stays.labels, task.forget.labels, RETAINED_SEED)
        together, places = torch.cat([every, own, chosen]).unique(return_inverse=True)
        rows["retained"] = stays.select(together)
        parts["retained"] = "retained", places[: len(every)]
        parts["retained-same"] = "retained", places[len(every) : len(every) + len(own)]
        few = places[len(every) + len(own) :] if len(chosen) else None
    filled = {part: found for part, found in parts.items() if len(found[1])}
    return Areas(rows={a: r for a, r in rows.items() if len(r)}, parts=filled, few=few)


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
    known: Known,
    *,
    batch_size: int,
    device: torch.device | str | None,
) -> Logits:
    """What `model` says on every area; rows that are known are not read again."""
    target = device_of(model) if device is None else where(device)
    asked = _Asked(model, target, batch_size)
    return {
        area: known.areas[area] if area in known.areas else asked.on(rows, known.rows)
        for area, rows in areas.rows.items()
    }


@final
class _Asked:
    """A model that is put on its device when the first row has to be read, and not before."""

    def __init__(self, model: nn.Module, device: torch.device, batch_size: int) -> None:
        self._model, self._device, self._size = model, device, batch_size

    def on(self, rows: Rows, known: Mapping[str, Tensor]) -> Float[Tensor, "rows classes"]:
        """Its logits; rows whose ids are `known` are not read."""
        fresh = [n for n, text in enumerate(rows.ids) if text not in known]
        read = self._read(rows.select(torch.tensor(fresh))) if fresh else None
        if read is not None and len(fresh) == len(rows):
            return read
        classes = len(next(iter(known.values())))
        out = torch.empty(len(rows), classes)
        for n, text in enumerate(rows.ids):
            if text in known:
                out[n] = known[text]
        if read is not None:
            out[torch.tensor(fresh)] = read
        return out

    def _read(self, rows: Rows) -> Float[Tensor, "rows classes"]:
        self._model = placed(self._model, self._device)
        return logits_of(self._model, rows, batch_size=self._size, device=self._device)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What a model is known to say: on whole areas, on rows that stay by id, on changed copies."""

    areas: Logits = field(default_factory=dict)
    rows: Mapping[str, Float[Tensor, " classes"]] = field(default_factory=dict)
    copies: Copies = field(default_factory=dict)


def known_of(
    result: Unlearned,
    task: ForgetTask,
    model: nn.Module,
    views: Views | None,
    device: torch.device | str | None,
) -> Known:
    """What the door has read of this request with this very model, on such a device.

    Changed copies are known where the door has made them by the same `views`.
    """
    read = result.read
    wanted = device_of(model) if device is None else where(device)
    if read is None or read.task is not task:
        return Known()
    if wanted.type != result.record.environment.get("device"):
        return Known()
    for reading in (read.before, read.after, *read.references):
        if reading.still_of(model):
            stays = () if read.stays is None or reading.stays is None else read.stays.ids
            logits = () if reading.stays is None else reading.stays
            return Known(
                areas=_areas_in(reading.outputs),
                rows=dict(zip(stays, logits, strict=True)),
                copies=reading.copies if read.views is views else {},
            )
    return Known()


def _areas_in(outputs: Outputs) -> Logits:
    if outputs.judge is None:
        return {"forget": outputs.forget}
    return {"forget": outputs.forget, "judge": outputs.judge}
