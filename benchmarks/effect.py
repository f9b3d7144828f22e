"""Effect on models nobody here trained: forget accuracy and what stays, every method, defaults.

    python -m benchmarks effect

CIFAR-10 with the public ResNet-20 (classes 1, 3, 5, 8) and CIFAR-100 with the small ResNet-20 of
`examples/cifar/train_cifar100.py` (classes 2, 40, 51, 69, 71; put it at
artifacts/cifar100_resnet20.safetensors). Figures are on the whole test set, for comparison with
published ones; the methods were held to the `tune` half. No tuning by class or by data set.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

import expunge
from benchmarks._common import (
    class_methods,
    data_folder,
    own_cifar100_resnet20,
    public_resnet20,
    table,
)
from expunge.data.views import as_rows
from expunge.network.passes import logits_of
from expunge.statistics.collect import collect_statistics

HEADING = (
    "method",
    "forget train %",
    "forget test %",
    "others %",
    "− original",
    "− mask",
    "seconds",
    "outcome",
)


def measure(
    title: str,
    model: nn.Module,
    data: tuple[object, object],
    classes: Sequence[int],
    methods: Sequence[tuple[str, expunge.Method]],
) -> None:
    """Print one table a class."""
    from expunge.network.heads import find_head

    train, test = as_rows(data[0]), as_rows(data[1], argument="holdout")
    cpu = torch.device("cpu")
    head = find_head(model, train.batch(torch.arange(2))[0])
    statistics, _ = collect_statistics(model, head, train)
    before = logits_of(model, test, batch_size=500, device=cpu)
    for label in classes:
        task = expunge.forget_classes(train, {label}, holdout=test, statistics=statistics)
        own = torch.eq(test.labels, label)
        hidden = before.clone()
        hidden[:, label] = -torch.inf
        others_before = _percent(before[~own].argmax(1) == test.labels[~own])
        others_masked = _percent(hidden[~own].argmax(1) == test.labels[~own])
        rows = [
            [
                "original",
                "–",
                _cell(before[own].argmax(1) == label),
                f"{others_before:.2f}",
                "+0.00",
                f"{others_before - others_masked:+.2f}",
                "–",
                "–",
            ]
        ]
        for name, method in methods:
            run = expunge.unlearn(model, method, task, seed=0)
            after = logits_of(run.model, test, batch_size=500, device=cpu)
            others = _percent(after[~own].argmax(1) == test.labels[~own])
            rows.append(
                [
                    name,
                    f"{run.outcome.figures['forget_after']:.2f}",
                    _cell(after[own].argmax(1) == label),
                    f"{others:.2f}",
                    f"{others - others_before:+.2f}",
                    f"{others - others_masked:+.2f}",
                    f"{run.record.cost.seconds:.1f}",
                    run.outcome.outcome.value,
                ]
            )
            note = [n for n in run.record.notes if n.startswith("stopped")]
            if note:
                rows[-1][-1] += f"; {note[0]}"
        print(f"\n{title}, class {label}\n")
        table(HEADING, rows)


def _percent(hits: torch.Tensor) -> float:
    return 100.0 * float(hits.double().mean())


def _cell(hits: torch.Tensor) -> str:
    return f"{_percent(hits):.2f}"


def main(methods: Sequence[tuple[str, expunge.Method]] | None = None) -> None:
    """Measure both data sets."""
    folder = data_folder()
    if folder is None:
        print("EXPUNGE_DATA is not set: nothing to measure")
        return
    from nets import cifar10_test, cifar10_train, cifar100_test, cifar100_train

    chosen = [m for m in class_methods() if "retain" not in m[0]] if methods is None else methods
    model = public_resnet20(folder)
    data = (cifar10_train(), cifar10_test())
    measure("CIFAR-10, public ResNet-20", model, data, (1, 3, 5, 8), chosen)
    small = own_cifar100_resnet20()
    if small is None:
        print("artifacts/cifar100_resnet20.safetensors is not there: CIFAR-100 left out")
        return
    data = (cifar100_train(), cifar100_test())
    measure("CIFAR-100, own ResNet-20", small, data, (2, 40, 51, 69, 71), chosen)


if __name__ == "__main__":
    main()
