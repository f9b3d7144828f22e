"""Sums over training features from which a head can be edited without the training data.

One streaming pass gives the Gram matrix G = Σ (h−m)(h−m)ᵀ, the class sums and the counts of the
penultimate features h, in float64; memory O(d²), never O(n·d). Removing records subtracts their
part. λ (`ridge`), s (`scale`) and the centring mean m are frozen when the statistics are made, so
that removals add up in any order.

The difference of the statistics before and after the removal of one record reveals that record's
features: whoever holds both holds the record. Keep old copies as safe as the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.linalg.blas import dsyrk
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.errors import StatisticsError
from expunge.heads import Head, backbone_digest, feature_batches, head_matrix

__all__ = ["FeatureStatistics", "Sums", "collect_statistics", "collect_sums"]

_VERSION = "1"
_DEFAULT_RIDGE = 1e-3


@final
@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over rows of centred, bias-augmented features h̃ = [h − m; 1], all float64.

    `gram` (d+1, d+1) = Σ h̃h̃ᵀ, `class_sums` (K, d+1) = Σ t h̃ᵀ with one-hot t, `counts` (K,).
    """

    gram: Float[Tensor, "features+1 features+1"]
    class_sums: Float[Tensor, "classes features+1"]
    counts: Int[Tensor, " classes"]

    @property
    def rows(self) -> int:
        """How many rows were summed."""
        return int(self.counts.sum())

    def minus(self, other: Sums) -> Sums:
        """The sums without the rows of `other`."""
        return Sums(
            self.gram - other.gram,
            self.class_sums - other.class_sums,
            self.counts - other.counts,
        )

    @staticmethod
    def of(
        augmented: Float[Tensor, "rows features+1"], labels: Int[Tensor, " rows"], classes: int
    ) -> Sums:
        """The sums over rows whose centred, augmented features are at hand."""
        sums = Sums.zero(augmented.shape[1] - 1, classes)
        sums._add(augmented, labels)
        return sums

    @staticmethod
    def zero(features: int, classes: int) -> Sums:
        """The sums over no rows."""
        return Sums(
            torch.zeros(features + 1, features + 1, dtype=torch.float64),
            torch.zeros(classes, features + 1, dtype=torch.float64),
            torch.zeros(classes, dtype=torch.int64),
        )

    def add(
        self,
        features: Float[Tensor, "batch features"],
        labels: Int[Tensor, " batch"],
        mean: Float[Tensor, " features"],
    ) -> None:
        """Add a batch in place (used while a pass is running, before the value is shared)."""
        self._add(augment(features, mean), labels.cpu())

    def _add(self, rows: Float[Tensor, "rows features+1"], labels: Int[Tensor, " rows"]) -> None:
        _add_gram(self.gram, rows)
        self.class_sums.index_add_(0, labels, rows)
        self.counts.add_(torch.bincount(labels, minlength=len(self.counts)))


def _add_gram(total: Float[Tensor, "columns columns"], rows: Float[Tensor, "rows columns"]) -> None:
    """Add RᵀR in float64; by symmetric rank-k update, half the work, where it is large."""
    if len(rows) < rows.shape[1] or rows.shape[1] < 512:
        total.addmm_(rows.T, rows)
        return
    upper = torch.from_numpy(dsyrk(1.0, rows.contiguous().numpy().T))
    total.add_(torch.triu(upper)).add_(torch.triu(upper, 1).T)


