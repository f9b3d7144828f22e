"""The features of a certificate computed again from the records, in a process of its own.

The checker needs no torch; this part does. `recompute_features` starts it and reads one number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.errors import DataError, InputError

if TYPE_CHECKING:
    from expunge.certificate.evidence import EntangledEvidence, RecordEvidence

__all__ = ["recompute_features"]


def recompute_features(run: Path, job: Path) -> float:
    """The largest difference between the rows of the certificate and those computed again.

    It is relative to the largest value in them, or to 1 where all are smaller.
    `job` names the model's factory and the training data. Raises InputError with the reason where
    the other process fails.
    """
    done = subprocess.run(  # noqa: S603 - our own module, with paths as arguments
        [sys.executable, "-m", "expunge.cli._recompute", str(run), str(job)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        return float(found["largest"])
    except (IndexError, KeyError, ValueError, TypeError) as error:
        words = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        raise InputError(
            f"Expected the features to be computed again from {job}, but that failed: {words[0]} "
            "Check the job with `expunge check`."
        ) from error


def _largest(run: Path, path: Path) -> float:
    import numpy as np
    import torch

    import expunge
    from expunge._evidence import seen
    from expunge.cli._imports import importable
    from expunge.cli._job import read_job
    from expunge.cli._load import factory_of
    from expunge.cli._request import rows_of
    from expunge.heads import find_head
    from expunge.unlearning import never_forgotten

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
        parts = [rows.select(torch.tensor([place[r.id] for r in own]).long())]
        stays = never_forgotten(rows, result.forgotten)
        wanted = [np.stack([r.row for r in own])] if own else []
        if len(evidence.retained):
            if len(stays) != len(evidence.retained):
                raise DataError(
                    f"Expected {len(evidence.retained):,} rows that stay in {path}, got "
                    f"{len(stays):,}. Give the same data and ids as the run had."
                )
            parts.append(stays)
            wanted.append(evidence.retained)
        largest, scale = 0.0, 1.0
        for chosen, rows_then in zip(parts if own else parts[1:], wanted, strict=True):
            now = seen(
                result.model,
                head,
                chosen,
                evidence.layers,
                batch_size=256,
                device=torch.device("cpu"),
            ).start
            largest = max(largest, float(np.abs(now.astype(float) - rows_then).max()))
            scale = max(scale, float(np.abs(rows_then).max()))
    return largest / scale


if __name__ == "__main__":
    print(json.dumps({"largest": _largest(Path(sys.argv[1]), Path(sys.argv[2]))}))  # noqa: T201
