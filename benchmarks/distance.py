"""Distance to retraining: JS divergence on forget-class test rows, every method, many classes.

    python -m benchmarks distance

Digits with the demo's net (all ten classes), Fashion-MNIST with an MLP 784-256-256-10 (classes 0,
2, 6 and 8; needs EXPUNGE_DATA). Three models are retrained for each class with the original's own
recipe; "retrained" is their distance among themselves: nothing can be asked to be nearer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import TensorDataset

import expunge
from benchmarks._common import class_methods, data_folder, fashion_mnist, table, train
from expunge.data.demo import digits
from expunge.models import DigitsNet, Mlp

REFERENCES = 3


def measure(
    name: str,
    training: expunge.Training,
    data: tuple[TensorDataset, TensorDataset],
    classes: Sequence[int],
    methods: Sequence[tuple[str, expunge.Method]],
) -> None:
    """Print one table: rows are methods, columns are classes, then how often the mask is beaten."""
    rows: dict[str, list[float]] = {}
    notes: dict[str, list[str]] = {}
    original = train(training, data[0], 0)
    for label in classes:
        task = expunge.forget_classes(data[0], {label}, holdout=data[1], training=training)
        runs = [
            expunge.unlearn(original, expunge.Retrain(), task, seed=1 + i)
            for i in range(REFERENCES)
        ]
        references = [run.model for run in runs]
        first = expunge.audit(runs[0], task, references=references, original=original)
        for subject in ("before", "retrained"):
            value = first.value("js_to_retrained", subject, "forget-test")
            rows.setdefault(subject, []).append(-1.0 if value is None else value)
        for title, method in methods:
            result = expunge.unlearn(original, method, task, seed=0)
            report = expunge.audit(result, task, references=references)
            value = report.value("js_to_retrained", "after", "forget-test")
            rows.setdefault(title, []).append(-1.0 if value is None else value)
            notes.setdefault(title, []).append(result.outcome.outcome.value)
        print(f"{name} class {label} measured", flush=True)
    mask = rows["mask-class"]
    body = []
    for title, values in rows.items():
        marks = notes.get(title, [""] * len(values))
        cells = [
            f"{v:.3f}" + ("" if m in ("", "done") else f" ({m})")
            for v, m in zip(values, marks, strict=True)
        ]
        nearer = sum(v < m for v, m in zip(values, mask, strict=True))
        body.append([title, *cells, f"{nearer} of {len(mask)}"])
    print(f"\n{name}: JS to {REFERENCES} retrained models on forget-class judge rows (bits)\n")
    table(["model", *(f"class {c}" for c in classes), "nearer than the mask"], body)


def main(methods: Sequence[tuple[str, expunge.Method]] | None = None) -> None:
    """Measure both data sets."""
    chosen = class_methods() if methods is None else methods
    training = expunge.Training(DigitsNet, expunge.Recipe(epochs=30, batch_size=64, lr=0.1))
    measure("digits", training, digits(), range(10), chosen)
    folder = data_folder()
    if folder is None:
        print("EXPUNGE_DATA is not set: Fashion-MNIST left out")
        return
    training = expunge.Training(Mlp, expunge.Recipe(epochs=10, lr=0.05))
    measure("fashion-mnist", training, fashion_mnist(folder), (0, 2, 6, 8), chosen)


if __name__ == "__main__":
    main()
