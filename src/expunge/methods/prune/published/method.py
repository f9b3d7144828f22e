"""PRUNE as published: patches on the linear regions of the records to forget, until they are wrong.

A ReLU MLP is affine on the region of inputs that share an activation pattern. On the regions of the
forget records a label other than theirs is raised until it leads. The patch is part of the model;
there is no certificate.

Equation: ℓ' = ℓ + Σ c(x), c(x) = ReLU(d + H g − H) − ReLU(−d + H g − H), H = max|d|, with g the
largest n_S over the members of a patch, n_S(x) = max(0, 1 − Σ_j min(1, λ·viol_j(x))) for
S = {A x ≤ b}, and d = max(0, m + max_{j≠t} (ℓ_j − ℓ_t))·e_t.

    symbol    what it is                                   function
    W_l, b_l  the layers of the MLP                        mlp.read_mlp
    A, J      the region of a record, its Jacobian         published.regions.region
    K-means   clusters of the first round                  published.forget._clusters
    t         the forced label, drawn anew for each patch  published.forget._add_patch
    d         its least raise to a lead of `margin` m      published.regions.redirect
    n_S, g    support (λ: `sharpness`)                     patches.regions.supports
    c(x), ℓ'  the patch                                    patches.regions.RegionPatched

Reference: X. Li, J. Wang, X. Yuan, P. Zhang, "PRUNE: A Patching Based Repair Framework for
Certifiable Unlearning of Neural Networks", arXiv 2505.06520, on REASSURE (F. Fu, W. Li, ICLR 2022).
What we do differently: see `expunge.methods.prune.published.forget` and `.regions`; in short, the
defects of the released code are removed, and a constant shift stands in for the affine map.
The working modules are imported where work begins, so that this one can be listed without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, final

from expunge.methods.base import Before, Method
from expunge.methods.prune.paper import PAPER
from expunge.records import MethodInfo
from expunge.settings import Count, Positive, Range

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["PrunePublished"]

_NO_MLP = "plain ReLU MLPs alone are served"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePublished(Method):
    """Force errors on the records of a ReLU MLP by patches on exact linear regions.

    It stops when the share `share` of the records gets another label than theirs, or after `rounds`
    rounds. `clusters` are the K-means clusters of the first round, `sharpness` is λ of the support
    networks, `margin` by how many logits the forced label leads at a cluster's representative.
    """

    share: Annotated[float, Range(above=0, most=1)] = 1.0
    clusters: Count = 2
    sharpness: Positive = 1000.0
    rounds: Count = 10
    margin: Positive = 0.125

    info: ClassVar[MethodInfo] = MethodInfo(
        name="prune-published",
        title="PRUNE as published",
        summary="patches on linear regions of a ReLU MLP that force errors; no certificate",
        paper=PAPER,
        needs=frozenset({"forget"}),
        aims=frozenset({"absent", "unseen"}),
        scopes=frozenset({"classes", "records"}),
        claims=("outputs",),
        structure="wraps",
        reach="rows",
        stochastic=True,
        cost="passes over the forget set; the model becomes slower with every record",
        reads="the forget rows, twice to see that the model is an MLP, once before and once after "
        "each round",
        expected_failures={
            "cnn_served": _NO_MLP,
            "cnn_served_on_records": _NO_MLP,
            "class_forgotten": "the patch knows the forget rows alone: rows of the class that it "
            "never saw are still recognised",
        },
    )

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse models with other patches, models that are no plain ReLU MLP, and named inputs."""
        from expunge.methods.prune.published.refusals import refuse_published

        del before
        refuse_published(model, task)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Patch the regions of the records, round by round."""
        import torch

        from expunge.methods.prune.notes import say_published
        from expunge.methods.prune.published.forget import forget_published

        inputs = torch.cat([x for x, _ in run.batches(task.forget) if isinstance(x, torch.Tensor)])
        edited, report = forget_published(
            model,
            inputs.cpu(),
            task.forget.labels,
            self,
            generator=run.generator,
            classes=run.classes,
            allowed=run.kept,
            report=run.report,
        )
        run.touched((2 + report.rounds) * len(task.forget))  # beside the batches above
        run.shape("wraps")
        say_published(run, report, task.scope)
        return edited
