"""Every method keeps every promise; the public checks also find methods that break one."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from expunge.errors import ContractError, InputError
from expunge.methods import (
    METHODS,
    FineTune,
    MaskClass,
    Method,
    MuMis,
    NaivePrototypeSurgery,
    PrototypeSurgery,
    PrunePublished,
)
from expunge.records import MethodInfo, Paper
from expunge.testing import check_method, check_saved_runs, contract_checks

SMALL = {
    "fine-tune": FineTune(epochs=2),
    "mu-mis": MuMis(most_steps=40),
    "prototype-surgery": PrototypeSurgery(tolerance=1e-3),
}
"""Smaller settings for methods whose defaults are made for larger data."""

FORGETS = {"class_forgotten", "sequence_stays_forgotten"}
WITHOUT = {
    # A baseline: gentle fine-tuning is not expected to forget anything.
    "fine-tune": FORGETS,
    # It serves ReLU MLPs alone, and knows the forget rows alone.
    "prune-published": set(PrunePublished.info.expected_failures),
}

VARIANTS = (
    NaivePrototypeSurgery(rows="own"),
    NaivePrototypeSurgery.as_published(),
    PrototypeSurgery(anchor="retain", tolerance=1e-3, refit_penalty=1e-2),
    PrototypeSurgery(labels="mask", tolerance=1e-3),
    PrototypeSurgery(labels="paper", tolerance=1e-3),
    MaskClass(margin=2.0),
)
FOR_VARIANTS = {"same_seed_same_bytes", "layout_kept", "retain_never_read", *FORGETS}
NOT_FOR = {
    # As published, without a ridge, what stays can break: that is why it is not the default.
    (NaivePrototypeSurgery.as_published(), "class_forgotten"),
}


SAVED = "saved_run_reloads"
"""Checked for all methods at once below, since a fresh process is slow to start."""


def _small(cls):
    return SMALL.get(cls.info.name, cls())


def _cases():
    for cls in METHODS:
        method = _small(cls)
        for check in contract_checks(method):
            if check.name not in {SAVED, *WITHOUT.get(cls.info.name, ())}:
                yield pytest.param(check, id=f"{method!r}-{check.name}")
    for method in VARIANTS:
        for check in contract_checks(method):
            if check.name in FOR_VARIANTS and (method, check.name) not in NOT_FOR:
                yield pytest.param(check, id=f"{method!r}-{check.name}")


@pytest.mark.parametrize("check", list(_cases()))
def test_method_keeps_its_promise(check):
    check()


def test_saved_runs_reload_in_a_fresh_process():
    check_saved_runs(
        [_small(cls) for cls in METHODS if SAVED not in WITHOUT.get(cls.info.name, ())]
    )


# --- the checks find what is wrong ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Honest(Method):
    """Masks the class by hand, and can be made to break one promise."""

    fault: str = ""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="honest",
        title="Honest",
        summary="a method of someone else's",
        paper=Paper(title="t", authors="a", venue="v"),
        needs=frozenset({"forget", "head"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs",),
        cost="nothing",
    )

    def apply(self, model, task, run):
        head = run.needed_head.of(model)
        seen = run.logits(model, task.forget)
        gone = sorted(task.classes)
        with torch.no_grad():
            head.bias[gone] = float(seen.min()) - 100.0
            head.weight[gone] = 0.0
            if self.fault == "own noise":
                head.weight[gone] = 1e-6 * torch.rand(()) * (run.generator.initial_seed() + 1)
            if self.fault == "process noise":
                head.weight[gone] = 1e-6 * NOISE.random()
            if self.fault == "buffers":
                for buffer in model.buffers():
                    buffer.add_(1)
            if self.fault == "does nothing":
                head.weight[gone] += 1.0
                head.bias[gone] = 50.0
        if self.fault == "hook":
            model.register_forward_hook(lambda *_: None)
        if self.fault == "hook on failure":
            handle = model.register_forward_hook(lambda *_: None)
            list(run.batches(task.forget, size=4))
            handle.remove()
        if self.fault == "log":
            run.log("loss", float("nan"))
        return model


class _Noise:
    def __init__(self):
        self.state = 0

    def random(self):
        self.state += 1
        return self.state


NOISE = _Noise()


def test_an_honest_method_passes():
    check_method(Honest())


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("own noise", "seed_without_effect", "`info.stochastic` is not declared"),
        ("process noise", "same_seed_same_bytes", "the same seed gave different weights"),
        ("buffers", "buffers_unchanged", "leave buffers alone"),
        ("hook", "no_hooks_left", "to remove its hooks"),
        ("hook on failure", "clean_after_an_exception", "hooks stayed on its copy"),
        ("does nothing", "class_forgotten", "still recognised"),
        ("log", "record_complete", "NaN or infinity"),
    ],
)
def test_a_fault_is_found_by_its_check(fault, check, words):
    checks = {c.name: c for c in contract_checks(Honest(fault=fault))}
    with pytest.raises(ContractError, match=words):
        checks[check]()


def test_checks_are_chosen_by_info():
    names = {cls.info.name: {c.name for c in contract_checks(cls())} for cls in METHODS}
    assert "buffers_unchanged" not in names["fine-tune"]
    assert "buffers_unchanged" in names["mask-class"]
    assert "retain_never_read" not in names["retrain"]
    assert "seed_without_effect" not in names["retrain"]
    anchored = {c.name for c in contract_checks(PrototypeSurgery(anchor="retain"))}
    assert "retain_never_read" not in anchored


def test_unknown_names_in_without_are_refused():
    with pytest.raises(InputError, match="got 'effect'; these do: info_complete"):
        check_method(Honest(), without={"effect"})


def test_a_check_leaves_the_random_state_alone():
    before = torch.get_rng_state().tolist()
    {c.name: c for c in contract_checks(Honest())}["same_seed_same_bytes"]()
    assert torch.get_rng_state().tolist() == before
