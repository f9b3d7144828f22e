"""One promise as a check to call, and the same check turned round where it is known to fail.

A broken promise raises ContractError with the name of the method or audit and what was found. What
is expected to fail is never left out: it runs, and must fail (`turned`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch

from expunge.audits.base import Audit
from expunge.errors import ContractError
from expunge.methods.base import Method
from expunge.runtime.randomness import isolated

__all__ = ["CPU", "Check", "require", "turned"]

CPU = torch.device("cpu")
"""Where the promises are checked."""


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One promise: call it to check; it raises ContractError where the promise is broken."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run the check in a random state of its own."""
        with isolated(0, CPU):
            self.run()


def require(promise: bool, of: Method | Audit, sentence: str) -> None:
    """Raise ContractError with what was found, where the promise does not hold."""
    if not promise:
        kind = "Method" if isinstance(of, Method) else "Audit"
        raise ContractError(f"{kind} {of.info.name!r}: {sentence}")


def turned(check: Check, of: Method | Audit, said_in: str) -> Check:
    """The same check turned round: it holds where the promise is broken, as `said_in` says."""
    return Check(check.name, partial(_broken, check, of, said_in))


def _broken(check: Check, of: Method | Audit, said_in: str) -> None:
    try:
        check()
    except ContractError:
        return
    require(False, of, f"`{check.name}` is expected to fail, but passes: take it off `{said_in}`")
