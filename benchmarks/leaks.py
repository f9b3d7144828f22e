"""PRUNE: what a patched model still gives away, on outputs, in the file, and of the record itself.

    python -m benchmarks leaks

CIFAR-10 with the public ResNet-20, 500 random records: `mispredict`, `unseen` and `unseen` merged
(ten requests of ten records) beside the original; each record as stored, flipped left to right, and
moved by two pixels to the right (black fills in), against judge rows treated the same way. The
patch edits the head alone, so features are read once and every request runs on the head.
EXPUNGE_BENCH_SEEDS sets the number of seeds (default 1); figures of several seeds are pooled.

Then a reconstruction attempt on 20 records of Fashion-MNIST (MLP 784-256-256-10). The attacker
holds the base model, the patch, the record's class, and the public test set.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import final

import clarabel
import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import expunge
from benchmarks._common import data_folder, fashion_mnist, public_resnet20, table, train
from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.errors import MethodError
from expunge.functional.membership import auc, class_matched_auc, losses, margins
from expunge.judging.split import tune_and_judge
from expunge.methods.prune.gates import nearness, whiten
from expunge.models import Mlp
from expunge.network.heads import find_head
from expunge.network.passes import feature_batches
from expunge.patches.heads import GatedLinear
from expunge.patches.regions import RegionPatched, supports

CPU = torch.device("cpu")
SEEDS = tuple(range(int(os.environ.get("EXPUNGE_BENCH_SEEDS", "1"))))
RECORDS, REQUESTS, SMALL = 500, 10, 10
TRIED, CANDIDATES, STEPS, PRIOR = 20, 1_000, 200, 0.1
VIEWS = ("as stored", "flipped", "moved 2 px")
LOW, HIGH = (0 - 0.2860) / 0.3530, (1 - 0.2860) / 0.3530
"""Black and white, as `fashion_mnist` scales them."""


# Membership: CIFAR-10, ResNet-20 ---------------------------------------------------------------


@final
@dataclass(slots=True)
class Seen:
    """Logits, labels, file scores and opened gates of forget records and judge rows, in parts."""

    forget: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    judge: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    opened: list[Tensor] = field(default_factory=list)


@final
@dataclass(slots=True)
class Facts:
    """What the file gives away: one list entry a request."""

    records: int = 0
    claimed: int = 0
    refused: list[str] = field(default_factory=list)
    patch_auc: list[float] = field(default_factory=list)
    log_auc: list[float] = field(default_factory=list)
    openings: list[float] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)


def view(images: Tensor, which: str, black: Tensor) -> Tensor:
    """Images (n, 3, 32, 32) as stored, flipped left to right, or moved right by two pixels."""
    if which == "flipped":
        return images.flip(3)
    if which == "as stored":
        return images
    moved = black.expand_as(images).clone()
    moved[..., 2:] = images[..., :-2]
    return moved


def features(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """What enters the head, (n, d)."""
    rows = as_rows(TensorDataset(images, labels))
    head = find_head(model, images[:2])
    parts = feature_batches(model, head, rows, batch_size=500, device=CPU)
    return torch.cat([h.clone() for h, _, _ in parts])


def membership() -> None:
    """The two tables on CIFAR-10."""
    folder = data_folder()
    assert folder is not None
    from nets import MEAN, STD, cifar10_test, cifar10_train

    model, data, test = public_resnet20(folder), cifar10_train(), cifar10_test()
    mean, std = (torch.tensor(values["cifar10"]).view(3, 1, 1) for values in (MEAN, STD))
    black = -mean / std
    base = find_head(model, data.tensors[0][:2]).of(model).eval()
    rows = as_rows(TensorDataset(features(model, *data.tensors), data.tensors[1]))
    holdout = as_rows(TensorDataset(features(model, *test.tensors), test.tensors[1]))
    seen: dict[tuple[str, str], Seen] = defaultdict(Seen)
    facts: dict[str, Facts] = defaultdict(Facts)
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(100 + seed)
        chosen = torch.randperm(len(rows), generator=generator)[:RECORDS]
        judge = tune_and_judge(holdout, [rows.select(chosen)], None).judge
        assert judge is not None
        shown = {
            which: tuple(
                (features(model, view(x[at], which, black), y[at]), y[at])
                for at, (x, y) in ((chosen, data.tensors), (judge.index, test.tensors))
            )
            for which in VIEWS
        }
        note = _Noted(base, shown, seen, facts)
        every = torch.arange(len(chosen))
        note("original", base, every)
        for name, method in (
            ("`mispredict`, gated", expunge.Prune(form="gated", spec="mispredict")),
            ("`unseen`, gated", expunge.Prune(form="gated", spec="unseen")),
        ):
            _request(name, method, base, rows, holdout, chosen, every, seed, note)
        small = every[: REQUESTS * SMALL].split(SMALL)
        for part in small:
            method = expunge.Prune(form="merged")
            if _request("`unseen`, merged", method, base, rows, holdout, chosen, part, seed, note):
                note("original, same records as merged", base, part)
    _print_outputs(seen)
    _print_file(facts)


@final
@dataclass(slots=True)
class _Noted:
    base: nn.Linear
    shown: Mapping[str, tuple[tuple[Tensor, Tensor], ...]]
    seen: dict[tuple[str, str], Seen]
    facts: dict[str, Facts]

    def __call__(self, name: str, head: nn.Linear, part: Tensor) -> None:
        """Note what `head` says about the records `part` and about judge rows, in every view."""
        for which, ((mine, labels), (others, theirs)) in self.shown.items():
            entry, z = self.seen[name, which], mine[part]
            with torch.no_grad():
                entry.forget.append((head(z), labels[part], self.score(head, z)))
                entry.judge.append((head(others), theirs, self.score(head, others)))
                if isinstance(head, GatedLinear):
                    entry.opened.append((_raw(head, z) > 0).any(1))

    def score(self, head: nn.Linear, z: Tensor) -> Tensor:
        """How much the file says "member": the largest gate, or how far the head moves the row."""
        if isinstance(head, GatedLinear):
            return _raw(head, z).amax(1)
        return (head(z).double() - self.base(z).double()).norm(dim=1)


def _raw(head: GatedLinear, z: Tensor) -> Tensor:
    return z.double() @ head.gate_weight.double().T + head.gate_bias.double()


def _request(
    name: str,
    method: expunge.Prune,
    base: nn.Linear,
    rows: Rows,
    holdout: Rows,
    chosen: Tensor,
    part: Tensor,
    seed: int,
    note: _Noted,
) -> bool:
    """Serve one request and note what came of it; False where the method refused."""
    facts = note.facts[name]
    facts.records += len(part)
    task = expunge.forget_indices(rows, chosen[part].tolist(), holdout=holdout)
    try:
        result = expunge.unlearn(base, method, task, seed=seed)
    except MethodError as error:
        facts.refused.append(str(error))
        return False
    head, log = result.model, result.record.log
    assert isinstance(head, nn.Linear)
    assert result.evidence is not None
    note(name, head, part)
    facts.claimed += len(result.evidence.records)
    (mine, _), (others, _) = note.shown["as stored"]
    if isinstance(head, GatedLinear):
        near = (nearness(head.gate_weight, head.gate_bias, z) for z in (mine[part], others))
        facts.patch_auc.append(auc(*near))
        facts.log_auc += log["patch_membership_auc"]
        facts.openings.append(float((_raw(head, others) > 0).double().sum(1).mean()))
        facts.chance.append(float(log["openings_by_chance"][-1]))
    else:
        with torch.no_grad():
            facts.patch_auc.append(auc(note.score(head, mine[part]), note.score(head, others)))
    return True


def _print_outputs(seen: Mapping[tuple[str, str], Seen]) -> None:
    body = []
    signal: dict[tuple[str, str], float] = {}
    for (name, which), entry in seen.items():
        (mine, y, score), (others, t, reached) = (
            [torch.cat(part) for part in zip(*side, strict=True)]
            for side in (entry.forget, entry.judge)
        )
        known = [
            100 * float((z.argmax(1) == k).double().mean()) for z, k in ((mine, y), (others, t))
        ]
        value, low, high, _ = class_matched_auc(-losses(mine, y), y, -losses(others, t), t)
        rest = [class_matched_auc(margins(mine, y), y, margins(others, t), t)[0]]
        signal[name, which] = value
        judged = name == "`unseen`, gated" and which == "as stored"
        body.append(
            [
                name,
                which,
                str(len(y)),
                f"{known[0]:.1f}",
                f"{known[1]:.1f}",
                "within 1.5" if judged else "",
                f"{value:.3f} ({low:.3f} to {high:.3f})",
                "0.48 to 0.52" if judged else "",
                *(f"{a:.3f}" for a in rest),
                f"{100 * float(torch.cat(entry.opened).double().mean()):.1f}"
                if entry.opened
                else "–",
                "–" if name.startswith("original") else f"{auc(score, reached):.3f}",
            ]
        )
    print(f"### Outputs: CIFAR-10, public ResNet-20, {len(SEEDS)} seed(s)\n")
    table(
        (
            "run",
            "records and judge rows",
            "records",
            "forget %",
            "judge %",
            "bar",
            "loss AUC (95 %)",
            "bar",
            "margin AUC",
            "a gate opens %",
            "file AUC",
        ),
        body,
    )
    print(
        "AUCs are class-matched, records against judge rows; 0.5 is ideal, and below 0.5 tells as "
        "much as above. The margin is the label's logit less the best other one. "
        "File AUC: who holds the file ranks rows by the largest gate; for "
        "merged, who holds the original head too ranks rows by how far the edit moves their "
        f"logits. Merged: {REQUESTS} requests of {SMALL} records a seed; those not refused are "
        "pooled, each with its own judge rows, records without a claim included.\n"
    )
    for name, start in (
        ("`mispredict`, gated", "original"),
        ("`unseen`, gated", "original"),
        ("`unseen`, merged", "original, same records as merged"),
    ):
        for which in VIEWS:
            if (name, which) in signal:
                before, after = signal[start, which], signal[name, which]
                word = "less" if abs(after - 0.5) < 0.5 * abs(before - 0.5) else "not less"
                print(
                    f"- {name}, {which}: loss AUC {before:.3f} → {after:.3f}, {word} than half as "
                    "far from 0.5 as before."
                )
    print()


def _print_file(facts: Mapping[str, Facts]) -> None:
    body = []
    for name, entry in facts.items():
        body.append(
            [
                name,
                str(entry.records),
                str(entry.claimed),
                str(len(entry.refused)),
                _mean(entry.patch_auc, 4),
                _mean(entry.log_auc, 4),
                _mean(entry.openings, 4),
                _mean(entry.chance, 4),
            ]
        )
    print("### The file\n")
    table(
        (
            "run",
            "records",
            "with a claim",
            "requests refused",
            "patch-file AUC, judge rows",
            "in the record's log (tune rows)",
            "openings per unseen row",
            "P/(n+1)",
        ),
        body,
    )
    for entry in facts.values():
        for text in sorted(set(entry.refused)):
            print(f"- Refused: {text}")
    print()


def _mean(values: list[float], digits: int) -> str:
    return f"{math.fsum(values) / len(values):.{digits}f}" if values else "–"


# Reconstruction: Fashion-MNIST, MLP ------------------------------------------------------------


def fashion_mlp(folder: Path) -> tuple[nn.Module, TensorDataset, TensorDataset]:
    """The MLP 784-256-256-10 trained here for ten epochs, training and test set."""
    clothes, test = fashion_mnist(folder)
    recipe = expunge.Recipe(epochs=10, batch_size=128, lr=0.05)
    return train(expunge.Training(Mlp, recipe), clothes, 0), clothes, test


@final
@dataclass(frozen=True, slots=True)
class Public:
    """What the attacker has of the classes: mean (K, n), a factor of the covariance (K, n, n)."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, test: TensorDataset) -> Public:
        """Taken from the test set; 1 % of the mean variance is added to each covariance."""
        x, y = test.tensors[0].double(), test.tensors[1]
        means, spreads = [], []
        for label in range(10):
            own = x[y == label]
            centred = own - own.mean(0)
            spread = centred.T @ centred / len(own)
            spread.diagonal().add_(0.01 * float(spread.diagonal().mean()))
            means.append(own.mean(0))
            spreads.append(spread)
        return cls(x, y, torch.stack(means), torch.stack(spreads))

    def candidates(self, record: Tensor, label: int) -> Tensor:
        """The record first, then test rows of its class: 1,000 rows at most."""
        return torch.cat([record[None], self.images[self.labels == label][: CANDIDATES - 1]])


