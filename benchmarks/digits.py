"""MU-Mis on all ten digits, failures included, and what its parts are worth.

    python -m benchmarks digits

The demo's net on scikit-learn's digits, every class forgotten from the original. Rows: defaults,
without a holdout, without the cap, and published descent at two learning rates.
"""

from __future__ import annotations

import expunge
from benchmarks._common import table, train
from expunge.data.demo import digits
from expunge.models import DigitsNet

HEADING = (
    "class",
    "forget train %",
    "forget test %",
    "others masked %",
    "others %",
    "worst class %",
    "outcome",
    "stop",
)
VARIANTS = (
    ("defaults", expunge.MuMis(), True),
    ("no holdout", expunge.MuMis(), False),
    ("no cap", expunge.MuMis(cap=None), True),
    ("plain, step 0.01", expunge.MuMis(rule="plain", step=0.01, cap=None), True),
    ("plain, step 0.001", expunge.MuMis(rule="plain", step=0.001, cap=None), True),
)


def main() -> None:
    """Print one table a variant."""
    data, holdout = digits()
    training = expunge.Training(DigitsNet, expunge.Recipe(epochs=30, batch_size=64, lr=0.1))
    original = train(training, data, 0)
    for title, method, with_holdout in VARIANTS:
        rows = []
        for label in range(10):
            task = expunge.forget_classes(data, {label}, holdout=holdout if with_holdout else None)
            run = expunge.unlearn(original, method, task, seed=0)
            judged = expunge.forget_classes(data, {label}, holdout=holdout)
            report = expunge.audit(run, judged)
            figures = [
                report.value(name, subject, part)
                for name, subject, part in (
                    ("accuracy", "after", "forget-train"),
                    ("accuracy", "after", "forget-test"),
                    ("accuracy", "mask-class", "others"),
                    ("accuracy", "after", "others"),
                    ("worst_class", "after", "others"),
                )
            ]
            note = next(n for n in run.record.notes if n.startswith("stopped"))
            cells = ["–" if v is None else f"{v:.1f}" for v in figures]
            rows.append([str(label), *cells, run.outcome.outcome.value, note])
        print(f"\nMU-Mis on digits: {title}\n")
        table(
            HEADING,
            rows,
        )


if __name__ == "__main__":
    main()
