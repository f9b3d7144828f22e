"""The model as a few rows show it: its head, its classes, and that its answer is the row's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Inputs, Rows
from expunge.errors import ModelError, UnsupportedError
from expunge.methods.base import Method
from expunge.network.calls import to_device
from expunge.network.heads import find_head
from expunge.network.passes import count_classes
from expunge.network.state import device_of
from expunge.network.steady import refuse_unsteady
from expunge.patches.regions import RegionPatched
from expunge.unlearning.request import Found

__all__ = ["found_by", "look_at_answers"]

_LOOKED = 2
_COMPANY = 2


def found_by(
    model: nn.Module,
    method: Method,
    inputs: Inputs,
    needs: frozenset[Any],
    head_name: str | None,
) -> Found:
    """The head where the method needs it, or where it is plain to see; and the number of classes.

    Methods that edit a plain head do not know gates, missing rows and patches on regions.
    """
    edits_head = not {"head", "statistics"}.isdisjoint(needs)
    if isinstance(model, RegionPatched):
        if edits_head:
            raise UnsupportedError(
                f"Expected a plain linear head for {method.info.name!r}, got a model patched "
                "on linear regions. Go on with `prune-published`, or retrain."
            )
        return Found(None, count_classes(model, inputs, "forget"))
    if not edits_head:
        classes = count_classes(model, inputs, "forget")
        try:
            return Found(find_head(model, inputs, name=head_name), classes)
        except ModelError:
            if head_name is not None:
                raise
            return Found(None, classes)
    head = find_head(model, inputs, name=head_name)
    if head.kind != "plain" and method.info.structure == "same":
        raise UnsupportedError(
            f"Expected a plain linear head for {method.info.name!r}, got one that is "
            f"{head.kind} by an earlier request. Go on with `prune`, or retrain."
        )
    return Found(head, head.classes)


def look_at_answers(model: nn.Module, rows: Rows, others: Rows | None = None) -> None:
    """Raise ModelError where an answer depends on more than the row.

    Run it inside of `unwritten`: a pass may write buffers.

    Up to two rows are looked at among two more of `rows`, or of `others` where there are none.
    """
    own = rows.batch(torch.arange(min(_LOOKED, len(rows))))[0]
    among = _beside(rows, others)
    company = own if among is None else _joined(among, own)
    count = len(company) if isinstance(company, Tensor) else len(next(iter(company.values())))
    look = max(1, min(_LOOKED, count - 1))
    refuse_unsteady(model, to_device(company, device_of(model)), look)


def _beside(rows: Rows, others: Rows | None) -> Inputs | None:
    if len(rows) > _LOOKED:
        return rows.batch(torch.arange(_LOOKED, min(_LOOKED + _COMPANY, len(rows))))[0]
    if others is None or not len(others):
        return None
    return others.batch(torch.arange(min(_COMPANY, len(others))))[0]


def _joined(first: Inputs, second: Inputs) -> Inputs:
    """Both batches as one; the second alone where their rows do not fit together."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        fits = first.shape[1:] == second.shape[1:] and first.dtype == second.dtype
        return torch.cat([first, second]) if fits else second
    if isinstance(first, Tensor) or isinstance(second, Tensor) or first.keys() != second.keys():
        return second
    joined = {name: _joined(first[name], second[name]) for name in second}
    count = len(next(iter(first.values()))) + len(next(iter(second.values())))
    return joined if all(len(t) == count for t in joined.values()) else second  # type: ignore[return-value]