def reconstruction() -> None:
    """Both forms attacked, 20 records."""
    folder = data_folder()
    assert folder is not None
    model, clothes, test = fashion_mlp(folder)
    x, y = clothes.tensors
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(100))[: 4 * TRIED]
    with torch.no_grad():
        right = model(x[order]).argmax(1) == y[order]
    chosen = order[right][:TRIED]
    records, labels, public = x[chosen].double(), y[chosen], Public.of(test)
    task = expunge.forget_indices(as_rows(clothes), chosen.tolist(), holdout=as_rows(test))
    guess = public.mean[labels]
    body = [_row("no patch", "mean image of the class", guess, records, labels, public)]
    ranks: list[list[str]] = []
    rows = [
        *_published(model, task, records, labels, public, ranks),
        *_ours(model, task, records, labels, public, ranks),
    ]
    body += [_row(*row, records, labels, public) for row in rows]
    print(f"### Reconstruction: Fashion-MNIST, MLP 784-256-256-10, {TRIED} records\n")
    table(
        (
            "patch",
            "attack",
            "distance to the record",
            f"closest of {TRIED}",
            "pixels within 10 %",
            "record nearest of 1,000",
        ),
        body,
    )
    table(
        ("patch", "what the patch says of the record", "median", f"closest of {TRIED}", "ideal"),
        ranks,
    )
    _say(body, [row for row in ranks if row[1].startswith("rank")])


