"""What every method is: frozen hyper-parameters and one verb, `apply`.

A new method is one file with one final frozen dataclass. It never copies, seeds, checks or
records: the door `unlearn` does, and hands it a `Run` for the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, final

from expunge.records import MethodInfo, Need, Scope

if TYPE_CHECKING:
    from torch import Tensor, nn

    from expunge.certificate.facts import Evidence
    from expunge.data.rows import Rows
    from expunge.methods.run import Run
    from expunge.network.heads import Head
    from expunge.task import ForgetTask

__all__ = ["Before", "Method", "Progress"]


Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)` while a method works; total 0 means unknown."""


class Method(ABC):
    """An unlearning algorithm: frozen hyper-parameters plus one verb."""

    __slots__ = ()

    info: ClassVar[MethodInfo]

    @property
    def needs(self) -> frozenset[Need]:
        """What this value must be handed: `info.needs` and what its fields ask for beyond."""
        return self.info.needs | self._extra_needs()

    def _extra_needs(self) -> frozenset[Need]:
        return frozenset()

    def needs_for(self, scope: Scope) -> frozenset[Need]:
        """What this value must be handed for a request of this scope; `needs` for most methods."""
        del scope
        return self.needs

    def needs_in_words(self) -> str:
        """`info.needs`, and what a scope asks for beyond, as lists and tables show it."""
        words = ", ".join(sorted(self.info.needs))
        for scope in sorted(self.info.scopes):
            beyond = self.needs_for(scope) - self.info.needs
            if beyond:
                words += f"; for {scope} also {', '.join(sorted(beyond))}"
        return words

    @classmethod
    def small(cls) -> Self:
        """The value that the promises are checked with on toys; defaults are made for real data."""
        return cls()

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Raise an ExpungeError where this request on this model cannot be served; changes nothing.

        Called by the door after its own checks and by a dry run, before anything is copied. What
        the types of the fields say of each setting has been checked by then (`expunge.settings`);
        here belongs what must hold between settings, request and model. By default nothing is
        refused.
        """
        del model, task, before

    def widened(self, task: ForgetTask) -> ForgetTask:
        """The request as this method takes it: rows that stay may join the forget set.

        Called by the door after its own checks of the request, before the holdout is split and
        `refuse` is called; the rows that join are forgotten like the others. Only `chosen` may
        change, and no row may leave it. By default the request is taken as it is.
        """
        return task

    def refused_by_data(self, task: ForgetTask) -> Mapping[int, str]:
        """Positions of `task.forget` that `apply` will refuse whatever the model, with reasons.

        Called by a dry run only. By default none is foreseen.
        """
        del task
        return {}

    @abstractmethod
    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Return `model`, a private copy, edited so that it forgets `task.forget`.

        Keep every state entry's name, shape, dtype and device (structure `same`). Draw randomness
        only from `run.generator`. Leave no hooks. Raise UnsupportedError before any edit.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What a method may know before work starts: the model's head, and earlier certificates.

    `initial` are the weights before training where they were kept, `tune` the part of the holdout
    that the method will be handed as its own.
    """

    head: Head | None
    evidence: Evidence | None
    predecessor: str | None
    initial: Mapping[str, Tensor] | None = None
    tune: Rows | None = None
