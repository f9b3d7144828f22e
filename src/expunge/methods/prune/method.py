"""PRUNE: a minimal patch a record, with a guarantee that a third party can check.

One gate a record opens on its penultimate features alone and shifts the logits to what the request
asks for; every retained row has every gate shut, so it keeps exactly its logits. For a whole class
the output row goes, which holds for every possible input. What was done is stated in a certificate
that a checker verifies without torch and without trust.

Equation: ℓ' = Wz + b + Δ·clip(Uz + c, 0, 1), u ∝ (Σ + εI)⁻¹(z − μ), c from the best retained score.
Reference: X. Li, J. Wang, X. Yuan, P. Zhang, "PRUNE: A Patching Based Repair Framework for
Certifiable Unlearning of Neural Networks", arXiv 2505.06520. What we do differently: gates live on
the features that enter the last linear map, so any backbone serves, a gate is one row instead of a
copy of the network, and the default target is not a forced error (a leak, and not what retraining
does) but the outputs of data the model never saw.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.certificate.facts import Layer
from expunge.certificate.statement import WIDEST
from expunge.data.rows import Rows
from expunge.errors import InputError, UnsupportedError
from expunge.methods.base import Before, Method
from expunge.methods.prune.evidence import (
    Seen,
    at_features,
    base_digests,
    earlier_rows,
    narrow_evidence,
    network_with,
    record_evidence,
    seen,
)
from expunge.methods.prune.fitting import fit_gates
from expunge.methods.prune.mlp import layers_before
from expunge.methods.prune.proofs import (
    BY_DESIGN,
    from_input,
    none_separable,
    refuse_reduced,
    still_proven,
    tell,
)
from expunge.methods.prune.published.forget import forget_published
from expunge.methods.prune.refusals import merged_form, refuse_head, refuse_published
from expunge.methods.prune.shifts import Claimed, solve_shifts
from expunge.methods.prune.targets import draw_targets, forced_errors
from expunge.methods.prune.twins import find_twins
from expunge.methods.run import Run
from expunge.patches.heads import gated, narrowed, replaced
from expunge.records import MethodInfo, Need, Paper, Scope
from expunge.task import ForgetTask

__all__ = ["Prune"]

_RULE = {
    "unseen": "each target is the logits of a random tune row of the record's class, moved by "
    "t (neighbour - row) with t uniform in +-{jitter:g} towards one of its 5 nearest tune rows",
    "mispredict": "each target lifts the runner-up above the record's own label by {margin:g}",
}
_FROM_ZERO = ("jitter", "ridge", "merge_seconds")
_NUMBERS = {
    **dict.fromkeys(("tolerance", "margin", "sharpness", "share", *_FROM_ZERO), Real),
    **dict.fromkeys(("nearest", "clusters", "rounds"), Integral),
}


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _share(targets: Float[Tensor, "records classes"], groups: Iterable[Sequence[int]]) -> None:
    """Give equal records one target, that of the first."""
    for members in groups:
        targets[list(members)] = targets[members[0]].clone()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Method):
    """Patch single records so that the model treats them as unseen, or take a class's row away.

    `spec`: `unseen` (outputs of data never seen), `mispredict` (a forced error, as published), or
    `auto`: unseen. `form`: `gated` (one gate a record), `merged` (an edit of the head alone), or
    `auto`: merged where it fits at no more than 0.1 points of tune accuracy, tried up to d/4
    records and for `merge_seconds`. `tolerance` is the least ρ of |ℓ' − ℓ*|∞ ≤ ρ, `margin` the
    forced lead in logits, `jitter` how far targets are moved, `ridge` ε relative to the mean
    feature variance, `nearest` the first cuts of the linear program. `mode = "as_published"` is the
    patch on exact linear regions for ReLU MLPs, with `share` to be forgotten, K-means `clusters`,
    `sharpness` λ of the support networks and at most `rounds`; it has no certificate.
    """

    mode: Literal["patch", "as_published"] = "patch"
    spec: Literal["auto", "unseen", "mispredict"] = "auto"
    form: Literal["auto", "gated", "merged"] = "auto"
    tolerance: float = 2.0**-10
    margin: float = 0.125
    jitter: float = 0.5
    ridge: float = 1e-3
    nearest: int = 100
    merge_seconds: float = 5.0
    share: float = 1.0
    clusters: int = 2
    sharpness: float = 1000.0
    rounds: int = 10

    info: ClassVar[MethodInfo] = MethodInfo(
        name="prune",
        title="PRUNE",
        summary="a certified patch a record, or the class's output row taken away",
        paper=Paper(
            title="PRUNE: A Patching Based Repair Framework for Certifiable Unlearning of Neural "
            "Networks",
            authors="X. Li, J. Wang, X. Yuan, P. Zhang",
            venue="arXiv 2505.06520",
            link="https://arxiv.org/abs/2505.06520",
        ),
        needs=frozenset({"forget", "head"}),
        aims=frozenset({"absent", "unseen"}),
        scopes=frozenset({"classes", "records"}),
        claims=("outputs",),
        structure="wraps",
        stochastic=True,
        cost="one pass over the training set; nothing for a class",
    )

    @classmethod
    def as_published(cls) -> Prune:
        """The patch on exact linear regions of the paper, for ReLU MLPs; forces errors."""
        return cls(mode="as_published")

    def _extra_needs(self) -> frozenset[Need]:
        return frozenset() if self.mode == "as_published" else frozenset({"retain", "holdout"})

    def needs_for(self, scope: Scope) -> frozenset[Need]:
        """A class needs nothing but the head; records need what stays, and rows never seen."""
        if self.mode == "as_published":
            return frozenset({"forget"})
        return self.info.needs if scope == "classes" else self.needs

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse settings without a meaning, half precision, and forms that do not go together."""
        self._check()
        if self.mode == "as_published":
            refuse_published(model, task)
        elif before.head is not None:
            refuse_head(model, before.head, task.scope, before, self.form)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Take the class's row away, or patch the records."""
        if self.mode == "as_published":
            return self._published(model, task, run)
        if task.scope == "classes":
            return self._without_rows(model, task, run)
        return self._patched(model, task, run)

    def _check(self) -> None:
        for name, kind in _NUMBERS.items():
            value = getattr(self, name)
            if not _is_a(kind, value):
                what = "a whole number" if kind is Integral else "a number"
                raise InputError(f"Expected `{name}` to be {what}, got {value!r}.")
            if not 0 <= value < float("inf") or (value == 0 and name not in _FROM_ZERO):
                least = "from" if name in _FROM_ZERO else "above"
                raise InputError(f"Expected `{name}` {least} 0, got {value}.")
        if self.share > 1:
            raise InputError(f"Expected `share` of at most 1, got {self.share:g}.")
        if self.tolerance > WIDEST:
            raise InputError(
                f"Expected `tolerance` of at most {WIDEST:g} logits, got {self.tolerance:g}: a "
                "wider bound says nothing."
            )
        for name, word, known in (
            ("mode", self.mode, ("patch", "as_published")),
            ("spec", self.spec, ("auto", "unseen", "mispredict")),
            ("form", self.form, ("auto", "gated", "merged")),
        ):
            if word not in known:
                raise InputError(f"Expected `{name}` among {', '.join(known)}, got {word!r}.")
        if self.form == "merged" and self.spec == "mispredict":
            raise InputError(
                'Expected `form` "gated" or "auto" with `spec` "mispredict", got "merged": an edit '
                "of the head alone is offered for `unseen` only."
            )

    def _without_rows(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        head = run.needed_head
        narrower = run.evidence is not None and run.evidence.form == "narrow"
        base = base_digests(model, run.evidence if narrower else None)
        new = narrowed(head.of(model), task.classes, head.classes)
        run.samples_touched += len(task.forget)
        run.structure = "narrows"
        run.note("the output row is gone: the model cannot give the class, whatever the input")
        if head.kind == "narrow" and not narrower:
            run.evidence = None
            run.note("no certificate: what the earlier one was written from is not at hand")
            return replaced(model, head.name, new)
        run.evidence = narrow_evidence(
            head,
            new,
            base,
            seed=run.seed,
            predecessor=run.predecessor,
            settings={"name": self.info.name, "form": "narrow"},
        )
        return replaced(model, head.name, new)

    def _patched(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        if task.retain is None or task.holdout is None:
            raise UnsupportedError("Expected training data and a holdout for Prune, got none.")
        head, labels = run.needed_head, task.forget.labels
        spec: Literal["unseen", "mispredict"] = "unseen" if self.spec == "auto" else self.spec
        twins = find_twins(task.forget, task.retain)
        layers = layers_before(model, head, task.forget, run.device)
        began = time.perf_counter()
        mine, kept, tune = (
            self._read(model, rows, layers, run)
            for rows in (task.forget, task.retain, task.holdout)
        )
        run.log("feature_seconds", time.perf_counter() - began)
        refuse_reduced(model, head, mine)
        began = time.perf_counter()
        targets = (
            forced_errors(mine.logits, labels, 1.25 * self.margin)
            if spec == "mispredict"
            else draw_targets(
                labels,
                tune.logits,
                task.holdout.labels,
                jitter=self.jitter,
                generator=run.generator,
            )
        )
        _share(targets, twins.groups)
        finish = partial(
            record_evidence,
            head=head,
            forget=task.forget,
            stays=task.retain,
            targets=targets,
            tune_logits=tune.logits if spec == "unseen" else None,
            rule=_RULE[spec].format(jitter=self.jitter, margin=1.25 * self.margin),
            seed=run.seed,
            predecessor=run.predecessor,
        )
        settings = {"name": self.info.name, **dataclasses.asdict(self), "spec": spec}
        merged = merged_form(
            model,
            task,
            run,
            mine,
            kept,
            tune,
            targets,
            twins,
            spec=spec,
            form=self.form,
            tolerance=self.tolerance,
            seconds=self.merge_seconds,
        )
        if merged is not None:
            run.evidence = at_features(run.evidence, model, head)
            run.evidence = finish(
                form="merged",
                earlier=run.evidence,
                layers=[],
                claims=merged.claimed,
                left=[],
                mine=mine.from_features(),
                kept=kept.from_features(),
                base=base_digests(model, run.evidence),
                settings=settings | {"form": "merged"},
            )
            run.structure = "same"
            run.log("patch_seconds", time.perf_counter() - began)
            return merged.model
        fitted = fit_gates(
            mine.features,
            labels,
            kept.features,
            earlier_rows(model, run.evidence, head),
            twins,
            ridge=self.ridge,
            nearest=self.nearest,
            report=run.report,
        )
        _share(targets, fitted.served)
        solve = partial(
            solve_shifts,
            fitted,
            mine.features,
            mine.logits,
            targets,
            labels,
            Claimed(spec, self.margin if spec == "mispredict" else self.tolerance),
        )
        at_head = partial(network_with, model, head, [], head.features)
        patch = solve(rows=mine.features.numpy(), network=at_head)
        deep = from_input(patch, solve, model, head, layers, mine, kept, run) if layers else None
        if not patch.claimed:
            raise none_separable(patch)
        if deep is None:
            layers, mine, kept = [], mine.from_features(), kept.from_features()
            run.evidence = at_features(run.evidence, model, head)
            deployed = at_head(patch.weight, patch.bias, patch.shift)
            run.evidence = still_proven(run, deployed, kept)
        patch = deep or patch
        # a head merged before is the base of the gates: its own base is no longer in the file
        gated_before = run.evidence is not None and run.evidence.form == "gated"
        base = base_digests(model, run.evidence if gated_before else None)
        run.evidence = finish(
            form="gated",
            earlier=run.evidence,
            layers=layers,
            claims=patch.claimed,
            left=patch.entangled,
            mine=mine,
            kept=kept,
            base=base,
            settings=settings | {"form": "gated"},
        )
        run.structure = "wraps"
        run.log("patch_seconds", time.perf_counter() - began)
        tell(spec, patch, mine, kept, tune, run)
        new = gated(head.of(model), patch.weight, patch.bias, patch.shift)
        return replaced(model, head.name, new)

    def _read(self, model: nn.Module, rows: Rows, layers: Sequence[Layer], run: Run) -> Seen:
        run.samples_touched += len(rows)
        head = run.needed_head
        return seen(model, head, rows, layers, batch_size=run.batch_size, device=run.device)

    def _published(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        parts = [inputs for inputs, _ in run.batches(task.forget)]
        if not all(isinstance(x, Tensor) for x in parts):
            raise UnsupportedError(
                "Expected one input tensor a row for prune as published, got named tensors."
            )
        edited, report = forget_published(
            model,
            torch.cat([x for x in parts if isinstance(x, Tensor)]).cpu(),
            task.forget.labels,
            share=self.share,
            clusters=self.clusters,
            sharpness=self.sharpness,
            rounds=self.rounds,
            margin=self.margin,
            generator=run.generator,
            classes=run.classes,
            allowed=run.kept,
            report=run.report,
        )
        run.structure = "wraps"
        run.note(
            f"as published: {report.forgotten} of {report.records} records are wrong after "
            f"{report.rounds} rounds, {report.patches} patches on {report.regions} regions, "
            f"{report.patch_bytes:,} bytes ({report.dense_bytes:,} in the published layout)"
        )
        run.note(BY_DESIGN if task.scope == "records" else "the patch knows the forget rows alone")
        return edited