def _row(
    patch: str, attack: str, found: Tensor, records: Tensor, labels: Tensor, public: Public
) -> list[str]:
    away = (found - records).norm(dim=1) / (public.mean[labels] - records).norm(dim=1)
    close = ((found - records).abs() <= 0.1 * (HIGH - LOW)).double().mean()
    first = sum(
        int((public.candidates(r, int(k)) - f).norm(dim=1).argmin()) == 0
        for r, k, f in zip(records, labels, found, strict=True)
    )
    return [
        patch,
        attack,
        f"{away.median():.2f}",
        f"{away.min():.2f}",
        f"{100 * close:.0f} %",
        f"{first} of {len(records)}",
    ]


Found = list[tuple[str, str, Tensor]]


def _published(
    model: nn.Module,
    task: expunge.ForgetTask,
    records: Tensor,
    labels: Tensor,
    public: Public,
    ranks: list[list[str]],
) -> Found:
    """From the activation patterns: the region's centre, and its likeliest point."""
    patched = expunge.unlearn(model, expunge.PrunePublished(), task, seed=0).model
    assert isinstance(patched, RegionPatched)
    own = supports(patched.hidden, patched.active, patched.steepness, records)
    region = own.argmax(1)
    assert bool((own.amax(1) == 1).all())
    centres, likely, rank = [], [], []
    for i, (m, label) in enumerate(zip(region.tolist(), labels.tolist(), strict=True)):
        sides, limits = region_rows(patched.hidden, patched.active[m])
        centres.append(_centre(sides, limits))
        likely.append(_likeliest(sides, limits, public.mean[label], public.covariance[label]))
        rows = public.candidates(records[i], label)
        gate = supports(
            patched.hidden, patched.active[m : m + 1], patched.steepness[m : m + 1], rows
        )[:, 0]
        rank.append(int((gate[1:] >= gate[0]).sum()) + 1)
    ranks.append(
        ["published", "rank of the record among 1,000 by the support", *_ranked(rank), "500"]
    )
    return [
        ("published", "centre of the region", torch.stack(centres)),
        ("published", "likeliest point of the region (Gaussian of the class)", torch.stack(likely)),
    ]


