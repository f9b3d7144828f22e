"""PRUNE against the published mode, and what the gates cost where they are deployed.

    python -m benchmarks rivals

Fashion-MNIST, MLP 784-256-256-10 trained here, 100 random records, one run: the gated form (both
specs) against the published mode as this library has it, with its defects removed. Then the public
ResNet-20 with 500 gates, and the bytes that 500 gates take. Times are taken in turns, one call of
each model a round, and given as medians; the ratio is the median over rounds of the ratio within
the round.
"""

from __future__ import annotations

import statistics as stats
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from safetensors.torch import save
from torch import Tensor, nn

import expunge
from benchmarks._common import data_folder, public_resnet20, table
from benchmarks.leaks import fashion_mlp
from benchmarks.prune import verified
from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.judging.split import tune_and_judge
from expunge.network.passes import logits_of
from expunge.patches.heads import gated, replaced
from expunge.patches.regions import RegionPatched

CPU = torch.device("cpu")
RECORDS, BATCH, GATES = 100, 512, 500


@final
@dataclass(frozen=True, slots=True)
class Timed:
    """Median milliseconds of a call, and the median ratio to the first model of the round."""

    milliseconds: float
    ratio: float


def in_turns(
    models: Mapping[str, nn.Module], inputs: Tensor, *, rounds: int, calls: int = 1
) -> dict[str, Timed]:
    """Time all models in every round, each time in another order; the first one is the base."""
    names = list(models)
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for turn in range(rounds + 2):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                model = models[name]
                start = time.perf_counter()
                for _ in range(calls):
                    model(inputs)
                times[name].append((time.perf_counter() - start) / calls)
    warm = {name: seconds[2:] for name, seconds in times.items()}
    base = warm[names[0]]
    return {
        name: Timed(
            1e3 * stats.median(own),
            stats.median(mine / plain for mine, plain in zip(own, base, strict=True)),
        )
        for name, own in warm.items()
    }


def against_published() -> None:
    """Three patches of the same 100 records, one row each."""
    folder = data_folder()
    assert folder is not None
    model, clothes, test = fashion_mlp(folder)
    rows, holdout = as_rows(clothes), as_rows(test)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(100))
    task = expunge.forget_indices(rows, order[:RECORDS].tolist(), holdout=holdout)
    runs = {
        "published, correct": expunge.unlearn(model, expunge.PrunePublished(), task, seed=0),
        "ours, `unseen`": expunge.unlearn(model, expunge.Prune(form="gated"), task, seed=0),
        "ours, `mispredict`": expunge.unlearn(
            model, expunge.Prune(form="gated", spec="mispredict"), task, seed=0
        ),
    }
    models = {"no patch": model, **{name: run.model for name, run in runs.items()}}
    inputs = clothes.tensors[0][:BATCH]
    many = in_turns(models, inputs, rounds=40)
    one = in_turns(models, inputs[:1], rounds=40, calls=25)
    judge = tune_and_judge(holdout, [task.forget], None).judge
    assert task.retain is not None
    assert judge is not None
    plain = [_read(model, part) for part in (task.forget, task.retain, judge)]
    body = [["no patch", "–", "–", *_speed(many, one, "no patch"), "–", "–", "–"]]
    effects = [["no patch", f"{_right(plain[0], task.forget):.1f}", "–", "–", "–"]]
    for name, run in runs.items():
        forget, retain, others = (_read(run.model, p) for p in (task.forget, task.retain, judge))
        gap = (retain - plain[1]).abs().amax(1)
        body.append(
            [
                name,
                f"{run.record.cost.seconds:.1f}",
                _bytes(run),
                *_speed(many, one, name),
                f"{int((gap > 0).sum()):,} of {len(gap):,}",
                f"{float(gap.max()):.2g}",
                f"{_right(others, judge) - _right(plain[2], judge):+.2f}",
            ]
        )
        still = int((forget.argmax(1) == task.forget.labels).sum())
        left = (
            f"{still} left"
            if isinstance(run.model, RegionPatched)
            else f"{run.record.log['entangled'][-1]:.0f} entangled"
        )
        effects.append(
            [
                name,
                f"{_right(forget, task.forget):.1f}",
                left,
                "–" if run.evidence is None else f"{len(run.evidence.records)} records",
                "no" if run.evidence is None else _verified(run),
            ]
        )
    print(f"### Fashion-MNIST, MLP 784-256-256-10, {RECORDS} records, one run\n")
    table(
        (
            "patch",
            "build s",
            "patch KiB",
            f"ms for {BATCH} rows",
            "× base",
            "ms for one row",
            "× base",
            "retained rows changed",
            "largest change",
            "judge change (≤ 0.1)",
        ),
        body,
    )
    table(("patch", "forget %", "entangled or left", "claims for", "certificate"), effects)
    print(
        f"Judge accuracy without a patch: {_right(plain[2], judge):.2f} %. Rows changed: logits "
        f"not bit-equal at batches of {BATCH}. Build times hold the feature pass of "
        + ", ".join(
            f"{run.record.log['feature_seconds'][-1]:.1f} s"
            for run in runs.values()
            if "feature_seconds" in run.record.log
        )
        + " for ours; the published mode reads the forget records alone. Published layout: "
        f"{_dense(runs['published, correct']) / 1024:,.0f} KiB for the same patch.\n"
    )


