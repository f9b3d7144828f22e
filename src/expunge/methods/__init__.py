"""The methods, one file each. `METHODS` is written by hand: no registry, no discovery."""

from __future__ import annotations

from expunge.methods.base import Before, Method, Progress
from expunge.methods.finetune import FineTune
from expunge.methods.mask_class import MaskClass
from expunge.methods.mu_mis.method import MuMis
from expunge.methods.prototypes.least_squares_removal import LeastSquaresRemoval
from expunge.methods.prototypes.naive_prototype_surgery import NaivePrototypeSurgery
from expunge.methods.prototypes.prototype_surgery import PrototypeSurgery
from expunge.methods.prune.method import Prune
from expunge.methods.prune.published.method import PrunePublished
from expunge.methods.retrain import Retrain
from expunge.methods.run import Run

__all__ = [
    "METHODS",
    "Before",
    "FineTune",
    "LeastSquaresRemoval",
    "MaskClass",
    "Method",
    "MuMis",
    "NaivePrototypeSurgery",
    "Progress",
    "PrototypeSurgery",
    "Prune",
    "PrunePublished",
    "Retrain",
    "Run",
]

METHODS: tuple[type[Method], ...] = (
    Retrain,
    FineTune,
    MaskClass,
    NaivePrototypeSurgery,
    PrototypeSurgery,
    LeastSquaresRemoval,
    MuMis,
    Prune,
    PrunePublished,
)
