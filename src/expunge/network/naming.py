"""The tensors of a checkpoint under the names that a model has: prefixes off, extras out.

Wrappers leave their names in a checkpoint: `module.` (DataParallel, averaged models), `_orig_mod.`
(torch.compile), `_module.` (Opacus), `model.` and `net.` (Lightning and kin), in front or within.
Two names are the same where they are equal without them, if that fits exactly one tensor.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

__all__ = ["Renamed", "bare_name", "fitted", "nearest_names"]

_SURE = frozenset({"module", "_orig_mod", "_module"})
_WRAPPERS = _SURE | {"model", "net"}

_TRAINING = frozenset(
    (
        "criterion",
        "criterions",
        "loss",
        "losses",
        "loss_fn",
        "loss_func",
        "loss_function",
        "ema",
        "ema_model",
        "model_ema",
        "teacher",
        "metric",
        "metrics",
        "train_metrics",
        "val_metrics",
        "valid_metrics",
        "test_metrics",
        "train_acc",
        "val_acc",
        "test_acc",
        "accuracy",
        "n_averaged",
        "optimizer",
        "scheduler",
        "lr_scheduler",
        "scaler",
        "class_weights",
        "pos_weight",
    )
)
"""First parts of names that training leaves beside a model."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Renamed:
    """A state under the model's own names as far as that goes, and what was done, in sentences."""

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def bare_name(name: str, wrappers: frozenset[str] = _WRAPPERS) -> str:
    """A name without the parts that wrappers leave."""
    return ".".join(part for part in name.split(".") if part not in wrappers)


def fitted(own: Iterable[str], state: Mapping[str, Tensor]) -> Renamed:
    """`state` under the names `own` of a model.

    Entries that training left beside the model are left out: those that lie outside of the part
    that was renamed, and those whose name says so. Nothing is renamed where two entries would get
    one name; what is left unexpected stays, for the loader to refuse.
    """
    wanted = list(own)
    sources = {name: name for name in wanted if name in state}
    for wrappers in (_SURE, _WRAPPERS):
        sources |= _matched(wanted, state, sources, wrappers)
    taken = set(sources.values())
    renamed = {name: source for name, source in sources.items() if name != source}
    extra = [name for name in state if name not in taken]
    out = [name for name in extra if _of_training(name, wanted, taken, bool(renamed))]
    left = {name: state[name] for name in extra if name not in out}
    notes = []
    if renamed:
        name, source = next(iter(renamed.items()))
        notes.append(f"{len(renamed)} tensors renamed to the model's names ({source!r}: {name!r})")
    if out:
        notes.append(f"left out, no part of the model: {', '.join(sorted(out))}")
    return Renamed({name: state[source] for name, source in sources.items()} | left, tuple(notes))


def _matched(
    own: Iterable[str],
    state: Mapping[str, Tensor],
    sources: Mapping[str, str],
    wrappers: frozenset[str],
) -> dict[str, str]:
    """Which entries fit which names without these wrappers, one to one."""
    taken = set(sources.values())
    ours, theirs = (
        _by_bare((n for n in own if n not in sources), wrappers),
        _by_bare((n for n in state if n not in taken), wrappers),
    )
    return {
        names[0]: theirs[bare][0]
        for bare, names in ours.items()
        if len(names) == 1 and len(theirs.get(bare, ())) == 1
    }


def _by_bare(names: Iterable[str], wrappers: frozenset[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(bare_name(name, wrappers), []).append(name)
    return found


def _of_training(name: str, own: Iterable[str], taken: set[str], renamed: bool) -> bool:
    """Whether an entry is no part of the model: by its name, or outside of what was renamed."""
    first = name.partition(".")[0]
    parts = {n.partition(".")[0] for n in own}
    if first in _TRAINING and first not in parts:
        return True
    if not renamed or len({n.partition(".")[0] for n in taken}) != 1:
        return False
    return (
        first != next(iter(taken)).partition(".")[0]
        and bare_name(name).partition(".")[0] not in parts
    )


def nearest_names(missing: str, there: Iterable[str]) -> str | None:
    """The name that comes nearest, among those of a file; None where nothing does."""
    by_bare = {bare_name(name): name for name in there}
    found = difflib.get_close_matches(bare_name(missing), by_bare, n=1, cutoff=0.5)
    return by_bare[found[0]] if found else None
