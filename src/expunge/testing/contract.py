"""The promises every method makes, as checks that anyone can run on a method of their own.

`check_method(MyMethod())` runs them all; `contract_checks(MyMethod())` yields them one by one, for
a parametrised test. Which checks apply follows from `method.info` and `method.needs`. A broken
promise raises ContractError with the name of the check and what was found.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final, get_args

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data.views import as_rows
from expunge.errors import ContractError, DataError, InputError, TaskError, UnsupportedError
from expunge.methods.base import Method
from expunge.network.heads import find_head
from expunge.network.passes import logits_of
from expunge.network.state import Layout, digest_of, hook_count, layout_of, not_finite, state_of
from expunge.records import Aim, Claim, Need, Outcome, Scope, Structure, to_json
from expunge.results.unlearned import Unlearned
from expunge.runtime.randomness import isolated
from expunge.statistics.collect import collect_statistics
from expunge.task import ForgetTask, forget_ids
from expunge.testing.toys import Toy, ToyData, toy
from expunge.unlearning.door import unlearn

__all__ = ["Check", "check_method", "check_saved_runs", "contract_checks"]

_CPU = torch.device("cpu")
_GONE, _NEXT = 3, 1
"""The classes that the toy requests forget, in this order."""

_RECORDS: ContextVar[bool] = ContextVar("records", default=False)
"""Whether requests are for records, with methods that serve both scopes."""


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One promise: call it to check; it raises ContractError where the promise is broken."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run the check in a random state of its own."""
        with isolated(0, _CPU):
            self.run()


def contract_checks(method: Method) -> Iterator[Check]:
    """Yield the checks that apply to `method`, chosen by its `info` and `needs`."""
    info = method.info
    checks: list[Callable[[Method], None]] = [
        info_complete,
        value_is_frozen,
        original_untouched,
        no_hooks_left,
        clean_after_an_exception,
        weights_finite,
        gradients_cleared,
        same_seed_same_bytes,
        global_randomness_untouched,
        record_complete,
        bad_requests_refused,
        unsupported_refused,
        missing_needs_refused,
        dict_rows_served_or_refused,
        saved_run_reloads,
    ]
    if info.structure == "same":
        checks.append(layout_kept)
    if not info.changes_buffers:
        checks.append(buffers_unchanged)
    if not info.stochastic:
        checks.append(seed_without_effect)
    if "retain" not in method.needs:
        checks.append(retain_never_read)
    if "classes" in info.scopes and "absent" in info.aims:
        checks += [class_forgotten, sequence_stays_forgotten]
    for check in checks:
        yield Check(check.__name__, partial(check, method))
    if {"classes", "records"} <= info.scopes:
        for check in checks:
            if check in _ALSO_ON_RECORDS:
                yield Check(f"{check.__name__}_on_records", partial(_on_records, check, method))


def _on_records(check: Callable[[Method], None], method: Method) -> None:
    """Run a check with a record request instead of a class request."""
    token = _RECORDS.set(True)
    try:
        check(method)
    finally:
        _RECORDS.reset(token)


def check_method(method: Method, *, without: Collection[str] = ()) -> None:
    """Run every check that applies; raises ContractError at the first broken promise.

    `without` names checks to leave out: a baseline that is not meant to forget says
    `without={"class_forgotten", "sequence_stays_forgotten"}`. Unknown names are refused.
    """
    checks = list(contract_checks(method))
    unknown = sorted(set(without) - {check.name for check in checks})
    if unknown:
        raise InputError(
            f"Expected `without` to name checks that apply, got {unknown[0]!r}; these do: "
            f"{', '.join(check.name for check in checks)}."
        )
    for check in checks:
        if check.name not in without:
            check()


# --- what the checks share -----------------------------------------------------------------------


def _require(promise: bool, method: Method, sentence: str) -> None:
    if not promise:
        raise ContractError(f"Method {method.info.name!r}: {sentence}")


def _request(method: Method, made: Toy, **given: Any) -> ForgetTask:
    """A request that the method says it serves."""
    if "classes" in method.info.scopes and not _RECORDS.get():
        return made.absent(_GONE, **given)
    return made.unseen(*range(0, 40, 5), **given)


def _run(method: Method, made: Toy, model: nn.Module | None = None, **given: Any) -> Unlearned:
    seed = given.pop("seed", 0)
    task = given.pop("task", None) or _request(method, made, **given)
    return unlearn(model or made.untidy(), method, task, seed=seed, initial=_initial(made))


