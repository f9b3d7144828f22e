"""Frozen facts: what a method is, what a run did, what was measured. Standard library only.

Everything here is a value that can be written as JSON (`to_json`) and read where torch is not
installed. Records are mute: they do not print, plot or judge.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, final, get_args

from expunge.errors import InputError
from expunge.reasons import Reason, reason_of
from expunge.settings import Range

__all__ = [
    "NOT_MEASURED",
    "RECORD_VERSION",
    "Aim",
    "CertificateState",
    "Claim",
    "Cost",
    "Level",
    "Limits",
    "Measurement",
    "MethodInfo",
    "Need",
    "NotMeasured",
    "Outcome",
    "OutcomeReport",
    "Paper",
    "Reach",
    "RunRecord",
    "Scope",
    "Standing",
    "Structure",
    "read_record",
    "to_json",
]


Aim = Literal["absent", "unseen"]
"""What a request asks for: `absent`, the class is gone; `unseen`, records are like new data."""


Claim = Literal["outputs", "features", "file"]
"""What a method can support at most; the three are judged separately and never blended."""


NOT_MEASURED = "not measured"
"""The verdict on a claim that no audit has judged yet."""


Scope = Literal["classes", "records"]
"""What a request names: whole classes, or records of classes that stay."""


Structure = Literal["same", "wraps", "narrows"]
"""How the edited module relates to the given one."""


Reach = Literal["model", "rows"]
"""What a method changes for records: what the model knows, or its answers on the stored rows."""


Need = Literal["forget", "retain", "statistics", "holdout", "training", "head"]
"""What a method must be handed; `statistics` is met by training data too."""


Level = Literal["C1", "C2", "C3", "C4", "unverified"]
"""Comparator: C1 retrained models, C2 reference models, C3 their summaries, C4 holdout only;
unverified: models of which nothing shows that they were retrained."""


CertificateState = Literal["complete", "partial", "none"]
"""Whether every record of a request is claimed, some are, or no certificate is written."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    venue: str
    link: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInfo:
    """What a method is and needs; help texts, the docs matrix and the checks read it from here.

    `claims` is the ceiling: what the method can support at most, not what a run achieved.
    `changes_buffers` says whether batch-norm statistics may move; `stochastic` whether the seed
    changes the result. `reads` says which rows the method itself passes through the network; the
    door reads the forget and the judge rows before and after. `reach` says whether records are
    forgotten as such, or on the stored rows alone. `expected_failures` maps promises
    (names of checks in `expunge.testing`) that the method is known not to keep to the reason.
    """

    name: str
    title: str
    summary: str
    paper: Paper
    needs: frozenset[Need]
    aims: frozenset[Aim]
    scopes: frozenset[Scope]
    claims: tuple[Claim, ...]
    structure: Structure = "same"
    reach: Reach = "model"
    changes_buffers: bool = False
    stochastic: bool = False
    cost: str = ""
    reads: str = "nothing beyond what the door reads"
    expected_failures: Mapping[str, str] = field(default_factory=dict)


