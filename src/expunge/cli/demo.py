"""`expunge demo`: a real classifier forgets a class before your eyes, by six methods."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from expunge.cli._console import Screen, command
from expunge.errors import ContractError, OutputError

if TYPE_CHECKING:
    import expunge

__all__ = ["demo"]

FORGET = 3
SEED = 0
REFERENCES = 3
RECORDS = 10
MISSION = ("naive-prototype-surgery", "prototype-surgery", "mu-mis")

NOT_PROVED = """What this does not prove
  A low forget accuracy shows what the model says, not what it knows. The methods that edit only
  the head leave the features as they were: a new head trained on a few of the forgotten images
  would recognise the class again. Look at the JS column: what counts is how near a method comes
  to "retrained", and how much nearer than "mask-class", which forgets nothing. One class, one
  small data set and one seed say nothing about your model: run it on yours."""


def demo(
    out: Path = typer.Option(
        None, "--out", help="Folder for the results (default: a new expunge-demo-N)."
    ),
) -> None:
    """Train a small classifier on digits and let it forget class 3 by six methods."""
    from expunge.storage.whole import new_folder

    with command() as screen:
        folder = _folder(out)
        began = time.perf_counter()
        with new_folder(folder) as partial:
            done, table, certified = _run(screen, partial)
        screen.say("")
        screen.say("In one line a method (forget test and JS on the judge half of the holdout):")
        screen.say("")
        for line in _closing(*table):
            screen.say(line)
        screen.say("")
        for line in certified:
            screen.say(line)
        screen.say("")
        screen.say(NOT_PROVED)
        screen.say("")
        missed = [name for name in MISSION if name not in done]
        if missed:
            screen.warn(f"not done: {', '.join(missed)}; see the outcome column")
        screen.say(f"finished in {time.perf_counter() - began:.0f} s")
        screen.then(f"ls {folder}, then: expunge init job.toml")
        screen.result(str(folder))
        if missed:
            raise typer.Exit(12)


def _folder(out: Path | None) -> Path:
    if out is None:
        number = 1
        while Path(f"expunge-demo-{number}").exists():
            number += 1
        return Path(f"expunge-demo-{number}")
    if out.exists():
        raise OutputError(
            f"Expected `--out` to name a new folder, got {out}, which exists. Name another."
        )
    return out


def _methods() -> Sequence[expunge.Method]:
    import expunge

    return (
        expunge.MaskClass(),
        expunge.NaivePrototypeSurgery(),
        expunge.PrototypeSurgery(),
        expunge.LeastSquaresRemoval(),
        expunge.MuMis(),
        expunge.FineTune(epochs=10, lr=0.02),
    )


def _run(
    screen: Screen, folder: Path
) -> tuple[set[str], tuple[list[str], list[list[str]]], list[str]]:
    import expunge
    from expunge.data.demo import digits
    from expunge.models import DigitsNet
    from expunge.report import audit_rows
    from expunge.runs.saving import save_audit

    train, holdout = digits()
    screen.say(
        f"Digits: {len(train)} training and {len(holdout)} holdout images of ten classes. "
        f"Class {FORGET} is to be forgotten."
    )
    recipe = expunge.Recipe(epochs=30, batch_size=64, lr=0.1)
    training = expunge.Training(DigitsNet, recipe)
    original = _train(training, train)
    task = expunge.forget_classes(train, {FORGET}, holdout=holdout, training=training)

    references: list[Any] = []
    with screen.progress() as progress:
        for i in range(REFERENCES):
            progress("retraining without the class", i, REFERENCES)
            run = expunge.unlearn(original, expunge.Retrain(), task, seed=1 + i)
            expunge.save_run(run, folder / f"retrained-{i}")
            references.append(run)
            progress("retraining without the class", i + 1, REFERENCES)
    models = [run.model for run in references]
    base = expunge.audit(references[0], task, references=models, original=original)
    heading, rows = audit_rows(base)
    shown = {row[0]: row[1:] for row in rows}
    heading = [*heading, "seconds", "outcome"]
    seconds = sum(r.record.cost.seconds for r in references) / REFERENCES
    closing = [
        ["original", *shown["before"], "–", "–"],
        [rows[-1][0], *rows[-1][1:], f"{seconds:.2f}", "reference"],
    ]
    screen.say("")
    _lines(screen, [heading, *closing], widths := _widths(heading))
    done: set[str] = set()
    for method in _methods():
        with screen.progress() as progress:
            result = expunge.unlearn(original, method, task, seed=SEED, progress=progress)
        report = expunge.audit(result, task, references=models)
        path = expunge.save_run(result, folder / result.record.method)
        save_audit(path, report)
        after = next(row for row in audit_rows(report)[1] if row[0] == "after")
        outcome = result.outcome.outcome
        if outcome is expunge.Outcome.DONE:
            done.add(result.record.method)
        row = [result.record.method, *after[1:], f"{result.record.cost.seconds:.2f}", outcome.value]
        closing.append(row)
        _lines(screen, [row], widths)
    _save_original(original, folder / "original.safetensors")
    return done, (heading, closing), _certified(screen, original, train, holdout, folder)


def _certified(screen: Screen, original: Any, train: Any, holdout: Any, folder: Path) -> list[str]:
    """Ten records forgotten with a certificate; verified; one byte flipped and refused."""
    import torch

    import expunge
    from expunge.certificate import keygen, sign_run, verify

    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))[:RECORDS]
    task = expunge.forget_indices(train, sorted(chosen.tolist()), holdout=holdout)
    with screen.progress() as progress:
        result = expunge.unlearn(original, expunge.Prune(), task, seed=SEED, progress=progress)
    run = expunge.save_run(result, folder / "prune-records")
    key = folder / "throw-away"
    keygen(key)
    sign_run(run, Path(f"{key}.key.pem"))
    trust = Path(f"{key}.pub.pem")
    found = verify(run, trust=trust)
    with tempfile.TemporaryDirectory() as place:
        copied = Path(shutil.copytree(run, Path(place) / "run"))
        weights = copied / "model.safetensors"
        blob = weights.read_bytes()
        weights.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
        refused = verify(copied, trust=trust)
    if found.exit_code != 0 or refused.exit_code == 0:
        raise ContractError(
            f"Expected the certificate to be verified and the changed file to be refused, got "
            f"{found.verdict} and {refused.verdict}. This is our bug."
        )
    broken = next(claim.name for claim in refused.claims if claim.status == "refuted")
    said = next(note for note in result.record.notes if note.startswith("form: "))
    form = said.partition(". ")[0].removeprefix("form: ")
    return [
        f"Closing act: {RECORDS} records forgotten with prune, signed with a throw-away key",
        f"  form: {form}",
        f"  as a membership statement: {result.outcome.outcome.value}",
        f"  its certificate: {found.verdict}, {len(found.claims)} claims (a checker without torch)",
        f"  one byte of the weights flipped: {refused.verdict} ({broken})",
        "  No contradiction: the certificate states what the model answers on these records; that",
        "  nobody could tell them from unseen ones is a statement about many: these are too few.",
    ]


def _train(training: expunge.Training, train: Any) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return training.fit(
            training.factory(),
            train,
            generator=torch.Generator().manual_seed(SEED),
            device=torch.device("cpu"),
        )


def _save_original(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def _closing(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """What each row means, in words: still recognised, what stays, near to retraining or not."""
    column = {name: i for i, name in enumerate(heading)}
    by_name = {row[0]: row for row in rows}
    js, others = column["JS bits"], column["others %"]
    floor, mask = float(rows[1][js]), float(by_name["mask-class"][js])
    first = f"  retrained models differ from each other by {floor:.3f} bits; "
    lines = [f"{first}mask-class, which forgets nothing, is {mask:.3f} from them"]
    for row in rows[2:]:
        near = float(row[js])
        if row[0] == "mask-class":
            continue
        verdict = "nearer than the mask" if near < mask else "no nearer than the mask"
        lines.append(
            f"  {row[0]:<24} {row[column['outcome']]:<12} {row[column['forget test %']]:>6} % of "
            f"the class recognised, others {row[others]} %, {near:.3f} bits: {verdict}"
        )
    return lines


def _widths(heading: Sequence[str]) -> list[int]:
    return [24, *(max(len(name), 13) for name in heading[1:])]


def _lines(screen: Screen, rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    for row in rows:
        first = row[0].ljust(widths[0])
        screen.say(
            first
            + " ".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        )
