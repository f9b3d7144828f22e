"""What the door has read, kept so that an audit need not read it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from expunge.data.copies import Views
from expunge.data.rows import Rows
from expunge.judging.copies import Copies
from expunge.judging.outputs import Outputs
from expunge.network.state import digest_of, hook_count, state_of
from expunge.task import ForgetTask

__all__ = ["Read", "Reading"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What one model said on the forget and judge rows, and where it was asked on more.

    On some rows that stay (`stays`), and on changed copies of the forget and judge rows.

    It said so with the weights of this `digest`, and with so many `hooks` hung on it.
    """

    model: nn.Module
    digest: str
    hooks: int
    outputs: Outputs
    stays: Float[Tensor, "stays classes"] | None = None
    copies: Copies = field(default_factory=dict)

    def still_of(self, model: nn.Module) -> bool:
        """Whether `model` is that very module, unchanged: equal weights are not enough."""
        same = model is self.model and hook_count(model) == self.hooks
        return same and digest_of(state_of(model)) == self.digest


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """Readings of one request: of the given and of the edited model, and of the references.

    `task` is the request as its caller gave it, `judge` the judge rows, `stays` some of the rows
    that stay, where they were read, `views` what the copies were made by.
    """

    task: ForgetTask
    judge: Rows | None
    stays: Rows | None
    before: Reading
    after: Reading
    references: tuple[Reading, ...] = ()
    views: Views | None = None
