"""Entangled records: known by their inputs before an edit, by their geometry in one.

They are refused, or forgotten together with the rows that stay and are the same input, or an error,
as the field `entangled` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch

from expunge.errors import MethodError, UnsupportedError
from expunge.methods.prune.evidence import Edit
from expunge.methods.prune.twins import find_twins
from expunge.methods.run import Run
from expunge.task import ForgetTask

__all__ = ["refuse_entangled", "refuse_identical", "refuse_unserved", "same_inputs", "with_twins"]

_IDENTICAL = "identical to retained rows"
_WHY: Mapping[str, str] = {
    "identical": _IDENTICAL,
    "hull": "between retained rows in their features",
    "rounding": "not separable from other rows beyond rounding",
}


def same_inputs(task: ForgetTask) -> dict[int, str]:
    """Positions of records whose input stays under another id, found without the network."""
    found = find_twins(task.forget, task.retain)
    return dict.fromkeys(sorted(found.retained), _IDENTICAL)


def with_twins(task: ForgetTask) -> ForgetTask:
    """The request with every row that stays and is the same input as one of its records."""
    if task.chosen is None or task.retain is None:
        return task
    twins = find_twins(task.forget, task.retain).copies
    places = (~task.chosen).nonzero().flatten()[torch.tensor(twins, dtype=torch.int64)]
    chosen = task.chosen.clone()
    chosen[places] = True
    return replace(task, chosen=chosen)


def refuse_identical(task: ForgetTask) -> None:
    """Raise UnsupportedError where some record is the same input as a row that stays."""
    count = len(same_inputs(task))
    if count:
        raise UnsupportedError(
            f"Expected records that no row equals that stays, got {count} of {len(task.forget)} "
            f"that are {_IDENTICAL}. Forget these rows too, for instance with "
            '`entangled = "forget-twins"`, or use `entangled = "refuse"` to leave the records out.'
        )


def refuse_entangled(edit: Edit) -> None:
    """Raise MethodError where some record has no claim, with the number and the reasons."""
    left = _unserved(edit)
    if left:
        counts = ", ".join(f"{n} {why}" for why, n in sorted(Counter(left.values()).items()))
        raise MethodError(
            f"Expected every record to be separable from what stays, got {len(left)} of "
            f"{len(edit.scene.forget.ids)} that are not: {counts}. Ask for the others alone, use "
            '`entangled = "refuse"` to leave these out, or use retrain.'
        )


def refuse_unserved(run: Run, edit: Edit) -> None:
    """Tell the door for which records nothing was done."""
    for position, why in _unserved(edit).items():
        run.refuse_records([position], why)


def _unserved(edit: Edit) -> dict[int, str]:
    """Why there is no claim, by position of the record."""
    if edit.form == "gated":
        return {e.position: _WHY[e.reason] for e in edit.entangled}
    copies = edit.scene.twins.retained
    left = (i for i in range(len(edit.scene.forget.ids)) if i not in edit.claims)
    return {i: _IDENTICAL if i in copies else "not merged" for i in left}
