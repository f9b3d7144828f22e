"""Every method keeps every promise; the public checks also find methods that break one."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from expunge.errors import ContractError, InputError, ModelError, UnsupportedError
from expunge.methods import (
    METHODS,
    MaskClass,
    Method,
    MuMis,
    NaivePrototypeSurgery,
    PrototypeSurgery,
    Prune,
)
from expunge.records import MethodInfo, Paper
from expunge.testing import check_method, check_saved_runs, contract_checks
from expunge.testing.methods import strict_checks

STAND_IN = (
    "at our stand-in for the learning rate the published rule stops before the class is gone: the "
    "paper tunes both for each task"
)

VARIANTS = (
    (NaivePrototypeSurgery(rows="own"), {}),
    (
        NaivePrototypeSurgery.as_published(),
        {
            "class_forgotten": "as published, without a ridge, what stays can break: that is why "
            "it is not the default"
        },
    ),
    (PrototypeSurgery(anchor="retain", tolerance=1e-3, refit_penalty=1e-2), {}),
    (PrototypeSurgery(labels="mask", tolerance=1e-3), {}),
    (PrototypeSurgery(labels="paper", tolerance=1e-3), {}),
    (PrototypeSurgery.as_published(), {}),
    (MaskClass(margin=2.0), {}),
    (
        MuMis.as_published(),
        {"class_forgotten": STAND_IN, "sequence_stays_forgotten": STAND_IN},
    ),
)
"""Settings beside the defaults, with the checks that they are expected to fail and why."""

FOR_VARIANTS = {
    "same_seed_same_bytes",
    "layout_kept",
    "retain_never_read",
    "class_forgotten",
    "sequence_stays_forgotten",
}

SAVED = {"saved_run_reloads", "saved_run_reloads_on_records"}
"""Checked for all methods at once below, since a fresh process is slow to start."""


def _case(method, check, failures):
    marks = ()
    if check.name in failures:
        marks = pytest.mark.xfail(strict=True, raises=ContractError, reason=failures[check.name])
    return pytest.param(check, marks=marks, id=f"{method!r}-{check.name}")


def _cases():
    for cls in METHODS:
        method, failures = cls.small(), cls.info.expected_failures
        for check in contract_checks(method):
            if check.name not in SAVED or check.name in failures:
                yield _case(method, check, failures)
    for method, failures in VARIANTS:
        for check in contract_checks(method):
            if check.name in FOR_VARIANTS:
                yield _case(method, check, failures)


@pytest.mark.parametrize("check", list(_cases()))
def test_method_keeps_its_promise(check):
    check()


def test_saved_runs_reload_in_a_fresh_process():
    check_saved_runs(
        [cls.small() for cls in METHODS if not SAVED & cls.info.expected_failures.keys()]
    )


def test_every_expected_failure_names_a_check_that_runs():
    for cls in METHODS:
        names = {check.name for check in contract_checks(cls.small())}
        assert cls.info.expected_failures.keys() <= names
    for method, failures in VARIANTS:
        assert failures.keys() <= FOR_VARIANTS & {c.name for c in contract_checks(method)}


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
        reads="the forget rows once",
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
        if self.fault == "crash":
            return 1 / 0
        if self.fault == "hook":
            model.register_forward_hook(lambda *_: None)
        if self.fault == "hook on failure":
            handle = model.register_forward_hook(lambda *_: None)
            list(run.batches(task.forget, size=4))
            handle.remove()
        if self.fault == "log":
            run.log("loss", float("nan"))
        return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Gloomy(Honest):
    """Says that it fails, and does not."""

    info: ClassVar[MethodInfo] = replace(
        Honest.info, expected_failures={"class_forgotten": "it does nothing"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Misspelt(Honest):
    """Names a check that is none."""

    info: ClassVar[MethodInfo] = replace(Honest.info, expected_failures={"effect": "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Silent(Honest):
    """Expects a failure and does not say why."""

    info: ClassVar[MethodInfo] = replace(Honest.info, expected_failures={"class_forgotten": " "})


@dataclass(frozen=True, slots=True, kw_only=True)
class Picky(Honest):
    """Serves some kinds of models only, and says that the model or that the method is wrong."""

    refused: tuple[type[torch.nn.Module], ...] = (torch.nn.Conv2d,)
    error: type[Exception] = UnsupportedError

    def refuse(self, model, task, before):
        if any(isinstance(module, self.refused) for module in model.modules()):
            raise self.error("Expected another model.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Untold(Honest):
    """Reads rows of its own, and does not say so."""

    info: ClassVar[MethodInfo] = replace(
        Honest.info, reads=MethodInfo.__dataclass_fields__["reads"].default
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForRecords(Honest):
    """Says that it serves records alone."""

    info: ClassVar[MethodInfo] = replace(
        Honest.info, aims=frozenset({"unseen"}), scopes=frozenset({"records"})
    )


UNFORGOTTEN = {"class_forgotten": "it does nothing", "sequence_stays_forgotten": "it does nothing"}


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


def test_rows_that_the_method_reads_must_be_said():
    checks = {c.name: c for c in contract_checks(Untold())}
    with pytest.raises(ContractError, match=r"`info\.reads` says 'nothing .* 32 rows were counted"):
        checks["record_complete"]()


def test_checks_are_chosen_by_info():
    names = {cls.info.name: {c.name for c in contract_checks(cls())} for cls in METHODS}
    assert "buffers_unchanged" not in names["fine-tune"]
    assert "buffers_unchanged" in names["mask-class"]
    assert "retain_never_read" not in names["retrain"]
    assert "seed_without_effect" not in names["retrain"]
    anchored = {c.name for c in contract_checks(PrototypeSurgery(anchor="retain"))}
    assert "retain_never_read" not in anchored


def test_what_is_needed_is_asked_for_each_kind_of_request():
    # Prune needs nothing but the head for a class, and what stays for records.
    names = {check.name for check in contract_checks(Prune())}
    assert "retain_never_read" in names
    assert "retain_never_read_on_records" not in names


def test_a_method_for_records_alone_is_checked_with_records():
    names = {check.name for check in contract_checks(ForRecords())}
    assert "original_untouched" in names
    assert "class_forgotten" not in names
    assert not any(name.endswith("_on_records") for name in names)


def test_expected_failures_are_no_surprise():
    check_method(Honest(fault="does nothing"), expected_failures=UNFORGOTTEN)


def _strict(method, expected_failures=None):
    checks = strict_checks(method, expected_failures=expected_failures)
    return {check.name: check for check in checks}


def test_nothing_is_dropped_where_a_failure_is_expected():
    names = [check.name for check in contract_checks(Honest())]
    assert list(_strict(Honest(), UNFORGOTTEN)) == names


def test_an_expected_failure_that_passes_is_a_failure():
    words = "Method 'honest': `class_forgotten` is expected to fail, but passes: take it off"
    with pytest.raises(ContractError, match=f"{words} `expected_failures`"):
        _strict(Honest(), UNFORGOTTEN)["class_forgotten"]()
    with pytest.raises(ContractError, match=rf"{words} `info\.expected_failures`"):
        _strict(Gloomy())["class_forgotten"]()


def test_what_is_not_expected_to_fail_must_pass():
    with pytest.raises(ContractError, match="still recognised"):
        _strict(Honest(fault="does nothing"), {})["class_forgotten"]()


def test_an_expected_failure_fails_with_a_contract_error():
    # Anything else is a fault of its own, and no promise that is known to be broken.
    with pytest.raises(ZeroDivisionError):
        _strict(Honest(fault="crash"), UNFORGOTTEN)["class_forgotten"]()


def test_unknown_names_of_expected_failures_are_refused():
    words = "Expected `{}` to name checks that apply to 'honest', got 'effect'; these do: info_com"
    with pytest.raises(InputError, match=words.format("expected_failures")):
        check_method(Honest(), expected_failures={"effect": "none"})
    with pytest.raises(InputError, match=words.format(r"info\.expected_failures")):
        check_method(Misspelt())


def test_an_expected_failure_has_a_reason():
    checks = {c.name: c for c in contract_checks(Silent())}
    with pytest.raises(ContractError, match=r"failures\['class_forgotten'\]` to say something"):
        checks["info_complete"]()


@pytest.mark.parametrize("error", [UnsupportedError, ModelError])
def test_a_method_that_refuses_the_cnn_is_checked_on_the_mlp(error):
    checks = {c.name: c for c in contract_checks(Picky(error=error))}
    with pytest.raises(ContractError, match="'honest': refuses the toy 'cnn': Expected another"):
        checks["cnn_served"]()
    for name in ("original_untouched", "retain_never_read", "layout_kept"):
        checks[name]()
    with pytest.raises(ContractError, match="the seed matters"):
        {c.name: c for c in contract_checks(Picky(fault="own noise"))}["seed_without_effect"]()


def test_a_method_that_refuses_every_toy_keeps_no_promise():
    checks = {c.name: c for c in contract_checks(Picky(refused=(torch.nn.Linear,)))}
    for name in ("cnn_served", "original_untouched", "record_complete", "class_forgotten"):
        with pytest.raises(ContractError, match="'honest': refuses the toy"):
            checks[name]()


def test_a_check_leaves_the_random_state_alone():
    before = torch.get_rng_state().tolist()
    {c.name: c for c in contract_checks(Honest())}["same_seed_same_bytes"]()
    assert torch.get_rng_state().tolist() == before
