"""The methods, one file each. `METHODS` is written by hand: no registry, no discovery."""

from __future__ import annotations

from expunge.methods.base import Before, Method, Progress, Run
from expunge.methods.finetune import FineTune
from expunge.methods.least_squares_removal import LeastSquaresRemoval
from expunge.methods.mask_class import MaskClass
from expunge.methods.mu_mis import MuMis
from expunge.methods.naive_prototype_surgery import NaivePrototypeSurgery
from expunge.methods.prototype_surgery import PrototypeSurgery
from expunge.methods.prune import Prune
from expunge.methods.retrain import Retrain

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
)
