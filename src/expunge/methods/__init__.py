"""The methods. `METHODS` is written by hand, one line a method; everything else follows from it.

No registry, no discovery: a method stands here as "module:Class", its module below this package.
From this list come the names of this module and of the package's face, `expunge methods`, the
names in a job file and the tables in the documents. What type checkers read is written from it by
`python -m docs.generate`. These modules are read without torch: a method imports what it computes
with when it runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from expunge.methods.base import Before as Before
from expunge.methods.base import Method as Method
from expunge.methods.base import Progress as Progress

# written by: python -m docs.generate
if TYPE_CHECKING:
    from expunge.methods.finetune import FineTune as FineTune
    from expunge.methods.mask_class import MaskClass as MaskClass
    from expunge.methods.mu_mis.method import MuMis as MuMis
    from expunge.methods.prototypes.least_squares_removal import (
        LeastSquaresRemoval as LeastSquaresRemoval,
    )
    from expunge.methods.prototypes.naive_prototype_surgery import (
        NaivePrototypeSurgery as NaivePrototypeSurgery,
    )
    from expunge.methods.prototypes.prototype_surgery import PrototypeSurgery as PrototypeSurgery
    from expunge.methods.prune.method import Prune as Prune
    from expunge.methods.prune.published.method import PrunePublished as PrunePublished
    from expunge.methods.retrain import Retrain as Retrain
# end


def _resolved(*places: str) -> tuple[type[Method], ...]:
    """The classes at these places, in this order."""
    parts = [place.split(":") for place in places]
    return tuple(getattr(import_module(f"{__name__}.{module}"), name) for module, name in parts)


METHODS = _resolved(
    "retrain:Retrain",
    "finetune:FineTune",
    "mask_class:MaskClass",
    "prototypes.naive_prototype_surgery:NaivePrototypeSurgery",
    "prototypes.prototype_surgery:PrototypeSurgery",
    "prototypes.least_squares_removal:LeastSquaresRemoval",
    "mu_mis.method:MuMis",
    "prune.method:Prune",
    "prune.published.method:PrunePublished",
)

globals().update({method.__name__: method for method in METHODS})

__all__ = sorted(["METHODS", "Before", "Method", "Progress", *(m.__name__ for m in METHODS)])