def region_rows(hidden: list[tuple[Tensor, Tensor]], active: Tensor) -> tuple[Tensor, Tensor]:
    """The region of an activation pattern as A x ≤ b, ‖a‖₂ = 1: from base weights and pattern."""
    sides, limits, start = [], [], 0
    slope, offset = hidden[0]
    for weight, bias in [*hidden[1:], (None, None)]:
        on = active[start : start + len(slope)]
        start += len(slope)
        sign = torch.where(on, -1.0, 1.0).double()
        sides.append(slope * sign[:, None])
        limits.append(-offset * sign)
        if weight is not None and bias is not None:
            slope, offset = (weight * on) @ slope, (weight * on) @ offset + bias
    size = torch.cat(sides).norm(dim=1).clamp_min(1e-12)
    return torch.cat(sides) / size[:, None], torch.cat(limits) / size


def _centre(sides: Tensor, limits: Tensor) -> Tensor:
    """The point deepest in the region (Euclidean) inside the pixel box, by one linear program."""
    n = sides.shape[1]
    found = linprog(
        np.r_[np.zeros(n), -1.0],
        A_ub=np.hstack([sides.numpy(), np.ones((len(sides), 1))]),
        b_ub=limits.numpy(),
        bounds=[(LOW, HIGH)] * n + [(0, None)],
        method="highs",
    )
    assert found.x is not None, found.message
    return torch.from_numpy(found.x[:n].copy())