def _initial(made: Toy) -> dict[str, Tensor]:
    with isolated(0, _CPU):
        return state_of(made.factory())


def _global_state() -> tuple[bytes, str, str]:
    return (
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state()),
        repr(random.getstate()),
    )


@final
@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Everything about a model that must be the same afterwards."""

    digest: str
    layout: Layout
    hooks: int
    gradients: tuple[bytes | None, ...]

    @staticmethod
    def of(model: nn.Module) -> _Snapshot:
        return _Snapshot(
            digest_of(state_of(model)),
            layout_of(model),
            hook_count(model),
            tuple(None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()),
        )


def _content(data: ToyData) -> str:
    return digest_of({**data.inputs, "targets": data.targets})


def _copies_of(model: nn.Module) -> list[nn.Module]:
    """A list that will hold every deep copy made of `model`."""
    copies: list[nn.Module] = []

    def copier(memo: dict[int, Any]) -> nn.Module:
        del model.__dict__["__deepcopy__"]
        try:
            copies.append(copy.deepcopy(model, memo))
        finally:
            model.__dict__["__deepcopy__"] = copier
        return copies[-1]

    model.__dict__["__deepcopy__"] = copier
    return copies


def _expect(
    method: Method, kind: type[Exception], words: str, attempt: Callable[[], object]
) -> None:
    try:
        attempt()
    except kind as error:
        _require(words in str(error), method, f"expected a message with {words!r}, got: {error}")
    else:
        _require(False, method, f"expected {kind.__name__} with {words!r}, got no error")


# --- the checks ----------------------------------------------------------------------------------


def info_complete(method: Method) -> None:
    """`info` is filled in, and its words are known ones."""
    info = method.info
    _require(
        re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", info.name) is not None,
        method,
        "expected `info.name` in lower case with hyphens",
    )
    paper = info.paper
    for name, text in (
        ("title", info.title),
        ("summary", info.summary),
        ("cost", info.cost),
        ("paper.title", paper.title),
        ("paper.authors", paper.authors),
        ("paper.venue", paper.venue),
    ):
        _require(bool(text.strip()), method, f"expected `info.{name}` to say something, got none")
    for name, got, known in (
        ("needs", method.needs, get_args(Need)),
        ("aims", info.aims, get_args(Aim)),
        ("scopes", info.scopes, get_args(Scope)),
        ("claims", info.claims, get_args(Claim)),
        ("structure", {info.structure}, get_args(Structure)),
    ):
        _require(set(got) <= set(known), method, f"expected `info.{name}` among {known}")
        _require(bool(got), method, f"expected `info.{name}` to name something, got none")
    for scope, aim in (("classes", "absent"), ("records", "unseen")):
        _require(
            (scope in info.scopes) == (aim in info.aims),
            method,
            f"expected scope {scope!r} and aim {aim!r} together in `info`",
        )


def value_is_frozen(method: Method) -> None:
    """A method is a frozen value: equal fields make equal, hashable methods."""
    _require(dataclasses.is_dataclass(method), method, "expected a dataclass")
    _require(dataclasses.replace(method) == method, method, "expected equal fields to be equal")  # type: ignore[type-var]
    _require(hash(method) == hash(copy.copy(method)), method, "expected a hashable value")
    for field in dataclasses.fields(method):  # type: ignore[arg-type]
        try:
            setattr(method, field.name, getattr(method, field.name))
        except dataclasses.FrozenInstanceError:
            continue
        _require(False, method, f"expected field `{field.name}` to be frozen")


def original_untouched(method: Method) -> None:
    """The given model and the data are bit-identical afterwards, gradients included."""
    made = toy("cnn")
    model = made.untidy()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    before, data = _Snapshot.of(model), (_content(made.train), _content(made.holdout))
    result = _run(method, made, model)
    _require(_Snapshot.of(model) == before, method, "the given model changed")
    after = (_content(made.train), _content(made.holdout))
    _require(after == data, method, "the data changed")
    _require(result.model is not model, method, "expected a model of its own, got the given one")


def layout_kept(method: Method) -> None:
    """Names, shapes, dtypes, device, modes and `requires_grad` are those of the given model."""
    for name, dtype in (("cnn", torch.float32), ("mlp", torch.float64)):
        made = toy(name)
        train, holdout = (
            ToyData({k: v.to(dtype) for k, v in data.inputs.items()}, data.targets)
            for data in (made.train, made.holdout)
        )
        made = dataclasses.replace(
            made, train=train, holdout=holdout, factory=_cast(made.factory, dtype)
        )
        model = made.untidy().to(dtype)
        result = _run(method, made, model)
        old, new = layout_of(model), layout_of(result.model)
        for field in dataclasses.fields(old):
            _require(
                getattr(old, field.name) == getattr(new, field.name),
                method,
                f"expected the {field.name} of the model to stay (toy {name}, {dtype})",
            )


def _cast(factory: Callable[[], nn.Module], dtype: torch.dtype) -> Callable[[], nn.Module]:
    return lambda: factory().to(dtype)


def buffers_unchanged(method: Method) -> None:
    """Buffers are bit-equal, since `info.changes_buffers` is not declared."""
    made = toy("cnn")
    result = _run(method, made, made.trained().train())
    old, new = dict(made.trained().named_buffers()), dict(result.model.named_buffers())
    new = {name: tensor for name, tensor in new.items() if name in old}  # a patch may bring its own
    _require(digest_of(old) == digest_of(new), method, "buffers changed without being declared")
    _require(result.record.cost.buffers_changed == 0, method, "the record counts changed buffers")


def no_hooks_left(method: Method) -> None:
    """No hook is left on the result; hooks of the user's own stay where they were."""
    made = toy("cnn")
    model = made.untidy()
    handle = model.register_forward_hook(lambda *_: None)
    result = _run(method, made, model)
    _require(hook_count(model) == 1, method, "hooks were added to or taken from the given model")
    handle.remove()
    _require(
        hook_count(_run(method, made).model) == 0, method, "hooks were left on the edited model"
    )
    _require(hook_count(result.model) <= 1, method, "hooks were left on the edited model")


