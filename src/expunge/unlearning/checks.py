"""Everything that can be refused before an edit: nothing is copied or changed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from expunge.data.copies import Views, checked_views, refuse_unfit_views
from expunge.data.rows import Rows
from expunge.errors import DataError, InputError, ModelError, TaskError, UnsupportedError
from expunge.judging.split import Repeats
from expunge.methods.base import Method
from expunge.network.calls import to_device, unwritten
from expunge.network.lazy import lazy_layers
from expunge.network.passes import count_classes
from expunge.network.state import device_of, not_finite, state_of
from expunge.records import Limits
from expunge.results.unlearned import module_of
from expunge.settings import check_settings, plain
from expunge.task import ForgetTask
from expunge.unlearning.found import found_by, look_at_answers
from expunge.unlearning.numbering import refuse_misnumbered
from expunge.unlearning.request import Already, Found

__all__ = [
    "checked_already",
    "checked_limits",
    "checked_method",
    "checked_model",
    "checked_repeats",
    "checked_seed",
    "checked_task",
    "look_at_data",
    "refuse_random_rows",
    "refuse_unfit",
    "with_references",
    "with_views",
]


def checked_seed(seed: int) -> int:
    """The seed; raises InputError for anything but an integer from 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"Expected `seed` to be an integer from 0, got {seed!r}.")
    return seed


def checked_repeats(repeats: Repeats) -> Repeats:
    """What many repeats in the holdout are; raises InputError for anything else."""
    if repeats not in get_args(Repeats):
        raise InputError(f'Expected `repeats` to be "error" or "expected", got {repeats!r}.')
    return repeats


def checked_already(already: Already) -> Already:
    """What records are that are forgotten already; raises InputError for anything else."""
    if already not in get_args(Already):
        raise InputError(f'Expected `already` to be "error" or "skip", got {already!r}.')
    return already


def checked_limits(limits: Limits | None) -> Limits:
    """The limits, or the usual ones, in plain numbers; raises InputError for anything else."""
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise InputError(f"Expected `limits` to be a Limits, got {type(limits).__name__}.")
    check_settings(limits, within="limits")
    return plain(limits)


def checked_method(method: Method) -> Method:
    """The method in plain numbers; raises InputError for others, and settings it cannot have."""
    if not isinstance(method, Method):
        hint = " Call it: pass `Method()`." if isinstance(method, type) else ""
        raise InputError(f"Expected `method` to be a Method, got {method!r}.{hint}")
    check_settings(method)
    return plain(method)


def checked_task(task: ForgetTask) -> ForgetTask:
    """The task; raises InputError for anything else."""
    if not isinstance(task, ForgetTask):
        raise InputError(
            f"Expected `task` to be a ForgetTask, got {type(task).__name__}. Make one with "
            "forget_classes, forget_indices or forget_ids."
        )
    return task


def with_views(task: ForgetTask, views: str | Views | None) -> ForgetTask:
    """The task with the views named beside it, or its own; raises DataError for anything else."""
    chosen = checked_views(task.views if views is None else views)
    if chosen is task.views:
        return task
    return task.having(dataclasses.replace(task.given, views=chosen))


def with_references(task: ForgetTask, references: Sequence[Any]) -> ForgetTask:
    """The task with retrained models beside it; raises ModelError for what is no model."""
    for number, reference in enumerate(references):
        module = module_of(reference)
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"Expected `references` to be models or results of `Retrain`, got "
                f"{type(reference).__name__} at {number}. Load it into its module first."
            )
    if not references:
        return task
    return task.having(dataclasses.replace(task.given, references=tuple(references)))


def checked_model(model: Any) -> nn.Module:
    """The model; raises ModelError for what cannot be unlearned."""
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
    asleep = lazy_layers(model)
    if asleep:
        raise ModelError(
            f"Expected a model whose layers have their shapes, got the lazy layer {asleep[0]!r}, "
            "which has seen no row. Run one batch through it first, in eval mode."
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


def refuse_unfit(method: Method, task: ForgetTask) -> None:
    """Raise where the method does not serve this scope or aim, or something it needs is missing."""
    info, needs = method.info, method.needs_for(task.scope)
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
    if "retain" in needs and task.chosen is None:
        raise UnsupportedError(
            f"Expected training data for {info.name!r}, got the forget rows alone. Give `train`, "
            "or use a method that needs forget data only (mu-mis, mask-class)."
        )
    if "statistics" in needs and task.statistics is None and task.chosen is None:
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
    if task.statistics is not None and task.chosen is None and not task.rows.given_ids:
        raise TaskError(
            "Expected explicit `ids` where statistics are used with the forget rows alone, got row "
            "numbers: they would not match those of the training data. Give the forget rows' ids."
        )


def look_at_data(
    model: nn.Module, method: Method, task: ForgetTask, head_name: str | None
) -> Found:
    """Read a few rows and their views twice, find the head, check labels.

    The model answers some rows again, in other company and alone: see `network.steady`. Its
    buffers are afterwards what they were.
    """
    needs = method.needs_for(task.scope)
    shown = {"forget": task.forget, "holdout": task.holdout}
    if "retain" in needs or ("statistics" in needs and task.statistics is None):
        shown["train"] = task.retain
    for name, rows in shown.items():
        if rows is not None and not len(rows):
            raise DataError(f"Expected `{name}` to hold at least one row, got none.")
        if rows is not None:
            refuse_random_rows(rows, name)
        if rows is not None and task.views is not None and name != "train":
            refuse_unfit_views(task.views, rows, name)
    own = device_of(model)
    with unwritten(model):
        look_at_answers(model, task.forget, task.holdout)
        inputs, _ = task.forget.batch(torch.arange(min(2, len(task.forget))))
        found = found_by(model, method, to_device(inputs, own), needs, head_name)
        for name, rows in shown.items():
            if rows is not None and name != "forget":
                few, _ = rows.batch(torch.arange(min(2, len(rows))))
                count_classes(model, to_device(few, own), name)
    for name, rows in (("forget", task.forget), ("holdout", task.holdout), ("train", task.retain)):
        if rows is not None:
            whole = rows if name == "holdout" else task.rows
            refuse_misnumbered(name, rows, whole, found.classes)
    return found


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
    if not all(torch.equal(a, b) for a, b in pairs):
        raise DataError(
            f"Expected `{name}` to give the same row each time, but reading 32 rows twice gave "
            "different values. Switch off random augmentation: features must be repeatable. "
            "Augmentation belongs in the training recipe."
        )
