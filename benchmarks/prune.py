"""PRUNE: forgetting, retained rows, membership, entangled share, time; gated form.

    python -m benchmarks prune

Digits (the demo's net), Fashion-MNIST (an MLP 784-256-256-10 trained here) and CIFAR-10 with the
public ResNet-20: 100, 500 and 5,000 random records where there are as many, five seeds (records,
targets and holdout split). Accuracies are on the judge half of the test set. Then classes 1, 3, 5.
The checker verifies every certificate; its time is that of a whole `verify`.
EXPUNGE_BENCH_SEEDS takes fewer seeds, EXPUNGE_BENCH_ONLY one of: digits, fashion, cifar, and
EXPUNGE_BENCH_COUNTS other numbers of records, as 100,500.
"""

from __future__ import annotations

import os
import statistics as stats
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

import expunge
from benchmarks._common import data_folder, fashion_mnist, public_resnet20, table, train
from expunge.data.demo import digits
from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.errors import MethodError
from expunge.functional.membership import class_matched_auc, losses
from expunge.models import DigitsNet, Mlp
from expunge.network.passes import logits_of

CPU = torch.device("cpu")
SEEDS = tuple(range(int(os.environ.get("EXPUNGE_BENCH_SEEDS", "5"))))
ONLY = os.environ.get("EXPUNGE_BENCH_ONLY", "")
COUNTS = tuple(int(n) for n in os.environ.get("EXPUNGE_BENCH_COUNTS", "100,500,5000").split(","))


def models() -> Iterator[tuple[str, nn.Module, object, object, expunge.Training | None]]:
    """The data sets and trained models at hand, and how to retrain where that takes seconds."""
    if ONLY in ("", "digits"):
        small, holdout = digits()
        training = expunge.Training(DigitsNet, expunge.Recipe(epochs=30, batch_size=64, lr=0.1))
        yield "digits", train(training, small, 0), small, holdout, training
    folder = data_folder()
    if folder is None:
        return
    if ONLY in ("", "fashion"):
        clothes, test = fashion_mnist(folder)
        recipe = expunge.Recipe(epochs=10, batch_size=128, lr=0.05)
        yield "Fashion-MNIST", train(expunge.Training(Mlp, recipe), clothes, 0), clothes, test, None
    if ONLY not in ("", "cifar"):
        return
    from nets import cifar10_test, cifar10_train

    model = public_resnet20(folder)
    yield "CIFAR-10, public ResNet-20", model, cifar10_train(), cifar10_test(), None


