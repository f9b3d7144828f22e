"""The promise about run folders: what was saved is loaded elsewhere, byte for byte."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from expunge.data.views import as_rows
from expunge.methods.base import Method
from expunge.network.passes import logits_of
from expunge.runs.saving import save_run
from expunge.runtime.randomness import isolated
from expunge.testing.checking import CPU
from expunge.testing.shared import Subject

__all__ = ["check_saved_runs", "saved_run_reloads"]

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

for name, path in zip(sys.argv[2::2], sys.argv[3::2]):
    made = toy(name)
    model = load_run(path, factory=made.factory).model
    logits = logits_of(model, as_rows(made.holdout), batch_size=64, device=torch.device("cpu"))
    numpy.save(path + ".npy", logits.numpy())
    print(digest_of(state_of(model)))
"""


def saved_run_reloads(subject: Subject) -> None:
    """A saved run, loaded in a fresh process, has the same weights and gives the same logits."""
    _reload([subject])


def check_saved_runs(methods: Sequence[Method]) -> None:
    """Save a run of each method and scope, load all in one fresh process, compare byte for byte.

    What `saved_run_reloads` does for one request; several share the price of a new process.
    """
    _reload([Subject(method, scope) for method in methods for scope in sorted(method.info.scopes)])


def _reload(subjects: Sequence[Subject]) -> None:
    made = [subject.toy() for subject in subjects]
    with tempfile.TemporaryDirectory() as folder, isolated(0, CPU):
        results = [subject.run(own) for subject, own in zip(subjects, made, strict=True)]
        paths = [Path(folder) / f"run-{number}" for number in range(len(results))]
        for result, path in zip(results, paths, strict=True):
            save_run(result, path)
        named = [text for own, path in zip(made, paths, strict=True) for text in (own.name, path)]
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _RELOAD, str(torch.get_num_threads()), *map(str, named)],
            capture_output=True,
            text=True,
            check=False,
        )
        digests = done.stdout.split()
        for number, subject in enumerate(subjects):
            loaded = number < len(digests)
            subject.require(loaded, f"the run does not load: {done.stderr[-800:]}")
            rows, result = as_rows(made[number].holdout), results[number]
            own = logits_of(result.model, rows, batch_size=64, device=CPU)
            same = torch.equal(torch.from_numpy(np.load(f"{paths[number]}.npy")), own)
            digest = result.record.digest_after
            subject.require(digests[number] == digest, "the loaded weights differ")
            subject.require(same, "the loaded model gives other logits")
