"""Changed copies of the rows of a request for records, and what models answer on them.

A noisy copy of each row, and the views that the user named, tell a model that has forgotten from
one that answers from a table. Forget and judge rows are changed alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from expunge.data.copies import Views, noisy, spread_of, viewed
from expunge.data.rows import Rows
from expunge.errors import ModelError
from expunge.judging.outputs import Outputs, Sight
from expunge.network.passes import logits_of

__all__ = ["NOISE", "Copies", "Copy", "answers", "copies_of", "sights"]


NOISE = "noise"
"""The name of the noisy copies."""

_SEED = 0
"""Which noise: the same for every run, so that none can be picked."""


@final
@dataclass(frozen=True, slots=True)
class Copy:
    """The forget and the judge rows, changed alike."""

    forget: Rows
    judge: Rows


Copies = Mapping[str, tuple[Outputs, ...]]
"""By name of a way to change rows, `noise` or `views`: what a model answers, an entry a copy."""


def copies_of(rows: Copy, views: Views | None) -> Mapping[str, tuple[Copy, ...]]:
    """The changed copies by name, where the kind of the rows allows them.

    `noise`: 0.1 of the spread of the judge rows, where inputs are floating numbers. `views`: those
    of the function named.
    """
    found: dict[str, tuple[Copy, ...]] = {}
    spread = spread_of(rows.judge)
    if spread is not None:
        pair = (noisy(own, spread, seed=_SEED) for own in (rows.forget, rows.judge))
        found[NOISE] = (Copy(*pair),)
    if views is not None:
        pairs = zip(viewed(rows.forget, views), viewed(rows.judge, views), strict=True)
        found["views"] = tuple(Copy(own, other) for own, other in pairs)
    return found


def answers(
    model: nn.Module,
    copies: Mapping[str, tuple[Copy, ...]],
    *,
    batch_size: int,
    device: torch.device,
) -> Copies:
    """What a model answers on every copy.

    Noise is left out where the model does not run on it, or gives NaN or +∞: it is no row of the
    user's. Raises ModelError where the model does not run on the views.
    """

    def on(rows: Rows) -> torch.Tensor:
        return logits_of(model, rows, batch_size=batch_size, device=device)

    found: dict[str, tuple[Outputs, ...]] = {}
    for name, made in copies.items():
        try:
            said = tuple(Outputs(forget=on(one.forget), judge=on(one.judge)) for one in made)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            if name == NOISE:
                continue
            raise ModelError(
                f"Expected the model to run on the views named, but it raised "
                f"{type(error).__name__}: {error}. Name views that it can take, or none."
            ) from error
        if name != NOISE or not any(outputs.undefined for outputs in said):
            found[name] = said
    return found


def sights(
    before: Copies,
    after: Copies,
    references: Sequence[Copies],
    part: Callable[[Outputs], Outputs],
) -> dict[str, Sight]:
    """The answers of all models put together by name; `part` picks the records that are judged.

    Copies that one of the models gave no answers on are left out.
    """

    def parts(outputs: Sequence[Outputs]) -> tuple[Outputs, ...]:
        return tuple(part(one) for one in outputs)

    return {
        name: Sight(
            before=parts(before[name]),
            after=parts(after[name]),
            references=tuple(parts(one[name]) for one in references),
        )
        for name in before
        if all(name in other for other in (after, *references))
    }