def _read(model: nn.Module, rows: Rows) -> Tensor:
    return logits_of(model, rows, batch_size=BATCH, device=CPU)


def _right(logits: Tensor, rows: Rows) -> float:
    return 100 * float((logits.argmax(1) == rows.labels).double().mean())


def _speed(many: Mapping[str, Timed], one: Mapping[str, Timed], name: str) -> list[str]:
    return [
        f"{many[name].milliseconds:.2f}",
        f"{many[name].ratio:.2f}",
        f"{one[name].milliseconds:.3f}",
        f"{one[name].ratio:.2f}",
    ]


def _size(model: nn.Module) -> int:
    """Bytes of the tensors of a model."""
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def _bytes(run: expunge.Unlearned) -> str:
    assert run.original is not None
    return f"{(_size(run.model) - _size(run.original)) / 1024:,.0f}"


def _dense(run: expunge.Unlearned) -> int:
    """What the published layout takes: one float32 row and bound a unit and region."""
    assert isinstance(run.model, RegionPatched)
    regions, units = run.model.active.shape
    return 4 * regions * units * (run.model.hidden[0][0].shape[1] + 1)


def _verified(run: expunge.Unlearned) -> str:
    seconds, word = verified(run)
    return f"verified in {seconds:.1f} s" if word == "ok" else word


def overhead() -> None:
    """The public ResNet-20 with 500 gates against itself; bytes of 500 gates at two widths."""
    folder = data_folder()
    assert folder is not None
    generator = torch.Generator().manual_seed(0)
    base, patched = public_resnet20(folder), public_resnet20(folder)
    replaced(patched, "linear", _gated(patched.get_submodule("linear"), generator))
    body = []
    for name, rows, rounds, calls in (
        ("512 rows", 512, 15, 1),
        ("64 rows", 64, 40, 1),
        ("one row", 1, 60, 5),
    ):
        images = torch.randn(rows, 3, 32, 32, generator=generator)
        models = {"base": base, "gated": patched}
        times = in_turns(models, images, rounds=rounds, calls=calls)
        body.append(
            [
                f"inference, {name}",
                f"{times['base'].milliseconds:.2f} → {times['gated'].milliseconds:.2f} ms",
                f"{100 * (times['gated'].ratio - 1):+.1f} %",
                "≤ 5 %",
            ]
        )
    for width in (64, 256):
        plain = nn.Linear(width, 10)
        extra = len(save(_gated(plain, generator).state_dict())) - len(save(plain.state_dict()))
        body.append([f"file, d = {width}", f"{extra:,} bytes", f"{extra / 1e6:.2f} MB", "≤ 1 MB"])
    print(f"### {GATES} gates: the public ResNet-20 (d = 64), and a synthetic head of d = 256\n")
    table(("what", "measured", "cost", "bar"), body)


def _gated(layer: nn.Module, generator: torch.Generator) -> nn.Linear:
    """`layer` with 500 gates of random numbers: their cost does not depend on them."""
    assert isinstance(layer, nn.Linear)
    size = (GATES, layer.in_features)
    return gated(
        layer,
        torch.randn(size, generator=generator),
        torch.full((GATES,), -50.0),
        torch.randn((layer.out_features, GATES), generator=generator),
    )


def main() -> None:
    """Print every table."""
    print("\n## PRUNE: against the published mode\n")
    if data_folder() is None:
        print("EXPUNGE_DATA names no folder: nothing was measured.\n")
        return
    print(f"threads: {torch.get_num_threads()}, torch {torch.__version__}\n")
    overhead()
    against_published()


if __name__ == "__main__":
    main()
