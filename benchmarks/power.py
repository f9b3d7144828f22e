"""How often each outcome comes out for records, in simulation and for real retrainings on digits.

A row of the simulation has a score under every model: how hard it is, which all models share, and
noise of the model's own, half of the variance each. A model that was trained on a record lifts its
score, so that the AUC of the original is ½ + E. `kept` is the share of the records that the edited
model was still trained on; 0 % is an exact retraining, 100 % one on everything. The verdict is that
of `expunge.judging.unseen` on the signal and the shape; damage plays no part here. Scores of one
class and one kind: the loss orders rows as the margin does.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from scipy.stats import norm
from sklearn.datasets import load_digits
from torch import nn

from benchmarks._common import table
from expunge.functional.membership import Auc
from expunge.judging.outputs import Beside, Judged, Outputs
from expunge.judging.shape import shape_of
from expunge.judging.signal import Labels, Signal, auc_of, compared
from expunge.judging.unseen import Told, judge_unseen, told_from, zone_of
from expunge.records import Limits, OutcomeReport

RECORDS = (20, 60, 120, 500, 5_000)
ROWS = (60, 500, 5_000)
KEPT = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
SIGNALS = (0.25, 0.047)
REFERENCES = (0, 3, 5, 8)
SHARED = 0.5
LIMITS = Limits()
CELL = tuple[int, int, float, int, float]


def main() -> None:
    """Print the shares of outcomes, the bars, and real retrainings on digits."""
    draws = int(os.environ.get("EXPUNGE_BENCH_DRAWS", "1000"))
    print(f"## Power of the rule for records: {draws:,} simulated draws a cell\n")
    print("done / undetermined / ineffective in percent\n")
    found: dict[CELL, Counter[str]] = {}
    for records, rows, signal in itertools.product(RECORDS, ROWS, SIGNALS):
        for key, counts in simulated(records, rows, signal, draws).items():
            found[(records, rows, signal, *key)] = counts
    for signal, references in itertools.product(SIGNALS, REFERENCES):
        print(f"### E = {signal:g}, {references} references\n")
        table(
            ["records", "judge rows", *(f"{100 * kept:g} % kept" for kept in KEPT)],
            [
                [f"{m:,}", f"{n:,}"]
                + [_shares(found[(m, n, signal, references, kept)]) for kept in KEPT]
                for m, n in itertools.product(RECORDS, ROWS)
            ],
        )
    bars(found)
    real(int(os.environ.get("EXPUNGE_BENCH_RETRAINS", "30")))


def _shares(counts: Counter[str]) -> str:
    total = sum(counts.values())
    return " / ".join(
        f"{100 * counts[name] / total:.1f}" for name in ("done", "undetermined", "ineffective")
    )


def simulated(
    records: int, rows: int, signal: float, draws: int
) -> dict[tuple[int, float], Counter[str]]:
    """Counts of outcomes by number of references and share kept."""
    found = {key: Counter[str]() for key in itertools.product(REFERENCES, KEPT)}
    labels = Labels(torch.zeros(records).long(), torch.zeros(rows).long())
    lift = 2**0.5 * float(norm.ppf(0.5 + signal))
    for draw in range(draws):
        generator = np.random.default_rng([records, rows, round(1000 * signal), draw])
        models = _models(generator, records, rows, lift)
        before = (next(models),)
        after = [(next(models),) for _ in KEPT]
        others = [(next(models),) for _ in range(max(REFERENCES))]
        shapes = [shape_of(copies, labels) for copies in after]
        old, *new = (_auc(copies, labels) for copies in [before, *after])
        values = [_auc(copies, labels).value for copies in others]
        shape = cache(lambda i, others=others: shape_of(others[i], labels))
        for count in REFERENCES:
            told = [_told(old, auc, values[:count], labels) for auc in new]
            for kept, one, own in zip(KEPT, told, shapes, strict=True):
                zone = zone_of(one, unlike=own.rejects(map(shape, range(count))))
                found[(count, kept)][zone.value] += 1
    return found


def _auc(copies: Sequence[Outputs], labels: Labels) -> Auc:
    return auc_of(copies, labels, "margin", LIMITS.confidence)


def _told(before: Auc, after: Auc, references: Sequence[float], labels: Labels) -> Told:
    """What the door makes of the two, where loss and margin agree."""
    old, new = (compared(found, references, LIMITS.confidence) for found in (before, after))
    return told_from(Signal(old, old), Signal(new, new), labels, LIMITS)


def _models(
    generator: np.random.Generator, records: int, rows: int, lift: float
) -> Iterator[Outputs]:
    """The original, the edited model for each share kept, and then retrained models."""
    hard = SHARED**0.5 * generator.standard_normal(records + rows)
    shares = itertools.chain([1.0], KEPT, itertools.repeat(0.0))
    for share in shares:
        score = hard + (1 - SHARED) ** 0.5 * generator.standard_normal(records + rows)
        score[: round(share * records)] += lift
        margin = torch.from_numpy(score) + 20.0  # all right: accuracy plays no part
        logits = torch.stack([margin, torch.zeros_like(margin)], dim=1)
        yield Outputs(forget=logits[:records], judge=logits[records:])


def bars(found: dict[CELL, Counter[str]]) -> None:
    """The bars of the rule, each with the worst cell."""

    def share(key: CELL, name: str) -> float:
        return 100 * found[key][name] / sum(found[key].values())

    def worst(kept: float, name: str) -> tuple[float, CELL]:
        return max((share(key, name), key) for key in found if key[4] == kept)

    rows = []
    for kept, name, bar in (
        (1.0, "done", "0"),
        (0.25, "done", "at most 2.5"),
        (0.0, "ineffective", "at most 1"),
    ):
        value, key = worst(kept, name)
        cell = f"{key[0]:,} / {key[1]:,}, E = {key[2]:g}, {key[3]} references"
        rows.append([f"{100 * kept:g} % kept {name}", bar, f"{value:.1f}", cell])
    for kept, name, bar, m, n in (
        (0.5, "ineffective", "at least 90", 500, 500),
        (0.0, "done", "at least 95", 500, 5_000),
    ):
        value = share((m, n, 0.25, 0, kept), name)
        cell = f"{m:,} / {n:,}, E = 0.25, 0 references"
        rows.append([f"{100 * kept:g} % kept {name}", bar, f"{value:.1f}", cell])
    even = simulated(120, 120, 0.25, sum(next(iter(found.values())).values()))[(0, 1.0)]
    value = 100 * even["ineffective"] / sum(even.values())
    rows.append(["100 % kept ineffective", "at least 90", f"{value:.1f}", "120 / 120, E = 0.25"])
    print("### Bars, in percent; the worst cell\n")
    table(["what", "bar", "measured", "records / judge rows"], rows)


def real(retrains: int) -> None:
    """Exact retrainings of an over-fitted net on digits, beside doctored ones."""
    data = Digits()
    original = data.net(range(data.records, data.trained), extra=range(data.records), seed=10_000)
    references = [data.net(range(data.records, data.trained), seed=20_000 + i) for i in range(8)]
    kinds: dict[str, Counter[tuple[int, str]]] = {}
    for name, share in (("retrained", 0.0), ("half kept", 0.5), ("trained on all", 1.0)):
        counts = kinds[name] = Counter()
        for seed in range(retrains):
            extra = range(round(share * data.records))
            data.tally(counts, original, data.net(data.stays, extra=extra, seed=seed), references)
    random = kinds["random net"] = Counter()
    for seed in range(retrains):
        data.tally(random, original, data.outputs(_mlp(seed)), references)
    signal = data.judged(original, original, ()).figures["signal_before"]
    print(
        f"### {retrains} real trainings each, digits with a third of labels drawn: "
        f"{data.records} records, {len(data.judge)} judge rows, E = {signal:.3f}\n"
    )
    counts_of = (0, 3, 5, 8)
    names = ("done", "undetermined", "ineffective", "wrecked")
    print("done / undetermined / ineffective / wrecked, number of models\n")
    table(
        ["model", *(f"{count} references" for count in counts_of)],
        [
            [name] + [" / ".join(str(found[(c, n)]) for n in names) for c in counts_of]
            for name, found in kinds.items()
        ],
    )


class Digits:
    """Sklearn's digits, a third of the labels drawn at random: a net learns them by heart."""

    records, trained = 300, 700

    def __init__(self) -> None:
        x, y = load_digits(return_X_y=True)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(x), generator=generator)
        drawn = torch.rand(len(x), generator=generator) < 1 / 3
        labels = torch.where(
            drawn, torch.randint(10, (len(x),), generator=generator), torch.tensor(y)
        )
        self.x, self.y = torch.tensor(x).float()[order] / 16, labels[order]
        self.stays = range(self.records, self.trained)
        self.judge = torch.arange(self.trained, len(x))

    def net(self, stays: range, *, extra: range = range(0), seed: int) -> Outputs:
        """Train on these rows until all are known, and answer."""
        rows = torch.tensor([*stays, *extra])
        net, generator = _mlp(seed), torch.Generator().manual_seed(seed)
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(150):
            for places in torch.randperm(len(rows), generator=generator).split(128):
                batch = rows[places]
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(self.x[batch]), self.y[batch]).backward()
                optimiser.step()
        return self.outputs(net)

    def outputs(self, net: nn.Module) -> Outputs:
        """Its answers on the records and on rows never seen."""
        with torch.no_grad():
            return Outputs(forget=net(self.x[: self.records]), judge=net(self.x[self.judge]))

    def judged(
        self, before: Outputs, after: Outputs, references: Sequence[Outputs]
    ) -> OutcomeReport:
        """The outcome, as of a method that trains anew."""
        return judge_unseen(
            Judged(
                before=before,
                after=after,
                labels=self.y[: self.records],
                judge_labels=self.y[self.judge],
                gone=frozenset(),
                limits=LIMITS,
                references=tuple(references),
                beside=Beside(trained_anew=True),
            )
        )

    def tally(
        self,
        counts: Counter[tuple[int, str]],
        before: Outputs,
        after: Outputs,
        references: Sequence[Outputs],
    ) -> None:
        """Count the outcome for each number of references."""
        for count in REFERENCES:
            report = self.judged(before, after, references[:count])
            counts[(count, report.outcome.value)] += 1


def _mlp(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