def records(name: str, model: nn.Module, rows: Rows, holdout: Rows) -> None:
    """One row a count of records: means and pooled figures over the seeds."""
    body = []
    for count in (c for c in COUNTS if c <= len(rows) // 3):
        runs = [_one(model, rows, holdout, count, seed) for seed in SEEDS]
        body.append([str(count), *_summary(runs)])
    print(f"### {name}: random records, `unseen`, gated, {len(SEEDS)} seeds\n")
    table(
        (
            "records",
            "entangled %",
            "by LP %",
            "forget % before",
            "forget %",
            "judge %",
            "judge change",
            "AUC before",
            "AUC pooled",
            "AUC mean",
            "retained equal",
            "patch s",
            "of it LP s",
            "KiB",
            "verify",
            "verify s",
            "outcomes",
        ),
        body,
    )


def _one(model: nn.Module, rows: Rows, holdout: Rows, count: int, seed: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(100 + seed)
    chosen = torch.randperm(len(rows), generator=generator)[:count].tolist()
    task = expunge.forget_indices(rows, chosen, holdout=holdout)
    method = expunge.Prune(form="gated")
    result = expunge.unlearn(model, method, task, seed=seed)
    figures, log = result.outcome.figures, result.record.log
    assert task.retain is not None
    same = torch.equal(
        logits_of(model, task.retain, batch_size=500, device=CPU),
        logits_of(result.model, task.retain, batch_size=500, device=CPU),
    )
    seconds, word = verified(result)
    judge = _judge(holdout, result)
    after = logits_of(result.model, judge, batch_size=500, device=CPU)
    mine = logits_of(result.model, task.forget, batch_size=500, device=CPU)
    return {
        "count": count,
        "entangled": log["entangled"][-1],
        "program": log["by_linear_program"][-1],
        "before": figures["forget_before"],
        "after": figures["forget_after"],
        "judge": figures["others_after"],
        "change": figures["others_change"],
        "auc_before": figures["loss_auc_before"],
        "auc": figures["loss_auc_after"],
        "same": same,
        "seconds": log["patch_seconds"][-1],
        "program_seconds": log["linear_program_seconds"][-1],
        "bytes": 4 * (result.record.cost.parameters - sum(p.numel() for p in model.parameters())),
        "verify": word,
        "verify_seconds": seconds,
        "outcome": result.outcome.outcome.value,
        "members": (-losses(mine, task.forget.labels), task.forget.labels),
        "outsiders": (-losses(after, judge.labels), judge.labels),
    }


def _judge(holdout: Rows, result: expunge.Unlearned) -> Rows:
    from expunge.judging.split import tune_and_judge

    forget = [r.rows for r in result.forgotten if r.rows is not None]
    judge = tune_and_judge(holdout, forget, result.split_seed).judge
    assert judge is not None
    return judge


def verified(result: expunge.Unlearned) -> tuple[float, str]:
    """Save, sign with a throw-away key, verify as an auditor: seconds and the word."""
    from expunge.certificate import keygen, sign_run, verify

    with tempfile.TemporaryDirectory() as folder:
        run = expunge.save_run(result, Path(folder) / "run")
        keygen(Path(folder) / "key")
        sign_run(run, Path(folder) / "key.key.pem")
        start = time.perf_counter()
        found = verify(run, trust=Path(folder) / "key.pub.pem")
        seconds = time.perf_counter() - start
    return seconds, "ok" if found.exit_code == 0 else f"exit {found.exit_code}"


def _summary(runs: Sequence[dict[str, object]]) -> list[str]:
    def mean(key: str) -> float:
        return stats.mean(float(r[key]) for r in runs)  # type: ignore[arg-type]

    total = sum(int(r["count"]) for r in runs)  # type: ignore[call-overload]
    pooled = class_matched_auc(*_joined(runs, "members"), *_joined(runs, "outsiders"))[0]
    return [
        f"{100 * mean('entangled') * len(runs) / total:.2f}",
        f"{100 * mean('program') * len(runs) / total:.1f}",
        f"{mean('before'):.2f}",
        f"{mean('after'):.2f}",
        f"{mean('judge'):.2f}",
        f"{mean('change'):+.2f}",
        f"{mean('auc_before'):.3f}",
        f"{pooled:.3f}",
        f"{mean('auc'):.3f}",
        "all" if all(r["same"] for r in runs) else "NOT ALL",
        f"{max(float(r['seconds']) for r in runs):.1f}",  # type: ignore[arg-type]
        f"{max(float(r['program_seconds']) for r in runs):.1f}",  # type: ignore[arg-type]
        f"{mean('bytes') / 1024:.0f}",
        ", ".join(sorted({str(r["verify"]) for r in runs})),
        f"{max(float(r['verify_seconds']) for r in runs):.1f}",  # type: ignore[arg-type]
        ", ".join(f"{name} {n}" for name, n in Counter(str(r["outcome"]) for r in runs).items()),
    ]


def _joined(runs: Sequence[dict[str, object]], key: str) -> tuple[torch.Tensor, torch.Tensor]:
    parts: list[tuple[torch.Tensor, torch.Tensor]] = [r[key] for r in runs]  # type: ignore[misc]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def merged(name: str, model: nn.Module, rows: Rows, holdout: Rows) -> None:
    """The merged form on a few records: how many fit, and what it costs; refusals are counted."""
    body = []
    for count in (1, 5, 10):
        fits, refused = 0, 0
        changes, seconds = [], []
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(200 + seed)
            chosen = torch.randperm(len(rows), generator=generator)[:count].tolist()
            task = expunge.forget_indices(rows, chosen, holdout=holdout)
            try:
                result = expunge.unlearn(model, expunge.Prune(form="merged"), task, seed=seed)
            except MethodError:
                refused += 1
                continue
            assert result.evidence is not None
            fits += len(result.evidence.records)
            changes.append(result.outcome.figures["others_change"])
            seconds.append(result.record.log["merge_seconds"][-1])
        served = count * (len(SEEDS) - refused)
        body.append(
            [
                str(count),
                f"{fits} of {served}",
                str(refused),
                f"{stats.mean(changes):+.2f}" if changes else "–",
                f"{max(seconds):.1f}" if seconds else "–",
            ]
        )
    print(f"### {name}: merged, {len(SEEDS)} seeds\n")
    table(("records", "fit", "requests refused", "judge change", "seconds"), body)


def classes(
    name: str, model: nn.Module, rows: Rows, holdout: Rows, training: expunge.Training | None
) -> None:
    """Whole classes: the row is gone; beside the mask, and retrained models where cheap."""
    body = []
    for label in (1, 3, 5):
        task = expunge.forget_classes(rows, {label}, holdout=holdout, training=training)
        seeds = () if training is None else (1, 2, 3)
        retrained = [expunge.unlearn(model, expunge.Retrain(), task, seed=s) for s in seeds]
        for method in (expunge.MaskClass(), expunge.Prune()):
            result = expunge.unlearn(model, method, task, seed=0)
            figures = result.outcome.figures
            report = expunge.audit(result, task, references=retrained)
            js = [
                report.value("js_to_retrained", subject, "forget-test")
                for subject in ("after", "retrained")
            ]
            body.append(
                [
                    str(label),
                    method.info.name,
                    f"{figures['forget_after']:.2f}",
                    f"{figures['judge_class_after']:.2f}",
                    f"{figures['others_after']:.2f}",
                    f"{figures['others_change']:+.2f}",
                    *("–" if v is None else f"{v:.3f}" for v in js),
                    result.outcome.outcome.value,
                    verified(result)[1] if result.evidence is not None else "–",
                ]
            )
    print(f"### {name}: a class\n")
    table(
        (
            "class",
            "method",
            "forget train %",
            "forget judge %",
            "others %",
            "others − masked original",
            "JS to retrained (bits)",
            "retrained to each other",
            "outcome",
            "verify",
        ),
        body,
    )


def main() -> None:
    """Print every table."""
    print("\n## PRUNE\n")
    for name, model, data, test, training in models():
        rows, holdout = as_rows(data), as_rows(test, argument="holdout")
        records(name, model, rows, holdout)
        merged(name, model, rows, holdout)
        classes(name, model, rows, holdout, training)


if __name__ == "__main__":
    main()
