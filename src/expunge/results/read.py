"""What the door has read, kept so that an audit need not read it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from expunge.data.rows import Rows
from expunge.judging.outputs import Outputs
from expunge.task import ForgetTask

__all__ = ["Read"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """Logits of one request on its forget rows and on `judge`, by the given and the edited model.

    `task` is the request as its caller gave it. The logits are those of the weights that the
    record's `digest_before` and `digest_after` name, and of no others. `hooks_before` and
    `hooks_after` count the hooks that hung on the given and on the edited model.
    """

    task: ForgetTask
    judge: Rows | None
    before: Outputs
    after: Outputs
    hooks_before: int
    hooks_after: int
