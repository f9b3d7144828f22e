"""MU-Mis: forget without any remaining data, by lowering the input sensitivity of the true logit.

Training on a record raises the sensitivity ‖∇ₓf_c‖ of its own logit to the input above that of
other logits; MU-Mis pulls them together again, on the forget records alone, by gradient descent on
the weights through a double backward pass.

Equation: min over w of mean_x (‖∇ₓf_c(x; w)‖² − ‖∇ₓf_c'(x; w)‖²), c' ≠ c random a sample.

    symbol                         what it is                  function
    c'                             another class               sensitivity.draw_irrelevant
    ‖∇ₓf_c‖², ‖∇ₓf_c'‖²            the sensitivities           sensitivity.sensitivities
    Σ‖∇ₓf_c‖², Σ∇_w‖∇ₓf_c‖²        sums over rows, also of c'  sensitivity.sensitivity_gradients
    scale, cap                     T₀ and `cap`·I₀             sensitivity.scaled_loss
    L = (T − min(I, cap)) / scale  the loss                    sensitivity.Loss.value
    g = ∂L/∂w                      its gradient                sensitivity.Loss.gradient
    w ← w − `step`·g               rule "plain"                descent.step
    w_p ← w_p − η‖w_p‖² g_p        rule "relative"             sensitivity.relative_step
    s_t > min s, s_t / s_0 > δ     stop "published", s = √I    stop.published_stop
    the looks                      the other stops             stop.fired, stop.lost
    the accepted w                 the rollback                descent.finish

T and I are the means of ‖∇ₓf_c‖² and ‖∇ₓf_c'‖² over the rows, T₀ and I₀ those before the first
step; η = `step`·T / Σ_p ‖w_p‖²‖g_p‖², with T in the units of the loss.

Reference: X. Cheng et al., "Remaining-data-free Machine Unlearning by Suppressing Sample
Contribution", ICLR 2026, arXiv 2402.15109.
What we do differently. The loss is divided by the initial mean ‖∇ₓf_c‖² (positive, floored), and
each step is sized so that, to first order, it removes the share `step` of the target sensitivity
that is left, with each tensor's gradient scaled by that tensor's squared norm: one setting serves
nets whose gradients differ by orders of magnitude, where a fixed rate ran into NaN on one and did
nothing on another (`rule="plain"` is the published descent). The second term is unbounded below;
it is capped at `cap` times its start. c' is drawn stratified, among classes that stay. Norm and
dropout layers are frozen (in train mode the same steps wreck the model). A validated stop on
`tune` rolls back to the last accepted state; the published stop needs no holdout.

This module is read where torch is not installed: what works with it is imported when it works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, final

from expunge.errors import UnsupportedError
from expunge.methods.base import Before, Method
from expunge.records import MethodInfo, Paper
from expunge.settings import Count, NotNegative, Positive, Range

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["MuMis"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MuMis(Method):
    """Lower the true logit's input sensitivity against the others', on the forget set alone.

    `rule`: `relative` (ours; `step` is the share of the target sensitivity removed a step) or
    `plain` (gradient descent with learning rate `step` on the scaled loss). `cap`: the irrelevant
    term pays until this multiple of its start (None: no cap, as published). `stop`: `validated`
    ends when at most `forget_accuracy` percent of a panel of forget rows, and of the class's
    `tune` rows, are recognised, and accepts no state whose other `tune` rows lost more than
    `tolerance` points (and two standard errors) against the masked original; `published` uses
    the published rule with threshold `delta` alone. Without a holdout either rule may end it.
    `batch_size` None uses the whole forget set each step; `chunk_size` rows are in memory at once.
    """

    rule: Literal["relative", "plain"] = "relative"
    step: Positive = 0.15
    cap: NotNegative | None = 1.0
    stop: Literal["validated", "published"] = "validated"
    delta: Positive = 1.1
    batch_size: Count | None = 64
    chunk_size: Count = 64
    most_steps: Count = 150
    check_every: Count = 5
    panel: Count = 500
    forget_accuracy: Annotated[float, Range(least=0, most=100)] = 1.5
    tolerance: NotNegative = 1.0

    info: ClassVar[MethodInfo] = MethodInfo(
        name="mu-mis",
        title="MU-Mis",
        summary="lower the input sensitivity of the true logit; needs forget data only",
        paper=Paper(
            title="Remaining-data-free Machine Unlearning by Suppressing Sample Contribution",
            authors="X. Cheng, Z. Huang, W. Zhou, Z. He, R. Yang, Y. Wu, X. Huang",
            venue="ICLR 2026",
            link="https://arxiv.org/abs/2402.15109",
        ),
        needs=frozenset({"forget"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs", "features"),
        stochastic=True,
        cost="about 3 training steps a step, tens of steps on batches of the forget set",
        reads="min(`batch_size`, F) a step and min(`panel`, F) + T a look, for F forget rows and T "
        "tune rows (none with the published stop); at most `most_steps` steps, and "
        "1 + ⌈steps / `check_every`⌉ looks",
    )

    @classmethod
    def small(cls) -> Self:
        """Fewer steps, looked at less often: the toys need no more, and a class is gone by then."""
        return cls(most_steps=40, check_every=20)

    @classmethod
    def as_published(cls) -> Self:
        """The published form: plain descent, no cap, the published stop.

        The paper steps down the gradient of the whole forget set at a fixed learning rate, asks its
        stop rule after each step, and looks at nothing of what stays. It tunes learning rate and
        threshold for each task, and we do not know its values: `step` and `delta` are ours, to be
        replaced. Ours remain the scale of the loss, the stratified draw of c', the panel, the
        frozen layers and the way back from a state that is not finite.
        """
        return cls(
            rule="plain", step=0.01, cap=None, stop="published", batch_size=None, check_every=1
        )

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse inputs without a gradient, and operators without a second one, by one row."""
        import torch

        from expunge.methods.mu_mis.tried import refuse_once_differentiable

        inputs, _ = task.forget.batch(torch.zeros(1, dtype=torch.int64))
        if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
            raise UnsupportedError(
                "Expected inputs in one floating tensor for mu-mis, got "
                f"{inputs.dtype if isinstance(inputs, torch.Tensor) else 'named tensors'}: the "
                "gradient with respect to the input must exist. Wrap the model so that it takes "
                "floats."
            )
        refuse_once_differentiable(model, inputs)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Descend until a stop rule fires; return the last accepted state."""
        from expunge.methods.mu_mis.descent import descend

        return descend(self, model, task, run)
