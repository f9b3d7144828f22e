"""The door `unlearn`: the only place that checks, copies, seeds, edits, judges and records."""

from __future__ import annotations

from expunge.results.forgotten import Forgotten
from expunge.results.unlearned import Unlearned
from expunge.unlearning.door import Rehearsal, rehearse, unlearn

__all__ = ["Forgotten", "Rehearsal", "Unlearned", "rehearse", "unlearn"]