def augment(
    features: Float[Tensor, "batch features"], mean: Float[Tensor, " features"]
) -> Float[Tensor, "batch features+1"]:
    """h̃ = [h − m; 1] in float64 on the CPU."""
    out = torch.ones(len(features), features.shape[1] + 1, dtype=torch.float64)
    out[:, :-1].copy_(features.detach()).sub_(mean)
    return out


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureStatistics:
    """Sums over the training features, with everything needed to use and update them safely.

    `backbone` is the digest of everything below the head, `head` the head's module name. `ridge`
    is λ; `trace` and `spread` are the mean diagonals of the uncentred and the centred Gram matrix
    when made (other ridges are stated relative to them); `scale` is s of the least-squares
    transplant. `members` are salted digests of the covered ids, None where they were stripped;
    then removals are refused.
    """

    sums: Sums
    mean: Float[Tensor, " features"]
    ridge: float
    scale: float
    trace: float
    spread: float
    backbone: str
    head: str
    salt: str
    members: frozenset[str] | None
    intercept: bool = True

    @property
    def features(self) -> int:
        """The feature dimension d."""
        return len(self.mean)

    @property
    def classes(self) -> int:
        """The number of classes K."""
        return len(self.sums.counts)

    def uncentred_gram(self) -> Float[Tensor, "features features"]:
        """G = Σ hhᵀ of the raw features."""
        return _uncentre(self.sums, self.mean)

    def ridge_head(self) -> Float[Tensor, "classes features+1"]:
        """B = C (G̃ + λ·diag(1,..,1,0))⁻¹ in centred coordinates; targets one-hot minus 1/K."""
        return _ridge_head(self.sums, self.ridge, intercept=self.intercept)

    def without(self, forget: Sums, ids: Iterable[str]) -> FeatureStatistics:
        """Statistics of the rows that stay, after subtracting the sums of the forget rows.

        Raises StatisticsError for ids removed before or never covered, and where the smallest
        eigenvalue of the ridged remainder falls below half of λ (the sums do not belong here).
        """
        if self.members is None:
            raise StatisticsError(
                "Expected statistics that know which ids they cover, got some without ids. Use "
                "those of the run folder with its private/ part, or make them again."
            )
        wanted = {self.member(i) for i in ids}
        unknown = wanted - self.members
        if unknown:
            raise StatisticsError(
                f"Expected statistics that cover every forget record, got {len(unknown)} of "
                f"{len(wanted)} records that were never in, or were removed before. Check the ids "
                "of the job against those the statistics were made from."
            )
        if forget.rows != len(wanted):
            raise StatisticsError(
                f"Expected one id a row to be removed, got sums of {forget.rows} rows for "
                f"{len(wanted)} ids. Pass the ids of exactly the rows that were summed."
            )
        rest = self.sums.minus(forget)
        if int(rest.counts.min()) < 0 or rest.rows < 1:
            raise StatisticsError(
                "Expected the forget rows to be part of the statistics, got more rows of a class "
                "than they hold. The labels differ from those the statistics were made from."
            )
        smallest = float(torch.linalg.eigvalsh(rest.gram[:-1, :-1])[0])
        if smallest + self.ridge < 0.5 * self.ridge:
            raise StatisticsError(
                "Expected the Gram matrix without the forget rows to stay positive (smallest "
                f"eigenvalue at least {-0.5 * self.ridge:.3g}), got {smallest:.3g}. The forget "
                "rows are not the ones the statistics were made from."
            )
        return dataclasses.replace(self, sums=rest, members=self.members - wanted)

    def member(self, record_id: str) -> str:
        """The salted digest under which an id is known here."""
        return hashlib.sha256(f"{self.salt}\0{record_id}".encode()).hexdigest()[:32]

    def covers(self, ids: Iterable[str]) -> bool | None:
        """Whether every id is covered; None where the ids were stripped."""
        if self.members is None:
            return None
        return all(self.member(i) in self.members for i in ids)

    def without_ids(self) -> FeatureStatistics:
        """The same sums with the ids stripped, as run folders ship them."""
        return dataclasses.replace(self, members=None)

    def with_members(self, members: Iterable[str]) -> FeatureStatistics:
        """The same sums with the digests of covered ids put back."""
        return dataclasses.replace(self, members=frozenset(members))

    def check(self, model: nn.Module, head: Head) -> None:
        """Raise StatisticsError unless they were made from this backbone and this head's shape."""
        if (self.head, self.features, self.classes) != (head.name, head.features, head.classes):
            raise StatisticsError(
                f"Expected statistics for head {head.name!r} with d = {head.features} and K = "
                f"{head.classes}, got head {self.head!r} with d = {self.features} and K = "
                f"{self.classes}. Make them again with `expunge statistics`."
            )
        digest = backbone_digest(model, head)
        if digest != self.backbone:
            raise StatisticsError(
                f"Expected statistics of this model's backbone ({digest[:12]}), got those of "
                f"another ({self.backbone[:12]}). Statistics follow head edits but not backbone "
                "edits: make them again with `expunge statistics`."
            )

    def save(self, path: Path | str) -> None:
        """Write as safetensors; ids appear as salted digests only (guessable for row numbers)."""
        tensors = {
            "gram": self.sums.gram.contiguous(),
            "class_sums": self.sums.class_sums.contiguous(),
            "counts": self.sums.counts.contiguous(),
            "mean": self.mean.contiguous(),
        }
        if self.members is not None:
            tensors["members"] = torch.from_numpy(member_array(self.members))
        facts = {
            "ridge": self.ridge.hex(),
            "scale": self.scale.hex(),
            "trace": self.trace.hex(),
            "spread": self.spread.hex(),
            "backbone": self.backbone,
            "head": self.head,
            "salt": self.salt,
            "intercept": self.intercept,
        }
        metadata = {"format": f"expunge-statistics-{_VERSION}", "facts": json.dumps(facts)}
        save_file(tensors, path, metadata=metadata)

    @staticmethod
    def load(path: Path | str) -> FeatureStatistics:
        """Read what `save` wrote; raises StatisticsError for anything else."""
        path = Path(path)
        if not path.exists():
            raise StatisticsError(
                f"Expected feature statistics at {path}, found no file. Make them with "
                "`expunge statistics`."
            )
        try:
            with safe_open(path, framework="pt") as archive:
                metadata = archive.metadata() or {}
                tensors = {name: archive.get_tensor(name).clone() for name in list(archive.keys())}
        except SafetensorError as error:
            raise StatisticsError(
                f"Expected {path.name} to be safetensors, but reading it raised: {error}."
            ) from error
        if metadata.get("format") != f"expunge-statistics-{_VERSION}":
            raise StatisticsError(
                f"Expected {path.name} to hold feature statistics of version {_VERSION}, got "
                f"format {metadata.get('format')!r}."
            )
        facts = json.loads(metadata["facts"])
        members = tensors.get("members")
        return FeatureStatistics(
            sums=Sums(tensors["gram"], tensors["class_sums"], tensors["counts"]),
            mean=tensors["mean"],
            ridge=float.fromhex(facts["ridge"]),
            scale=float.fromhex(facts["scale"]),
            trace=float.fromhex(facts["trace"]),
            spread=float.fromhex(facts["spread"]),
            backbone=facts["backbone"],
            head=facts["head"],
            salt=facts["salt"],
            intercept=bool(facts["intercept"]),
            members=None if members is None else member_set(members.numpy()),
        )