@final
class Outcome(enum.Enum):
    """How a run ended; the value is what records and tables show."""

    DONE = "done"
    INCOMPLETE = "incomplete"
    NO_OP = "no-op"
    INEFFECTIVE = "ineffective"
    WRECKED = "wrecked"
    UNDETERMINED = "undetermined"

    @property
    def exit_code(self) -> int:
        """The exit code of the command line for this outcome."""
        codes = {"undetermined": 11, "no-op": 12, "ineffective": 12, "wrecked": 13}
        return (codes | {"done": 0, "incomplete": 14})[self.value]

    @property
    def accepted(self) -> bool:
        """Whether the edited weights may be written as `model.safetensors`."""
        return self in (Outcome.DONE, Outcome.INCOMPLETE, Outcome.UNDETERMINED)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a run counts as ineffective, wrecked or undetermined. Accuracies in points (percent).

    `forget_accuracy`: largest accuracy that may be left on a forgotten class; `class_bound`:
    largest one-sided upper bound of it on judge rows. `mean_drop`, `worst_drop`: loss on what
    stays, in the mean and on the worst class; `mean_bound`: largest loss in the mean that the
    judge rows may leave open. `confidence`: of every interval and bound. `least_rows`: with fewer
    judge rows nothing is concluded. `signal_left`: share of the original's membership signal that
    may be left of records; `signal_new`: largest signal where the original had none, as a distance
    of an AUC from ½. `most_moved`, `most_flipped`: share of judge rows that stay, in
    percent, that may get other logits, and another class; 100 limits nothing.
    """

    forget_accuracy: Annotated[float, Range(least=0, most=20)] = 5.0
    class_bound: Annotated[float, Range(above=0, most=40)] = 10.0
    mean_drop: Annotated[float, Range(least=0, most=10)] = 2.0
    mean_bound: Annotated[float, Range(above=0, most=20)] = 4.0
    worst_drop: Annotated[float, Range(least=0, most=30)] = 10.0
    confidence: Annotated[float, Range(least=0.8, most=0.999)] = 0.95
    least_rows: Annotated[int, Range(least=2, most=10_000)] = 20
    signal_left: Annotated[float, Range(above=0, most=0.5)] = 0.25
    signal_new: Annotated[float, Range(above=0, most=0.2)] = 0.05
    most_moved: Annotated[float, Range(least=0, most=100)] = 100.0
    most_flipped: Annotated[float, Range(least=0, most=100)] = 100.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReport:
    """The outcome, why, the same as a sentence, and the figures it rests on.

    `why` is None in records from before it was kept.
    """

    outcome: Outcome
    why: Reason | None
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(outcome: Outcome, why: Reason, **facts: Any) -> OutcomeReport:
        """A report without figures, its sentence filled with `facts`."""
        assert why.outcome == outcome.value, f"{why.value} is a reason for {why.outcome}"
        return OutcomeReport(outcome=outcome, why=why, reason=why.filled(**facts))

    def given(self, figures: Mapping[str, float]) -> OutcomeReport:
        """The same with these figures."""
        return dataclasses.replace(self, figures=dict(figures))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run cost: `seconds` is the method alone, `door_seconds` the checks around it.

    `samples_touched` counts the rows that the method read, `parameters_changed` of `parameters` is
    counted element by element, gates and patches included, `peak_bytes` is the peak resident memory
    of the process on a CPU (of the device on a GPU).
    """

    seconds: float
    door_seconds: float
    peak_bytes: int
    samples_touched: int
    gradient_steps: int
    parameters: int
    parameters_changed: int
    buffers_changed: int


