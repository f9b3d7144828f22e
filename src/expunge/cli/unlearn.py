"""`expunge unlearn`: run a job, write the run folder, audit it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from expunge.cli._console import Screen, command

if TYPE_CHECKING:
    from expunge.records import RunRecord
    from expunge.results.report import AuditReport
    from expunge.results.unlearned import Unlearned

__all__ = ["unlearn"]


class Device(StrEnum):
    """Where to compute; `auto` takes a GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Required(StrEnum):
    """What exit code 0 needs: an outcome that is done, a certificate of every record, or both."""

    outcome = "outcome"
    certificate = "certificate"
    both = "both"


def unlearn(
    job: Path = typer.Argument(help="The job file; `expunge init` writes one."),
    method: str = typer.Option(None, "--method", help="Another method than the job's."),
    seed: int = typer.Option(None, "--seed", help="Another seed than the job's."),
    device: Device = typer.Option(Device.auto, "--device", help="Where to compute."),
    out: Path = typer.Option(None, "--out", help="The run folder to write; must not exist."),
    require: Required = typer.Option(
        Required.outcome, "--require", help="What exit code 0 needs: see below."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Make a model forget: run a job, write the run folder and audit it.

    Prints the path of the run folder. Exit codes: 0 done, 11 undetermined, 12 no-op or
    ineffective, 13 wrecked (then the weights are in rejected.safetensors), 14 incomplete: nothing
    was done for some records, 10 the audit contradicts the run. With --require certificate: 0 where
    the certificate claims every record, 14 where it claims some, else the outcome's code, or 11.
    With both: 0 only where both give 0.
    """
    with command() as screen:
        code = _run(screen, job, method, seed, device.value, out, require, as_json=as_json)
        raise typer.Exit(code)


def _run(
    screen: Screen,
    path: Path,
    method_name: str | None,
    seed: int | None,
    device: str,
    out: Path | None,
    require: Required,
    *,
    as_json: bool,
) -> int:
    import expunge
    from expunge.cli._job import read_job
    from expunge.cli._load import references_of, resolved
    from expunge.cli._session import open_job, with_seed
    from expunge.records import read_record
    from expunge.runs.attempts import attempts_in_words
    from expunge.runs.saving import save_audit
    from expunge.storage.whole import refuse_existing, refuse_unwritable

    job = with_seed(read_job(path), seed)
    if out is None:
        refuse_unwritable(Path("runs") / "new")
    else:
        refuse_existing(out)
    with open_job(job, method_name, screen) as work:
        references = references_of(job, work.factory, work.rows, work.model, work.task)
        facts = resolved(job, work.method, work.limits)
        with screen.progress() as progress:
            result = expunge.unlearn(
                work.model,
                work.method,
                work.task,
                seed=job.seed,
                device=device,
                head=job.model.head,
                initial=work.initial,
                factory=work.factory,
                references=references,
                limits=work.limits,
                repeats=job.data.repeats,
                already="error" if job.forget is None else job.forget.already,
                progress=progress,
            )
        run = expunge.save_run(result, out, job=facts)
        try:
            report = expunge.audit(
                result,
                work.task,
                references=references,
                initial=work.initial,
                device=device,
            )
            audit = save_audit(run, report)
        except expunge.ExpungeError as error:
            raise type(error)(f"{error} (The run itself is written: {run}.)") from error
    code = CONTRADICTED if report.contradicts else _exit_code(result.record, require)
    _show(screen, result, report)
    attempts = read_record((run / "record.json").read_text(encoding="utf-8")).attempts
    if attempts:
        screen.warn(attempts_in_words(attempts))
    if as_json:
        more = {"attempts": dict(attempts), "exit_code": code}
        screen.json(_facts(run, audit, result, report) | more)
    else:
        screen.result(str(run))
    screen.then(_advice(path, run, result))
    return code


def _exit_code(record: RunRecord, require: Required) -> int:
    """The outcome's code, that of the certificate, or the first of both that is not 0."""
    from expunge.records import Outcome

    outcome = record.outcome.outcome.exit_code
    if require is Required.outcome or (require is Required.both and outcome):
        return outcome
    if record.certificate == "complete":
        return 0
    if record.certificate == "partial":
        return Outcome.INCOMPLETE.exit_code
    return outcome or Outcome.UNDETERMINED.exit_code


CONTRADICTED = 10
"""The exit code where the audit judges otherwise than the run."""


def _show(screen: Screen, result: Unlearned, report: AuditReport) -> None:
    from expunge.report.table import (
        audit_rows,
        claims_in_words,
        detail_rows,
        limits_line,
        side_effect_rows,
        standing_rows,
    )

    if report.contradicts and report.judged is not None:
        own = f"{report.judged.outcome.value}: {report.judged.reason}"
        screen.warn(f"the audit contradicts the run, and judges {own}")
    screen.table(*audit_rows(report))
    effects = side_effect_rows(result.outcome.figures, result.record.limits)
    for table in (detail_rows(report), effects, standing_rows(report)):
        if table[1]:
            screen.say("")
            screen.table(*table)
    if result.class_names is not None:
        screen.say(f"classes: {_numbered(result.class_names)}")
    for note in result.record.notes:
        screen.say(f"note: {note}")
    outcome = f"{result.outcome.outcome.value}: {result.outcome.reason}"
    screen.say(outcome + limits_line(result.record.limits))
    screen.say(f"claims: {claims_in_words(result.record)}")
    screen.say(f"certificate: {_certificate(result.record)}")


def _numbered(names: tuple[str, ...]) -> str:
    """Which name has which number, the first twenty."""
    shown = ", ".join(f"{number} = {name}" for number, name in enumerate(names[:20]))
    return shown + (", ..." if len(names) > 20 else "")


def _certificate(record: RunRecord) -> str:
    """Whether the certificate speaks of every record, and of how many."""
    if record.certificate in (None, "none"):
        return "none"
    if record.scope == "classes":
        return f"{record.certificate}, whole classes"
    return f"{record.certificate}, {record.certified_count:,} of {record.forget_count:,} records"


def _facts(run: Path, audit: Path, result: Unlearned, report: AuditReport) -> dict[str, Any]:
    from expunge.records import to_json

    accepted = result.outcome.outcome.accepted
    return {
        "run": str(run),
        "weights": str(run / ("model.safetensors" if accepted else "rejected.safetensors")),
        "audit": str(audit / "audit.json"),
        "method": result.record.method,
        **json.loads(to_json(result.outcome)),
        "certificate": result.record.certificate,
        "forget_count": result.record.forget_count,
        "served_count": result.record.served_count,
        "certified_count": result.record.certified_count,
        "level": report.level,
        "standing": json.loads(to_json(report.standing)),
        "repeats_count": result.record.repeats_count,
        "twins_count": result.record.twins_count,
        "ceiling": list(result.record.ceiling),
        "verdicts": dict(result.record.verdicts),
        "judged": None if report.judged is None else json.loads(to_json(report.judged)),
        "contradicts": report.contradicts,
        "measurements": json.loads(to_json(report.measurements)),
    }


def _cure(result: Unlearned) -> str:
    """What would let an undetermined outcome be judged."""
    from expunge.reasons import Reason

    why = result.outcome.why
    if why in (Reason.NOT_KNOWN_BEFORE, Reason.NEAR_CHANCE_BEFORE):
        return "look at the label numbering and the normalisation of the data"
    if why is Reason.IN_MEMORY:
        return "name a `factory` under [model] that builds what the method returns"
    few = "judge rows of their classes would settle it" not in result.outcome.reason
    if why in (Reason.NOT_COMPARABLE, Reason.TRAINED_ANEW) or (
        why in (Reason.SIGNAL_OPEN, Reason.NO_SIGNAL_BEFORE) and few
    ):
        return "name three or more retrained models under [references]"
    more = "a larger" if result.record.judge_count else "a"
    return f"give {more} `holdout` under [data]"


def _advice(job: Path, run: Path, result: Unlearned) -> str:
    from expunge.certificate.envelope import CERTIFICATE
    from expunge.reasons import Reason

    outcome = result.outcome.outcome.value
    if result.outcome.why is Reason.TWINS:
        return (
            f"forget the rows that {run}/private/twins.json names too, then: expunge unlearn {job}"
        )
    if outcome == "incomplete":
        return (
            f"forget the rows that {run}/private/left.json names too, for instance with "
            f'entangled = "forget-twins" under [method], then: expunge unlearn {job}'
        )
    if (run / CERTIFICATE).exists():
        return f"expunge keygen signing, then: expunge sign {run} --key signing.key.pem"
    if outcome == "done":
        return (
            f'expunge.load_run("{run}", factory=...) in Python, or run = "{run}" under [model] '
            "for a further request"
        )
    if outcome == "undetermined":
        return f"{_cure(result)}, then: expunge unlearn {job}"
    other = "retrain" if result.record.method != "retrain" else "fine-tune"
    if result.record.scope == "classes" and result.record.method != "prototype-surgery":
        other = "prototype-surgery"
    return f"expunge unlearn {job} --method {other}"
