"""Expunge removes data from trained classifiers and shows what was achieved.

Names are resolved on first use, so that reading a record or checking a certificate works where
torch is not installed:

    task   = expunge.forget_classes(train, {3}, holdout=test)
    result = expunge.unlearn(model, expunge.LeastSquaresRemoval(), task, seed=0)
    report = expunge.audit(result, task, references=[retrained])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.auditing.door import audit
    from expunge.errors import ExpungeError
    from expunge.methods import (
        METHODS,
        FineTune,
        LeastSquaresRemoval,
        MaskClass,
        Method,
        MuMis,
        NaivePrototypeSurgery,
        PrototypeSurgery,
        Prune,
        PrunePublished,
        Retrain,
    )
    from expunge.patches.heads import export_narrow
    from expunge.records import Limits, Measurement, NotMeasured, Outcome, RunRecord
    from expunge.results.report import AuditReport
    from expunge.results.unlearned import Unlearned
    from expunge.runs.loading import load_run
    from expunge.runs.saving import save_run
    from expunge.statistics.features import FeatureStatistics
    from expunge.task import (
        ForgetTask,
        forget_classes,
        forget_ids,
        forget_indices,
        forget_subclasses,
    )
    from expunge.training import Recipe, Training
    from expunge.unlearning.door import unlearn

__all__ = [
    "METHODS",
    "AuditReport",
    "ExpungeError",
    "FeatureStatistics",
    "FineTune",
    "ForgetTask",
    "LeastSquaresRemoval",
    "Limits",
    "MaskClass",
    "Measurement",
    "Method",
    "MuMis",
    "NaivePrototypeSurgery",
    "NotMeasured",
    "Outcome",
    "PrototypeSurgery",
    "Prune",
    "PrunePublished",
    "Recipe",
    "Retrain",
    "RunRecord",
    "Training",
    "Unlearned",
    "audit",
    "export_narrow",
    "forget_classes",
    "forget_ids",
    "forget_indices",
    "forget_subclasses",
    "load_run",
    "save_run",
    "unlearn",
]

_HOME = {
    "expunge.training": ("Recipe", "Training"),
    "expunge.auditing.door": ("audit",),
    "expunge.results.report": ("AuditReport",),
    "expunge.errors": ("ExpungeError",),
    "expunge.methods": (
        "METHODS",
        "FineTune",
        "LeastSquaresRemoval",
        "MaskClass",
        "Method",
        "MuMis",
        "NaivePrototypeSurgery",
        "PrototypeSurgery",
        "Prune",
        "PrunePublished",
        "Retrain",
    ),
    "expunge.patches.heads": ("export_narrow",),
    "expunge.records": ("Limits", "Measurement", "NotMeasured", "Outcome", "RunRecord"),
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
    "expunge.results.unlearned": ("Unlearned",),
    "expunge.unlearning.door": ("unlearn",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
