"""The features of a certificate computed again from the records, in a process of its own.

The checker needs no torch; this part does. `recompute_features` starts it and reads one number.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from expunge.errors import DataError, InputError

if TYPE_CHECKING:
    from expunge.certificate.facts import EntangledEvidence, RecordEvidence

__all__ = ["recompute_features"]


def recompute_features(run: Path, job: Path) -> float | str:
    """The largest difference between the rows of the certificate and those computed again.

    A row's difference is relative to its largest value, or to the median of these over all rows
    where that is larger. Says in words where a label or the number of rows differs. `job` names the
    model's factory and the training data. Raises InputError with the reason where the other process
    fails.
    """
    done = subprocess.run(  # noqa: S603 - our own module, with paths as arguments
        [sys.executable, "-m", "expunge.cli._recompute", str(run), str(job)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        fault = found["fault"]
        return float(found["largest"]) if fault is None else str(fault)
    except (IndexError, KeyError, ValueError, TypeError) as error:
        words = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        raise InputError(
            f"Expected the features to be computed again from {job}, but that failed: {words[0]} "
            "Check the job with `expunge check`."
        ) from error


def _found(run: Path, path: Path) -> tuple[float, str | None]:
    import torch

    import expunge
    from expunge.cli._imports import importable
    from expunge.cli._job import read_job
    from expunge.cli._load import factory_of
    from expunge.cli._request import rows_of
    from expunge.methods.prune.scene import seen
    from expunge.network.heads import find_head
    from expunge.results.forgotten import never_forgotten

    job = read_job(path)
    with importable(job):
        result = expunge.load_run(run, factory=factory_of(job))
        evidence = result.evidence
        if evidence is None:
            raise InputError(f"Expected a run with a certificate at {run}, found none.")
        rows = rows_of(job)
        inputs, _ = rows.batch(torch.arange(min(2, len(rows))))
        head = find_head(result.model, inputs, name=evidence.head or None)
        place = {text: i for i, text in enumerate(rows.ids)}
        own: list[RecordEvidence | EntangledEvidence]
        own = [*evidence.records, *evidence.entangled]
        missing = [r.id for r in own if r.id not in place]
        if missing:
            raise DataError(
                f"Expected every record of the certificate among the rows of {path}, but "
                f"{len(missing)} are not there. Give the same data and ids as the run had."
            )
        forgotten = rows.select(torch.tensor([place[r.id] for r in own]).long())
        wrong = sum(a != r.label for a, r in zip(forgotten.labels.tolist(), own, strict=True))
        if wrong:
            return 0.0, f"{wrong} of {len(own)} records have another label in the data"
        refused = {e.id for e in evidence.entangled}
        stays = never_forgotten(rows, result.forgotten)
        stays = stays.select(torch.tensor([i for i, t in enumerate(stays.ids) if t not in refused]))
        if evidence.form == "gated" and len(stays) != len(evidence.retained):
            count = len(evidence.retained)
            return 0.0, f"{len(stays):,} rows stay in the data, the certificate has {count:,}"
        largest = 0.0
        then = [np.stack([r.row for r in own]) if own else evidence.retained[:0], evidence.retained]
        for chosen, rows_then in zip((forgotten, stays), then, strict=True):
            if not len(rows_then):
                continue
            now = seen(
                result.model,
                head,
                chosen,
                evidence.layers,
                batch_size=256,
                device=torch.device("cpu"),
            ).start
            largest = max(largest, apart(now, rows_then))
    return largest, None


def apart(now: NDArray[np.float32], then: NDArray[np.float32]) -> float:
    """The largest difference of a row (n, d), of its size; infinite where it is not a number."""
    size = abs(then.astype(float)).max(axis=1)
    far = abs(now.astype(float) - then).max(axis=1)
    share = far / np.maximum(np.maximum(size, np.median(size)), np.finfo(float).tiny)
    return float(share.max()) if np.isfinite(share).all() else math.inf


if __name__ == "__main__":
    largest, fault = _found(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({"largest": largest, "fault": fault}))  # noqa: T201