def clean_after_an_exception(method: Method) -> None:
    """Where reading the data fails in the middle, no hook, mode or byte is out of place."""
    made = toy("mlp")
    reads: list[int] = []
    _run(method, made, train=made.train.watched(reads.append))
    total = len(reads)
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95):
        left = [1 + int(share * (total - 1))]

        def fail(_position: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] <= 0:
                raise RuntimeError("the disk is gone")

        model = made.untidy()
        before, state = _Snapshot.of(model), _global_state()
        copies = _copies_of(model)
        task = _request(method, made, train=made.train.watched(fail))
        try:
            _run(method, made, model, task=task)
        except DataError as error:
            # The traceback is alive here, and with it every frame that could hold a hook.
            _require("the disk is gone" in str(error), method, f"the cause is lost: {error}")
            hooks = sum(hook_count(copied) for copied in copies)
            _require(hooks == 0, method, "hooks stayed on its copy after an exception")
        else:
            _require(False, method, "an exception from the data set was swallowed")
        _require(_Snapshot.of(model) == before, method, "the given model changed on an exception")
        _require(_global_state() == state, method, "global random state moved on an exception")


def weights_finite(method: Method) -> None:
    """All weights and buffers are finite."""
    bad = not_finite(state_of(_run(method, toy("cnn")).model))
    _require(not bad, method, f"NaN or infinity in {bad[:1]}")


def gradients_cleared(method: Method) -> None:
    """No parameter of the result carries a gradient, also where the given model's did."""
    made = toy("cnn")
    model = made.untidy()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    result = _run(method, made, model)
    left = [n for n, p in result.model.named_parameters() if p.grad is not None]
    _require(not left, method, f"gradients were left on {left[:1]}")
    _require(
        all(not t.grad_fn for t in result.model.parameters()), method, "parameters hold a graph"
    )


def same_seed_same_bytes(method: Method) -> None:
    """The seed alone decides: same bytes whatever the global random state was."""
    made = toy("cnn")
    digests = set()
    for start in (1, 2):
        torch.manual_seed(start)
        np.random.seed(start)
        random.seed(start)
        digests.add(_run(method, made, seed=5).record.digest_after)
    _require(len(digests) == 1, method, "the same seed gave different weights")


def seed_without_effect(method: Method) -> None:
    """Not declared `stochastic`: every seed gives the same bytes."""
    digests = {_run(method, toy("cnn"), seed=seed).record.digest_after for seed in (1, 2)}
    _require(len(digests) == 1, method, "the seed matters, but `info.stochastic` is not declared")


def global_randomness_untouched(method: Method) -> None:
    """The generators of torch, numpy and random are where they were."""
    before = _global_state()
    _run(method, toy("cnn"))
    _require(_global_state() == before, method, "global random state moved")