def _unmeasured() -> dict[Claim, str]:
    return dict.fromkeys(get_args(Claim), NOT_MEASURED)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What one call of `unlearn` did. No ids, no classes: those are private.

    `digest_before` and `digest_after` are SHA-256 over tensor names, dtypes, shapes and bytes
    (recipe `sha256-state-v1`). `commitment` is a salted SHA-256 of the forget selection,
    `holdout_commitment` one of the contents and labels of the holdout.
    `notes` are sentences a reader must see (which stop rule fired, `transplanted`, refusals).
    `log` holds the scalars a method reported, in order. `attempts` counts earlier runs of the same
    request on the same model in the folder where the run was saved, by "method outcome".
    `ceiling` are the claims that the method can support at most, and `verdicts` says of each of the
    three what an audit has found: `not measured` until one has judged it. `reach` says whether the
    method changes what the model knows of records, or its answers on the stored rows;
    `trained_anew` whether it is one that trains a model from the start.
    `repeats_count` counts holdout rows that are also among the training rows that stay, and were
    left out; `twins_count` forget records served whose content stays under another id; None where
    the training rows were not compared.
    `forget_count` is what was asked, `served_count` less the records that the method refused,
    `certified_count` those that the certificate claims something for; None in records from before
    they were kept.
    """

    version: int
    method: str
    settings: Mapping[str, Any]
    seed: int
    aim: Aim
    scope: Scope
    ceiling: tuple[Claim, ...]
    structure: Structure
    outcome: OutcomeReport
    limits: Limits
    cost: Cost
    forget_count: int
    retain_count: int | None
    tune_count: int
    judge_count: int
    dropped_from_holdout: int
    commitment: str
    digest_before: str
    digest_after: str
    head: str | None
    earlier_requests: int
    notes: tuple[str, ...] = ()
    log: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    served_count: int | None = None
    certified_count: int | None = None
    certificate: CertificateState | None = None
    repeats_count: int | None = None
    twins_count: int | None = None
    verdicts: Mapping[Claim, str] = field(default_factory=_unmeasured)
    reach: Reach = "model"
    trained_anew: bool = False
    holdout_commitment: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured figure of one audit.

    `subject` says which model (`before`, `after`, `mask-class`, `retrained`), `rows` which data.
    `interval` is a 95 % interval where one is defined. `direction` says which values are better
    for the claim; `nearest` means: nearest to retraining.
    """

    audit: str
    name: str
    subject: str
    rows: str
    value: float
    n: int
    unit: str
    direction: Literal["lower", "higher", "nearest", "none"]
    level: Level
    interval: tuple[float, float] | None = None
    seed: int | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NotMeasured:
    """A figure that could not be measured, and why. It never counts as a pass."""

    audit: str
    name: str
    subject: str
    rows: str
    reason: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What shows that a reference was trained on its own, without what is to be forgotten.

    `weights_cosine` is that of its weights with the original's, `steps_cosine` of what training
    added to the initial weights. `agreement` (class requests): percent of judge rows that stay and
    are given the same class by both. `seen_auc`, with its 95 % interval (record requests): the
    class-matched AUC of the margin, forget records against retained rows; 0.5 where it was trained
    on both. None for what could not be measured. `level` is C1 only where independence is shown.
    """

    reference: str
    level: Literal["C1", "unverified"]
    weights_cosine: float | None = None
    steps_cosine: float | None = None
    agreement: float | None = None
    seen_auc: float | None = None
    seen_interval: tuple[float, float] | None = None


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted(_plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def to_json(value: Any) -> str:
    """Write a record (or a tuple or mapping of records) as readable JSON, keys in field order."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n"


RECORD_VERSION = 2
"""Of the records written today; version 1, where `ceiling` was called `claims`, is read too."""


def read_record(text: str, *, source: str = "record.json") -> RunRecord:
    """Read what `to_json(record)` wrote; raises InputError for anything else."""
    try:
        facts = json.loads(text)
        if facts["version"] not in range(1, RECORD_VERSION + 1):
            raise InputError(
                f"Expected {source} of version 1 to {RECORD_VERSION}, got {facts['version']!r}. A "
                "newer Expunge wrote it: update."
            )
        if facts["version"] == 1:
            facts["ceiling"] = facts.pop("claims")
            stored = facts["method"] in ("prune", "prune-published")
            facts["reach"] = "rows" if stored else "model"
            facts["trained_anew"] = facts["method"] == "retrain"
        outcome = facts["outcome"]
        facts["outcome"] = OutcomeReport(
            outcome=Outcome(outcome["outcome"]),
            why=reason_of(outcome.get("why")),
            reason=outcome["reason"],
            figures={k: float(v) for k, v in outcome["figures"].items()},
        )
        facts["limits"] = Limits(**facts["limits"])
        facts["cost"] = Cost(**facts["cost"])
        facts["ceiling"] = tuple(facts["ceiling"])
        facts["notes"] = tuple(facts["notes"])
        facts["log"] = {k: tuple(float(x) for x in v) for k, v in facts["log"].items()}
        facts["settings"] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in facts["settings"].items()
        }
        return RunRecord(**facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"Expected {source} to be the record of a run, but reading it raised "
            f"{type(error).__name__}: {error}. The file is damaged: take it from a copy."
        ) from error