def member_array(members: frozenset[str]) -> npt.NDArray[np.uint8]:
    """Digests of ids as a sorted array (n, 16) of bytes."""
    raw = b"".join(bytes.fromhex(m) for m in sorted(members))
    return np.frombuffer(raw, np.uint8).reshape(-1, 16).copy()


def member_set(array: npt.NDArray[np.uint8]) -> frozenset[str]:
    """The inverse of `member_array`."""
    return frozenset(row.tobytes().hex() for row in array)


def _uncentre(sums: Sums, mean: Float[Tensor, " features"]) -> Float[Tensor, "features features"]:
    cross = torch.outer(sums.gram[:-1, -1], mean)
    return sums.gram[:-1, :-1] + cross + cross.T + sums.rows * torch.outer(mean, mean)


def _ridge_head(
    sums: Sums, ridge: float, *, intercept: bool
) -> Float[Tensor, "classes features+1"]:
    classes = len(sums.counts)
    targets = sums.class_sums - sums.gram[-1] / classes
    if not intercept:
        block = sums.gram[:-1, :-1] + ridge * torch.eye(len(sums.gram) - 1, dtype=torch.float64)
        weight: Tensor = torch.linalg.solve(block, targets[:, :-1].T)
        return torch.cat([weight.T, torch.zeros(classes, 1, dtype=torch.float64)], dim=1)
    penalty = torch.full((len(sums.gram),), ridge, dtype=torch.float64)
    penalty[-1] = 0.0
    solved: Tensor = torch.linalg.solve(sums.gram + torch.diag(penalty), targets.T)
    return solved.T


def collect_sums(
    model: nn.Module,
    head: Head,
    rows: Rows,
    *,
    mean: Float[Tensor, " features"],
    batch_size: int = 256,
    device: torch.device | None = None,
) -> Sums:
    """Sums over `rows` in one streaming pass, centred by a mean that is already fixed."""
    sums = Sums.zero(head.features, head.classes)
    where = device or torch.device("cpu")
    for features, _, labels in feature_batches(
        model, head, rows, batch_size=batch_size, device=where
    ):
        sums.add(features, labels, mean)
    return sums


