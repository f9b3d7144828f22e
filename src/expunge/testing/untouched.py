"""Promises about what stays: the original, layout, buffers, hooks, gradients, finite weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from expunge.errors import DataError
from expunge.network.state import digest_of, hook_count, layout_of, not_finite, state_of
from expunge.testing.shared import Snapshot, Subject, content, copies_of, global_state
from expunge.testing.toys import ToyData, toy

__all__ = [
    "buffers_unchanged",
    "clean_after_an_exception",
    "gradients_cleared",
    "layout_kept",
    "no_hooks_left",
    "original_untouched",
    "weights_finite",
]


def original_untouched(subject: Subject) -> None:
    """The given model and the data are bit-identical afterwards, gradients included."""
    made = subject.toy()
    model = made.untidy()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    before, data = Snapshot.of(model), (content(made.train), content(made.holdout))
    result = subject.run(made, model)
    subject.require(Snapshot.of(model) == before, "the given model changed")
    subject.require((content(made.train), content(made.holdout)) == data, "the data changed")
    subject.require(result.model is not model, "expected a model of its own, got the given one")


def layout_kept(subject: Subject) -> None:
    """Names, shapes, dtypes, device, modes and `requires_grad` are those of the given model."""
    for plain, dtype in ((subject.toy(), torch.float32), (toy("mlp"), torch.float64)):
        train, holdout = (
            ToyData({k: v.to(dtype) for k, v in data.inputs.items()}, data.targets)
            for data in (plain.train, plain.holdout)
        )
        made = dataclasses.replace(
            plain, train=train, holdout=holdout, factory=_cast(plain.factory, dtype)
        )
        model = made.untidy().to(dtype)
        result = subject.run(made, model)
        old, new = layout_of(model), layout_of(result.model)
        for field in dataclasses.fields(old):
            subject.require(
                getattr(old, field.name) == getattr(new, field.name),
                f"expected the {field.name} of the model to stay (toy {made.name}, {dtype})",
            )


def _cast(factory: Callable[[], nn.Module], dtype: torch.dtype) -> Callable[[], nn.Module]:
    return lambda: factory().to(dtype)


def buffers_unchanged(subject: Subject) -> None:
    """Buffers are bit-equal, since `info.changes_buffers` is not declared."""
    made = subject.toy()
    result = subject.run(made, made.trained().train())
    old, new = dict(made.trained().named_buffers()), dict(result.model.named_buffers())
    shared = {name: tensor for name, tensor in new.items() if name in old}  # a patch has its own
    subject.require(digest_of(old) == digest_of(shared), "buffers changed without being declared")
    subject.require(result.record.cost.buffers_changed == 0, "the record counts changed buffers")


def no_hooks_left(subject: Subject) -> None:
    """No hook is left on the result; hooks of the user's own stay where they were."""
    made = subject.toy()
    model = made.untidy()
    handle = model.register_forward_hook(lambda *_: None)
    result = subject.run(made, model)
    subject.require(hook_count(model) == 1, "hooks were added to or taken from the given model")
    handle.remove()
    subject.require(hook_count(subject.run(made).model) == 0, "hooks were left on the edited model")
    subject.require(hook_count(result.model) <= 1, "hooks were left on the edited model")


def clean_after_an_exception(subject: Subject) -> None:
    """Where reading the data fails in the middle, no hook, mode or byte is out of place."""
    made = toy("mlp")
    reads: list[int] = []
    subject.run(made.watched(reads.append))
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95):
        model = made.untidy()
        before, state = Snapshot.of(model), global_state()
        copies = copies_of(model)
        task = subject.request(made.watched(_failing(1 + int(share * (len(reads) - 1)))))
        try:
            subject.run(made, model, task=task)
        except DataError as error:
            # The traceback is alive here, and with it every frame that could hold a hook.
            subject.require("the disk is gone" in str(error), f"the cause is lost: {error}")
            hooks = sum(hook_count(copied) for copied in copies)
            subject.require(hooks == 0, "hooks stayed on its copy after an exception")
        else:
            subject.require(False, "an exception from the data set was swallowed")
        subject.require(Snapshot.of(model) == before, "the given model changed on an exception")
        subject.require(global_state() == state, "global random state moved on an exception")


def _failing(reads: int) -> Callable[[int], None]:
    """To be called at each read; raises from the read of that number on."""
    left = [reads]

    def fail(_position: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise RuntimeError("the disk is gone")

    return fail


def weights_finite(subject: Subject) -> None:
    """All weights and buffers are finite."""
    bad = not_finite(state_of(subject.run(subject.toy()).model))
    subject.require(not bad, f"NaN or infinity in {bad[:1]}")


def gradients_cleared(subject: Subject) -> None:
    """No parameter of the result carries a gradient, also where the given model's did."""
    made = subject.toy()
    model = made.untidy()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    result = subject.run(made, model)
    left = [n for n, p in result.model.named_parameters() if p.grad is not None]
    subject.require(not left, f"gradients were left on {left[:1]}")
    subject.require(
        all(not t.grad_fn for t in result.model.parameters()), "parameters hold a graph"
    )