def retain_never_read(method: Method) -> None:
    """`retain` is not declared: a retain set that raises on access makes no difference."""
    made = toy("cnn")
    task = _request(method, made)
    forget = {int(i) for i in task.forget.ids}

    def guard(position: int) -> None:
        if position not in forget:
            raise RuntimeError(f"retained row {position} was read")

    statistics = None
    if "statistics" in method.needs:
        model = made.trained()
        rows = as_rows(made.train)
        inputs, _ = rows.batch(torch.arange(2))
        statistics, _ = collect_statistics(model, find_head(model, inputs), rows)
    guarded = _request(method, made, train=made.train.watched(guard), statistics=statistics)
    _require(
        _run(method, made, task=guarded).record.outcome.outcome is not Outcome.NO_OP,
        method,
        "nothing was edited",
    )


def record_complete(method: Method) -> None:
    """The record names the method, every setting and the costs, and can be written as JSON."""
    made = toy("cnn")
    record = _run(method, made, seed=3).record
    written = json.loads(to_json(record))
    fields = {f.name for f in dataclasses.fields(method)}  # type: ignore[arg-type]
    _require(set(written["settings"]) == fields, method, "the record lacks some settings")
    _require(
        (written["method"], written["seed"]) == (method.info.name, 3), method, "wrong name or seed"
    )
    _require(written["claims"] == list(method.info.claims), method, "wrong claims in the record")
    changed = written["cost"]["parameters_changed"]
    _require(0 < changed <= written["cost"]["parameters"], method, "implausible count of changes")
    _require(written["cost"]["samples_touched"] > 0, method, "no samples were counted as touched")
    flat = [v for values in record.log.values() for v in values]
    _require(all(math.isfinite(v) for v in flat), method, "the log holds NaN or infinity")


def bad_requests_refused(method: Method) -> None:
    """Empty, overlapping, unknown and duplicate records are refused by message, before any edit."""
    made = toy("mlp")
    n = len(made.train)
    refusals: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (TaskError, "at least one class", lambda: made.absent()),
        (TaskError, "at least one record", lambda: made.unseen()),
        (TaskError, "to leave some records", lambda: made.unseen(*range(n))),
        (TaskError, "rows of class 77", lambda: made.absent(77)),
        (TaskError, f"between 0 and {n - 1}", lambda: made.unseen(n)),
        (TaskError, "3 twice", lambda: made.unseen(3, 3)),
        (TaskError, "unknown id 'zz'", lambda: forget_ids(made.train, ["zz"])),
        (TaskError, "duplicate id '7'", lambda: made.absent(_GONE, ids=[7] * n)),
        (
            TaskError,
            "also in the forget set",
            lambda: _run(method, made, task=_request(method, made, holdout=made.train)),
        ),
    ]
    for kind, words, attempt in refusals:
        _expect(method, kind, words, attempt)


def _refused_unedited(method: Method, words: str, task: ForgetTask) -> None:
    model = toy("mlp").untidy()
    copies = _copies_of(model)
    _expect(method, UnsupportedError, words, lambda: unlearn(model, method, task, seed=0))
    _require(not copies, method, "work was begun before the refusal")


def unsupported_refused(method: Method) -> None:
    """A scope or an aim that is not declared is refused by name before any edit."""
    made = toy("mlp")
    tasks = {"classes": made.absent(_GONE), "records": made.unseen(0, 5, 10)}
    for scope, task in tasks.items():
        if scope not in method.info.scopes:
            _refused_unedited(method, repr(method.info.name), task)
    for aim in get_args(Aim):
        if aim not in method.info.aims:
            served = dataclasses.replace(_request(method, made), aim=aim)
            _refused_unedited(method, repr(aim), served)


def missing_needs_refused(method: Method) -> None:
    """What is declared in `needs` and not given is refused by the method's name before any edit."""
    made = toy("mlp")
    task = _request(method, made)
    given = task.given
    lacking = {
        "retain": task.alone(),
        "statistics": task.alone().having(dataclasses.replace(given, statistics=None)),
        "training": task.having(dataclasses.replace(given, training=None)),
        "holdout": task.having(dataclasses.replace(given, holdout=None)),
    }
    for need, poorer in lacking.items():
        if need in method.needs_for(task.scope):
            _refused_unedited(method, repr(method.info.name), poorer)