def collect_statistics(
    model: nn.Module,
    head: Head,
    rows: Rows,
    *,
    forget: Tensor | None = None,
    ridge: float = _DEFAULT_RIDGE,
    batch_size: int = 256,
    device: torch.device | None = None,
) -> tuple[FeatureStatistics, Sums | None]:
    """Statistics of `rows` in one streaming pass, memory O(d²).

    λ = `ridge`·tr(G)/d of the centred Gram matrix. With `forget`, a boolean mask (n,), the sums of
    those rows are taken in the same pass and returned beside it. The centring vector is a coarsely
    rounded mean over a sample of the rows that stay: any fixed vector serves, one near the mean
    keeps the sums well conditioned, and since it is never updated it must not tell of a record. A
    head without bias cannot absorb a shift, so its features are not centred.
    """
    if not len(rows):
        raise StatisticsError("Expected at least one row to make statistics from, got none.")
    highest = int(rows.labels.max())
    if highest >= head.classes:
        raise StatisticsError(
            f"Expected labels below the model's {head.classes} classes, got {highest}."
        )
    where = device or torch.device("cpu")
    whole = Sums.zero(head.features, head.classes)
    part = None if forget is None else Sums.zero(head.features, head.classes)
    mean = _centre(model, head, rows, forget, where)
    start = 0
    for features, _, labels in feature_batches(
        model, head, rows, batch_size=batch_size, device=where
    ):
        whole.add(features, labels, mean)
        if forget is not None and part is not None:
            chosen = forget[start : start + len(labels)]
            if bool(chosen.any()):
                part.add(features[chosen.to(features.device)], labels[chosen], mean)
        start += len(labels)
    centred = whole.gram[:-1, :-1] - torch.outer(whole.gram[:-1, -1], whole.gram[:-1, -1]) / start
    spread = float(torch.trace(centred)) / head.features
    if not spread > 0:
        raise StatisticsError(
            "Expected features that differ between rows, got constant or non-finite ones. The "
            "model's penultimate layer is dead or diverged."
        )
    penalty = ridge * spread
    statistics = FeatureStatistics(
        sums=whole,
        mean=mean,
        ridge=penalty,
        scale=_transplant_scale(
            whole, penalty, head_matrix(model, head), mean, intercept=head.has_bias
        ),
        trace=float(torch.trace(_uncentre(whole, mean))) / head.features,
        spread=spread,
        backbone=backbone_digest(model, head),
        head=head.name,
        salt=secrets.token_hex(16),
        members=None,
        intercept=head.has_bias,
    )
    members = frozenset(statistics.member(i) for i in rows.ids)
    return dataclasses.replace(statistics, members=members), part


def _centre(
    model: nn.Module, head: Head, rows: Rows, forget: Tensor | None, device: torch.device
) -> Float[Tensor, " features"]:
    """The mean feature of up to 256 rows that stay, rounded to a sixteenth of the largest."""
    if not head.has_bias:
        return torch.zeros(head.features, dtype=torch.float64)
    stay = torch.arange(len(rows)) if forget is None else (~forget).nonzero().flatten()
    stay = stay if len(stay) else torch.arange(len(rows))
    sample = rows.select(stay[torch.linspace(0, len(stay) - 1, min(256, len(stay))).long()])
    parts = [
        features.detach().cpu().double()
        for features, _, _ in feature_batches(model, head, sample, batch_size=256, device=device)
    ]
    mean = torch.cat(parts).mean(0)
    largest = float(mean.abs().max())
    if not 0.0 < largest < math.inf:
        return torch.zeros_like(mean)
    grain = 2.0 ** math.ceil(math.log2(largest / 16))
    return torch.round(mean / grain) * grain


def _transplant_scale(
    sums: Sums,
    ridge: float,
    matrix: Float[Tensor, "classes features+1"],
    mean: Float[Tensor, " features"],
    *,
    intercept: bool,
) -> float:
    """S = ⟨A G̃, B⟩ / ⟨B G̃, B⟩: the least-squares factor from the ridge head's logits to A's.

    Both are centred over the classes first, since a shift common to all logits means nothing.
    """
    ridge_head = _ridge_head(sums, ridge, intercept=intercept)
    ridge_head = ridge_head - ridge_head.mean(0)
    centred = to_centred(matrix, mean)
    centred = centred - centred.mean(0)
    below = float((ridge_head @ sums.gram * ridge_head).sum())
    above = float((centred @ sums.gram * ridge_head).sum())
    return above / below


def to_centred(
    matrix: Float[Tensor, "classes features+1"], mean: Float[Tensor, " features"]
) -> Float[Tensor, "classes features+1"]:
    """[W, b] for features h as [W, b + Wm] for centred features h − m: the same logits."""
    out = matrix.clone()
    out[:, -1] += matrix[:, :-1] @ mean
    return out


def from_centred(
    matrix: Float[Tensor, "classes features+1"], mean: Float[Tensor, " features"]
) -> Float[Tensor, "classes features+1"]:
    """The inverse of `to_centred`."""
    out = matrix.clone()
    out[:, -1] -= matrix[:, :-1] @ mean
    return out


def statistics_facts(statistics: FeatureStatistics) -> dict[str, Any]:
    """What may be told about statistics in a record: sizes and frozen constants, no ids."""
    return {
        "rows": statistics.sums.rows,
        "features": statistics.features,
        "classes": statistics.classes,
        "ridge": statistics.ridge,
        "scale": statistics.scale,
    }
