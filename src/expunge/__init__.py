"""Expunge removes data from trained classifiers and shows what was achieved.

Names are resolved on first use, so that reading a record or checking a certificate works where
torch is not installed:

    task   = expunge.forget_classes(train, {3}, holdout=test)
    result = expunge.unlearn(model, expunge.LeastSquaresRemoval(), task, seed=0)
    report = expunge.audit(result, task, references=[retrained])

The methods among the names are those of `expunge.methods.METHODS`, listed there alone; so
`__all__` is put together on first use, too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.auditing.door import audit as audit
    from expunge.errors import ExpungeError as ExpungeError
    from expunge.methods import METHODS as METHODS
    from expunge.methods import Method as Method
    from expunge.patches.heads import export_narrow as export_narrow
    from expunge.records import Limits as Limits
    from expunge.records import Measurement as Measurement
    from expunge.records import NotMeasured as NotMeasured
    from expunge.records import Outcome as Outcome
    from expunge.records import RunRecord as RunRecord
    from expunge.results.report import AuditReport as AuditReport
    from expunge.results.unlearned import Unlearned as Unlearned
    from expunge.runs.loading import load_run as load_run
    from expunge.runs.saving import save_run as save_run
    from expunge.statistics.features import FeatureStatistics as FeatureStatistics
    from expunge.task import ForgetTask as ForgetTask
    from expunge.task import forget_classes as forget_classes
    from expunge.task import forget_ids as forget_ids
    from expunge.task import forget_indices as forget_indices
    from expunge.task import forget_subclasses as forget_subclasses
    from expunge.training import Recipe as Recipe
    from expunge.training import Training as Training
    from expunge.unlearning.door import unlearn as unlearn

# written by: python -m docs.generate
if TYPE_CHECKING:
    from expunge.methods import FineTune as FineTune
    from expunge.methods import LeastSquaresRemoval as LeastSquaresRemoval
    from expunge.methods import MaskClass as MaskClass
    from expunge.methods import MuMis as MuMis
    from expunge.methods import NaivePrototypeSurgery as NaivePrototypeSurgery
    from expunge.methods import PrototypeSurgery as PrototypeSurgery
    from expunge.methods import Prune as Prune
    from expunge.methods import PrunePublished as PrunePublished
    from expunge.methods import Retrain as Retrain
# end

_METHODS = "expunge.methods"

_HOME = {
    "expunge.auditing.door": ("audit",),
    "expunge.errors": ("ExpungeError",),
    _METHODS: ("METHODS", "Method"),
    "expunge.patches.heads": ("export_narrow",),
    "expunge.records": ("Limits", "Measurement", "NotMeasured", "Outcome", "RunRecord"),
    "expunge.results.report": ("AuditReport",),
    "expunge.results.unlearned": ("Unlearned",),
    "expunge.runs.loading": ("load_run",),
    "expunge.runs.saving": ("save_run",),
    "expunge.statistics.features": ("FeatureStatistics",),
    "expunge.task": (
        "ForgetTask",
        "forget_classes",
        "forget_ids",
        "forget_indices",
        "forget_subclasses",
    ),
    "expunge.training": ("Recipe", "Training"),
    "expunge.unlearning.door": ("unlearn",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}


def _where() -> dict[str, str]:
    """The module of every public name, the methods included."""
    methods = import_module(_METHODS).METHODS
    return _WHERE | {method.__name__: _METHODS for method in methods}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__all__":
        value = sorted(_where())
    elif name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif not name.startswith("_") and name in _where():
        value = getattr(import_module(_METHODS), name)
    else:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), "__all__", *_where()})