def dict_rows_served_or_refused(method: Method) -> None:
    """Dict rows and outputs with `.logits` work like tensors, or are refused by name."""
    try:
        result = _run(method, toy("mapping"))
    except UnsupportedError as error:
        _require(method.info.name in str(error), method, f"the refusal names no method: {error}")
        return
    _require(
        result.record.outcome.outcome is not Outcome.NO_OP, method, "dict rows changed nothing"
    )


def saved_run_reloads(method: Method) -> None:
    """A saved run, loaded in a fresh process, has the same weights and gives the same logits."""
    check_saved_runs([method])


_RELOAD = """
import sys
import numpy
import torch

torch.set_num_threads(int(sys.argv[1]))

from expunge.network.state import digest_of, state_of
from expunge.data.views import as_rows
from expunge.network.passes import logits_of
from expunge.runs import load_run
from expunge.testing.toys import toy

made = toy("cnn")
for path in sys.argv[2:]:
    model = load_run(path, factory=made.factory).model
    logits = logits_of(model, as_rows(made.holdout), batch_size=64, device=torch.device("cpu"))
    numpy.save(path + ".npy", logits.numpy())
    print(digest_of(state_of(model)))
"""


def check_saved_runs(methods: Sequence[Method]) -> None:
    """Save one run of each method, load them all in one fresh process, compare byte for byte.

    What `saved_run_reloads` does for one method; several share the price of a new process.
    """
    from expunge.runs.saving import save_run

    made = toy("cnn")
    with tempfile.TemporaryDirectory() as folder, isolated(0, _CPU):
        results = [_run(method, made) for method in methods]
        paths = [Path(folder) / f"run-{number}" for number in range(len(results))]
        for result, path in zip(results, paths, strict=True):
            save_run(result, path)
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _RELOAD, str(torch.get_num_threads()), *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
        )
        _require(done.returncode == 0, methods[0], f"the run does not load: {done.stderr[-800:]}")
        digests = done.stdout.split()[-len(results) :]
        for method, result, path, digest in zip(methods, results, paths, digests, strict=True):
            rows = as_rows(made.holdout)
            own = logits_of(result.model, rows, batch_size=64, device=_CPU)
            loaded = torch.from_numpy(np.load(f"{path}.npy"))
            _require(digest == result.record.digest_after, method, "the loaded weights differ")
            _require(torch.equal(loaded, own), method, "the loaded model gives other logits")


def class_forgotten(method: Method) -> None:
    """On the toy the class is gone (at most 5 % recognised) and what stays holds."""
    outcome = _run(method, toy("mlp")).record.outcome
    _require(
        outcome.figures.get("forget_after", 100.0) <= 5.0
        and outcome.figures.get("judge_class_after", 100.0) <= 5.0,
        method,
        f"the class is still recognised on the toy: {outcome.reason}",
    )
    _require(
        outcome.outcome is Outcome.DONE,
        method,
        f"outcome {outcome.outcome.value!r} on the toy: {outcome.reason}",
    )


def sequence_stays_forgotten(method: Method) -> None:
    """A second request keeps the first forgotten, and never retains its records."""
    made = toy("mlp")
    first = _run(method, made, task=made.absent(_GONE))
    second = _run(method, made, first, task=made.absent(_NEXT))  # type: ignore[arg-type]
    rows = as_rows(made.train)
    gone = torch.isin(rows.labels, torch.tensor([_GONE, _NEXT]))
    logits = logits_of(second.model, rows, batch_size=64, device=_CPU)[gone]
    left = float((logits.argmax(1) == rows.labels[gone]).double().mean())
    _require(left <= 0.05, method, f"{100 * left:.1f} % of both requests are still recognised")
    _require(
        second.record.retain_count == int((~gone).sum()),
        method,
        "records of the first request were retained in the second",
    )
    _require(second.record.earlier_requests == 1, method, "the first request is not in the record")
    if second.statistics is not None:
        counts = second.statistics.sums.counts[[_GONE, _NEXT]]
        _require(not bool(counts.any()), method, "the statistics still hold forgotten records")


_ALSO_ON_RECORDS = (
    original_untouched,
    no_hooks_left,
    clean_after_an_exception,
    weights_finite,
    gradients_cleared,
    same_seed_same_bytes,
    global_randomness_untouched,
    record_complete,
    missing_needs_refused,
    dict_rows_served_or_refused,
    saved_run_reloads,
    layout_kept,
    buffers_unchanged,
)
