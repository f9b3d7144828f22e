"""The door `unlearn`: the only place that checks, copies, seeds, edits, judges and records."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from expunge.data.copies import Views
from expunge.data.rows import Rows
from expunge.errors import InputError
from expunge.judging.split import Repeats
from expunge.methods.base import Method, Progress
from expunge.methods.run import Means
from expunge.network.state import device_of
from expunge.records import Limits
from expunge.results.references import refuse_references, refuse_unfit_references
from expunge.results.unlearned import Unlearned, module_of
from expunge.runtime.machine import where
from expunge.runtime.randomness import isolated, preserved
from expunge.settings import checked_count
from expunge.task import ForgetTask
from expunge.unlearning.checks import (
    checked_already,
    checked_limits,
    checked_method,
    checked_model,
    checked_repeats,
    checked_seed,
    checked_task,
    look_at_data,
    refuse_unfit,
    with_references,
    with_views,
)
from expunge.unlearning.compared import split_of, twins_of
from expunge.unlearning.history import settled, without_forgotten
from expunge.unlearning.looks import judged, looked_at
from expunge.unlearning.numbering import refuse_renamed
from expunge.unlearning.promises import kept_promises
from expunge.unlearning.record import result_of
from expunge.unlearning.request import Already, Found, Past, Request
from expunge.unlearning.served import served_by
from expunge.unlearning.stored import empty_for, stored
from expunge.unlearning.work import private_copy, worked

__all__ = ["Rehearsal", "rehearse", "unlearn"]


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
    factory: Callable[[], nn.Module] | None = None,
    limits: Limits | None = None,
    views: str | Views | None = None,
    references: Sequence[nn.Module | Unlearned] = (),
    repeats: Repeats = "error",
    already: Already = "error",
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Unlearned:
    """Return a model that forgets `task.forget`, with the record of how and how well.

    `model` is a classifier that returns logits (batch, classes), or the result of an earlier call:
    then everything forgotten so far stays forgotten and is checked again. The given model, data
    and global random state are unchanged. `device` defaults to the model's own. `head` names the
    final linear layer where it cannot be found; `initial` are the weights before training, where
    kept. `views` makes label-preserving views of rows: "images" (mirrored, and shifted by two
    pixels), a function from a batch to a list of batches, or "none". `references` are models
    trained anew without the forget set, or results of `Retrain`: from three on, what they do is
    what the outcome is measured against. Raises an `ExpungeError` before any edit if something is
    wrong.

    Holdout rows with the content of a training row that stays leave the holdout and are counted,
    where the method reads the training rows; more than 1 % of them are an error, unless `repeats`
    is "expected". Records that an earlier request has forgotten are an error, unless `already` is
    "skip": then they are passed over and counted.

    What comes back and is judged is rebuilt from the bytes of the edited weights, in a module that
    `factory` builds (as for `load_run`), or by default in a second copy of the given model.

    A poor result is not an error: it is named in `record.outcome` (`no-op`, `ineffective`,
    `wrecked`, `undetermined`, `incomplete` or `done`).
    """
    began = time.perf_counter()
    means = Means(
        seed=checked_seed(seed),
        device=_device(model, device),
        head=head,
        initial=initial,
        limits=checked_limits(limits),
        batch_size=checked_count(batch_size, "batch_size"),
        progress=progress,
    )
    request = _opened(model, method, task, means, views, references, (repeats, already))
    empty = empty_for(request, factory)
    copied = private_copy(request)
    look = looked_at(request, copied)
    with isolated(means.seed, means.device) as generator:
        work = worked(request, copied, look, generator)
    kept = stored(request, empty, kept_promises(request, look, work))
    served = served_by(request, work)
    verdict = judged(request, look, kept, served)
    return result_of(served, look, work, kept.edited, verdict, time.perf_counter() - began)


def _device(model: nn.Module | Unlearned, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return where(device)
    module = module_of(model)
    return device_of(module) if isinstance(module, nn.Module) else torch.device("cpu")


def _opened(
    model: nn.Module | Unlearned,
    method: Method,
    task: ForgetTask,
    means: Means,
    views: str | Views | None,
    references: Sequence[nn.Module | Unlearned],
    allowed: tuple[Repeats, Already],
) -> Request:
    """Check everything that can be checked before an edit; nothing is copied or changed."""
    repeats, already = checked_repeats(allowed[0]), checked_already(allowed[1])
    earlier = model if isinstance(model, Unlearned) else None
    if earlier is not None and not earlier.history_known:
        raise InputError(
            "Expected a run whose history is known to unlearn further, got one loaded without its "
            "private/ part: what it forgot could serve as training data again. Put private/ back "
            "beside its record.json, and load it again."
        )
    given = checked_model(module_of(model))
    method, asked = checked_method(method), checked_task(task)
    past = Past.of(earlier)
    served = past.serving(with_references(with_views(asked, views), references), method)
    refuse_unfit(method, served)
    named = {f"reference {n}": one for n, one in enumerate(served.references)}
    refuse_references(named, served, given, past.forgotten)
    refuse_renamed(past.class_names, served.rows)
    found = look_at_data(given, method, served, means.head or past.head)
    refuse_unfit_references(named, served.forget, found.classes)
    kept, known = without_forgotten(served, past, method, found, already)
    split, heard = split_of(kept, known, method, repeats)
    final_task, said = settled(kept, heard, given, method, found)
    request = Request(
        model=given,
        method=method,
        asked=asked,
        task=final_task,
        means=means,
        past=dataclasses.replace(said, notes=(*_read_as(served), *said.notes)),
        found=found,
        split=split,
    )
    method.refuse(given, final_task, request.before)
    return request


def _read_as(task: ForgetTask) -> tuple[str, ...]:
    """How the data were read, where that is not plain to see."""
    own = () if task.holdout is None else task.holdout.notes
    return tuple(dict.fromkeys((*task.rows.notes, *own)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rehearsal:
    """What `rehearse` found: the request is fit to run, with these sizes.

    `refused` are the positions of forget rows that the method will refuse, as far as the data tell.
    """

    request: Request
    refused: Mapping[int, str]

    @property
    def found(self) -> Found:
        """What a look at the model has shown."""
        return self.request.found

    @property
    def forget_count(self) -> int:
        """How many rows are asked to be forgotten."""
        return len(self.request.task.forget)

    @property
    def retain_count(self) -> int | None:
        """How many rows stay, where they are at hand."""
        stays = self.request.task.retain
        return None if stays is None else len(stays)

    @property
    def tune_count(self) -> int:
        """How many holdout rows a method is handed."""
        return _count(self.request.split.tune)

    @property
    def judge_count(self) -> int:
        """How many holdout rows judge."""
        return _count(self.request.split.judge)

    @property
    def dropped_from_holdout(self) -> int:
        """How many holdout rows are left out."""
        return self.request.split.dropped

    @property
    def repeats_count(self) -> int | None:
        """How many holdout rows are also among the rows that stay; None: not compared."""
        return self.request.split.repeats

    @property
    def twins_count(self) -> int | None:
        """How many records that are not refused stay under another id; None: not compared."""
        final = self.request.task
        twins = twins_of(final, self.request.method)
        left = {final.forget.ids[i] for i in self.refused}
        return None if twins is None else len(set(twins) - left)

    @property
    def statistics(self) -> bool:
        """Whether feature statistics are at hand."""
        return self.request.task.statistics is not None


def _count(rows: Rows | None) -> int:
    return 0 if rows is None else len(rows)


@preserved()
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
    views: str | Views | None = None,
    references: Sequence[nn.Module | Unlearned] = (),
    repeats: Repeats = "error",
    already: Already = "error",
) -> Rehearsal:
    """Make every check that `unlearn` makes before it edits, and edit nothing."""
    means = Means(
        seed=checked_seed(seed),
        device=_device(model, device),
        head=head,
        initial=initial,
        limits=checked_limits(limits),
    )
    request = _opened(model, method, task, means, views, references, (repeats, already))
    return Rehearsal(request=request, refused=method.refused_by_data(request.task))
