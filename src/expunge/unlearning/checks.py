"""Everything that can be refused before an edit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.errors import (
    DataError,
    InputError,
    ModelError,
    TaskError,
    UnsupportedError,
)
from expunge.methods.base import Method
from expunge.network.answers import as_logits
from expunge.network.calls import to_device, tried
from expunge.network.heads import find_head
from expunge.network.state import (
    device_of,
    not_finite,
    state_of,
)
from expunge.patches.regions import RegionPatched
from expunge.settings import check_settings
from expunge.task import ForgetTask
from expunge.unlearning.request import Door

__all__ = [
    "checked_method",
    "checked_model",
    "checked_seed",
    "checked_task",
    "look_at_data",
    "refuse_unfit",
]


def checked_seed(seed: int) -> int:
    """The seed, or InputError."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"Expected `seed` to be an integer from 0, got {seed!r}.")
    return seed


def checked_method(method: Method) -> Method:
    """The method with settings that mean something, or InputError."""
    if not isinstance(method, Method):
        hint = " Call it: pass `Method()`." if isinstance(method, type) else ""
        raise InputError(f"Expected `method` to be a Method, got {method!r}.{hint}")
    check_settings(method)
    return method


def checked_task(task: ForgetTask) -> ForgetTask:
    """The task, or InputError."""
    if not isinstance(task, ForgetTask):
        raise InputError(
            f"Expected `task` to be a ForgetTask, got {type(task).__name__}. Make one with "
            "forget_classes, forget_indices or forget_ids."
        )
    return task


def checked_model(model: Any) -> nn.Module:
    """The model, or ModelError for what cannot be unlearned."""
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


def refuse_unfit(door: Door) -> None:
    """Refuse scopes, aims and missing needs."""
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


def look_at_data(door: Door, head_name: str | None) -> None:
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


def _refuse_patched(door: Door) -> None:
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
