"""What the three edits of prototypes cannot serve: statistics that do not know their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expunge.task import ForgetTask

__all__ = ["refuse_without_ids"]


def refuse_without_ids(task: ForgetTask) -> None:
    """Raise StatisticsError for statistics without ids: nothing can be taken out of them."""
    if task.statistics is not None:
        task.statistics.needed_members()
