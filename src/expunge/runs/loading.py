"""Read a run folder back in a fresh process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from expunge.certificate import Evidence, payload_digest, read_evidence
from expunge.errors import InputError, ModelError
from expunge.network.heads import Head, head_at
from expunge.network.rebuilding import rebuilt
from expunge.network.state import digest_of, state_of
from expunge.network.weights import build, read_weights
from expunge.patches.regions import RegionPatched
from expunge.records import RunRecord, read_record
from expunge.results.history import read_history
from expunge.results.unlearned import Unlearned
from expunge.runs.parts import (
    refuse_edited,
    refuse_other_certificate,
    refuse_other_evidence,
    refuse_other_statistics,
)
from expunge.statistics.features import FeatureStatistics, member_set

__all__ = ["load_run", "record_in", "weights_name"]


def load_run(path: Path | str, *, factory: Callable[[], nn.Module]) -> Unlearned:
    """Load a run folder: the model in eval mode, its record, statistics, and what was forgotten.

    `factory` builds the same architecture as when it was saved. Pass the result to `unlearn` for a
    further request; to go on with `Prune` after records, keep features.safetensors in the folder.
    Raises InputError for a folder that is none or whose parts do not belong together, and
    ModelError where the weights do not fit `factory` or are not those of the record.
    """
    path = Path(path)
    record = record_in(path)
    history = read_history(path, record)
    refuse_edited(path, record, history)
    weights = path / weights_name(record)
    state = read_weights(weights)
    model = rebuilt(build(factory), record.head, state, source=str(weights)).eval()
    _check_digest(model, record, weights)
    refuse_other_certificate(path, record, weights)
    head, forgotten = _head(model, record), history.requests
    statistics = _read_statistics(path)
    if statistics is not None:
        refuse_other_statistics(statistics, model, head, forgotten)
    evidence = _evidence(path) if forgotten else None
    refuse_other_evidence(evidence, forgotten)
    return Unlearned(
        model=model,
        record=record,
        statistics=statistics,
        forgotten=forgotten,
        split_seed=history.split_seed,
        head=head,
        history_known=bool(forgotten),
        evidence=evidence,
        certificate=payload_digest(path),
        refused=history.refused,
        class_names=history.class_names,
    )


def _evidence(path: Path) -> Evidence | None:
    """What the certificate was written from; None where the auditor's file is not there."""
    return read_evidence(path) if (path / "features.safetensors").exists() else None


def weights_name(record: RunRecord) -> str:
    """The name of the weights in a run folder: rejected ones say so."""
    accepted = record.outcome.outcome.accepted
    return "model.safetensors" if accepted else "rejected.safetensors"


def record_in(path: Path) -> RunRecord:
    """The record of a run folder; raises InputError where there is none."""
    file = path / "record.json"
    try:
        return read_record(file.read_text(encoding="utf-8"), source=str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Expected a run folder at {path}, found no readable record.json in it. Name the "
            "folder that `expunge unlearn` or `save_run` wrote."
        ) from error


def _check_digest(model: nn.Module, record: RunRecord, weights: Path) -> None:
    digest = digest_of(state_of(model))
    if digest == record.digest_after:
        return
    volatile = sorted(set(state_of(model)) - set(model.state_dict()))
    hint = (
        f" The factory makes the non-persistent buffers anew ({volatile[0]!r}): they must be the "
        "same each time."
        if volatile
        else ""
    )
    raise ModelError(
        f"Expected the weights in {weights} to be those of the record "
        f"({record.digest_after[:12]}), got others ({digest[:12]}). The file was changed, or "
        f"`factory` builds in another dtype.{hint}"
    )


def _head(model: nn.Module, record: RunRecord) -> Head | None:
    if record.head is None or isinstance(model, RegionPatched):
        return None
    layer = model.get_submodule(record.head)
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            f"Expected the head {record.head!r} of the run to be nn.Linear, got "
            f"{type(layer).__name__}. `factory` builds another architecture."
        )
    return head_at(record.head, layer)


def _read_statistics(path: Path) -> FeatureStatistics | None:
    file = path / "statistics.safetensors"
    if not file.exists():
        return None
    statistics = FeatureStatistics.load(file)
    members = path / "private" / "members.npy"
    if not members.exists() or not os.access(members, os.R_OK):
        return statistics
    return statistics.with_members(member_set(np.load(members, allow_pickle=False)))