def _likeliest(sides: Tensor, limits: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """The least (x − m)ᵀΣ⁻¹(x − m) over the region and the pixel box, by Clarabel."""
    n = len(mean)
    precision = torch.linalg.inv(covariance)
    one = sparse.identity(n, format="csc")
    matrix = sparse.vstack([sparse.csc_matrix(sides.numpy()), one, -one]).tocsc()
    bounds = np.r_[limits.numpy(), np.full(n, HIGH), np.full(n, -LOW)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    found = clarabel.DefaultSolver(
        sparse.csc_matrix(np.triu(precision.numpy())),
        -(precision @ mean).numpy(),
        matrix,
        bounds,
        [clarabel.NonnegativeConeT(len(bounds))],
        settings,
    ).solve()
    return torch.tensor(found.x, dtype=torch.float64)


def _ours(
    model: nn.Module,
    task: expunge.ForgetTask,
    records: Tensor,
    labels: Tensor,
    public: Public,
    ranks: list[list[str]],
) -> Found:
    """From the gates: features z ≈ μ + s·ΣU with the s that puts z at 1.5, then an image."""
    result = expunge.unlearn(model, expunge.Prune(form="gated"), task, seed=0)
    body: nn.Module = result.model.get_submodule("body").double()
    head = result.model.get_submodule("head")
    assert isinstance(head, GatedLinear)
    weight, bias = head.gate_weight.double(), head.gate_bias.double()
    with torch.no_grad():
        z, seen = body(records), body(public.images)
    own = z @ weight.T + bias
    gate = own.argmax(1)
    assert bool((own.amax(1) > 1).all()), "an entangled record has no gate to attack"
    white = whiten(seen.float(), expunge.Prune().ridge)
    way = weight @ white.root @ white.root.T
    reach = (1.5 - bias - weight @ white.mean) / (weight * way).sum(1)
    estimate = (white.mean + reach[:, None] * way).clamp_min(0)[gate]  # features follow a ReLU
    rank = []
    for i, label in enumerate(labels.tolist()):
        with torch.no_grad():
            scores = body(public.candidates(records[i], label)) @ weight[gate[i]] + bias[gate[i]]
        rank.append(int((scores[1:] >= scores[0]).sum()) + 1)
    known = torch.stack([seen[public.labels == k].mean(0) for k in range(10)])[labels]
    error = (estimate - z).norm(dim=1)
    for what, size, ideal in (
        ("of their norm", z.norm(dim=1), "–"),
        ("of the error of the class mean", (known - z).norm(dim=1), "≥ 1"),
    ):
        share = error / size
        ranks.append(
            [
                "ours, gated",
                f"error of the estimated features, {what}",
                f"{share.median():.2f}",
                f"{share.min():.2f}",
                ideal,
            ]
        )
    ranks.append(
        ["ours, gated", "rank of the record among 1,000 by the gate", *_ranked(rank), "500"]
    )
    far = (known - z).square().sum(1)
    noise = torch.rand(records.shape, generator=torch.Generator().manual_seed(0)).double()
    mean, root = public.mean[labels], torch.linalg.cholesky(public.covariance)[labels]
    rows: Found = []
    for name, goal in (("estimated features", estimate), ("true features, as a yardstick", z)):
        gap = partial(_gap, body, goal, far)
        at_random = _descended(gap, LOW + (HIGH - LOW) * noise, (LOW, HIGH))
        likely = partial(_gap_and_prior, gap, mean, root)
        moved = _descended(likely, torch.zeros_like(noise), (-math.inf, math.inf))
        image = _image(mean, root, moved).clamp(LOW, HIGH)
        rows += [
            ("ours, gated", f"descent from noise to the {name}", at_random),
            ("ours, gated", f"the same with a Gaussian of the class, {name}", image),
        ]
    return rows


def _gap(body: nn.Module, goal: Tensor, far: Tensor, x: Tensor) -> Tensor:
    return ((body(x) - goal).square().sum(1) / far).sum()


def _gap_and_prior(
    gap: Callable[[Tensor], Tensor], mean: Tensor, root: Tensor, v: Tensor
) -> Tensor:
    return gap(_image(mean, root, v)) + PRIOR * v.square().mean(1).sum()


def _image(mean: Tensor, root: Tensor, v: Tensor) -> Tensor:
    return mean + torch.einsum("nij,nj->ni", root, v)


def _descended(
    objective: Callable[[Tensor], Tensor], start: Tensor, box: tuple[float, float]
) -> Tensor:
    """200 steps of Adam within `box`."""
    point = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([point], lr=0.05)
    for _ in range(STEPS):
        optimiser.zero_grad()
        objective(point).backward()
        optimiser.step()
        with torch.no_grad():
            point.clamp_(*box)
    return point.detach()


def _ranked(rank: list[int]) -> tuple[str, str]:
    ordered = sorted(rank)
    return str(ordered[len(ordered) // 2]), f"{ordered[0]} ({rank.count(1)} of {len(rank)} first)"


def _say(body: list[list[str]], ranks: list[list[str]]) -> None:
    """What the figures above support, in words."""
    away = {(row[0], row[1]): float(row[2]) for row in body}
    pixels = {(row[0], row[1]): row[4] for row in body}
    plain = pixels["no patch", "mean image of the class"]
    best: dict[str, tuple[str, str]] = {}
    for patch in ("published", "ours, gated"):
        own = [key for key in away if key[0] == patch and "yardstick" not in key[1]]
        best[patch] = min(own, key=away.__getitem__)
    print(
        "The attacker holds the base model, the patch, the record's class and the public test set. "
        "Distances are medians in units of that of the mean image of the class (1 is no gain).\n"
    )
    for patch, key in best.items():
        verdict = "gives part of the image away" if away[key] < 0.9 else "no image was rebuilt"
        print(
            f"- {patch}: best attack `{key[1]}`: {away[key]:.2f} of the distance, {pixels[key]} of "
            f"the pixels within 10 % (mean image: {plain}): {verdict}."
        )
    ours, theirs = away[best["ours, gated"]], away[best["published"]]
    if abs(ours - theirs) <= 0.05:
        word = "neither form kept the image clearly better than the other"
    else:
        kept = "published mode" if theirs > ours else "gated form"
        word = f"the {kept} kept more of the image to itself than the other form"
    print(
        f"- In this attempt {word}. A stronger attack may find more: these figures are no upper "
        "bound on what can be learnt."
    )
    for patch, _, median, first, _ in ranks:
        print(f"- {patch}: who holds candidates finds the record at rank {median}; {first}.")
    print()


def main() -> None:
    """Print every table."""
    print("\n## PRUNE: leaks\n")
    if data_folder() is None:
        print("EXPUNGE_DATA names no folder: nothing was measured.\n")
        return
    membership()
    reconstruction()


if __name__ == "__main__":
    main()
