"""The table of sabotage between a run and its audit, and in the folder of a run."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

from sabotage_acts import by, empty_table, of_tune_rows, table, unchanged
from sabotage_nets import (
    CLASS,
    LABEL,
    NOISY,
    OF_CLASS,
    RECORDS,
    giving,
    kept,
    net,
    of_class,
    of_records,
    on_class,
    on_records,
    references,
)
from sabotage_rows import INEFFECTIVE, TOLD, Refused, Row

from expunge import MaskClass, Retrain, audit, load_run, save_run
from expunge.errors import InputError, ModelError, TaskError
from expunge.reasons import Reason
from expunge.runs.saving import save_audit


def _edited_record(run):
    """The outcome in record.json is another."""
    facts = json.loads((run / "record.json").read_text())
    facts["outcome"]["outcome"] = "incomplete"
    (run / "record.json").write_text(json.dumps(facts))


def _run(folder, name, label=LABEL):
    return save_run(on_class(MaskClass(), of_class(label=label)), folder / name)


def _with_part_of_another(folder, part):
    """A run that is read back with one part of another run of the same model."""
    path, other = _run(folder, "one"), _run(folder, "other", label=5)
    shutil.copyfile(other / part, path / part)
    return load_run(path, factory=net)


def _after(folder, change):
    path = _run(folder, "one")
    change(path)
    return load_run(path, factory=net)


def _into_another(folder):
    report = audit(on_class(MaskClass()), of_class())
    return save_audit(_run(folder, "other", label=5), report)


def _exchanged():
    result = on_class(MaskClass())
    return dataclasses.replace(result, model=result.original, original=result.model)


def _judged_again(result, task, **options):
    """What an audit ends in, which must contradict the run."""
    report = audit(result, task, **options)
    assert result.outcome.outcome.accepted
    assert report.contradicts
    return SimpleNamespace(outcome=report.judged, record=result.record)


def _beside_false_references(_):
    """Half kept, beside models that saw half: audited beside honest ones."""
    task = of_records(training=giving(kept(1 / 2)))
    false = [kept(1 / 2, 60 + i) for i in range(3)]
    return _judged_again(
        on_records(Retrain(), task, references=false), task, references=references(5)
    )


def _by_a_wide_table(_):
    """A table that takes in the noisy copies: audited on views beyond it."""
    task = of_records()
    result = on_records(table(of_tune_rows, radius=0.5), task, factory=empty_table(RECORDS))
    return _judged_again(result, task, views=lambda x: [0.8 * x])


AUDITS = [
    Row("references that saw half", _beside_false_references, INEFFECTIVE, TOLD),
    Row("a table with a wide radius", _by_a_wide_table, INEFFECTIVE, Reason.COPIES_TELL),
    Refused(
        "another class",
        lambda _: audit(on_class(MaskClass()), of_class(label=5)),
        TaskError,
        "not [3]",
    ),
    Refused(
        "other records",
        lambda _: audit(on_records(by(unchanged)), of_records(forget=range(1, 301))),
        TaskError,
        "one with other records",
    ),
    Refused(
        "other labels",
        lambda _: audit(on_class(MaskClass()), of_class(labels=NOISY)),
        TaskError,
        "one with other records",
    ),
    Refused(
        "another original",
        lambda _: audit(on_class(MaskClass()), of_class(), original=CLASS.without(OF_CLASS, 7)),
        ModelError,
        "one with other weights",
    ),
    Refused(
        "before and after exchanged",
        lambda _: audit(_exchanged(), of_class()),
        ModelError,
        "one with other weights",
    ),
    Refused(
        "a reference that is the original",
        lambda _: audit(on_class(MaskClass()), of_class(), references=[CLASS.original()]),
        ModelError,
        "got the original model itself",
    ),
    Refused("a report saved into another run", _into_another, InputError, "another request"),
    Refused(
        "an edited record", lambda at: _after(at, _edited_record), InputError, "edited or exchanged"
    ),
    Refused(
        "the history of another run",
        lambda at: _with_part_of_another(at, "private/history.json"),
        InputError,
        "history",
    ),
    Refused(
        "the job of another run",
        lambda at: _with_part_of_another(at, "job.toml"),
        InputError,
        "edited or exchanged",
    ),
    Refused(
        "the weights of another run",
        lambda at: _with_part_of_another(at, "model.safetensors"),
        ModelError,
        "The file was changed",
    ),
]
