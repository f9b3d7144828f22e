"""Sums over training features from which a head can be edited without the training data.

One streaming pass gives the Gram matrix G = Σ (h−m)(h−m)ᵀ, the class sums and the counts of the
penultimate features h, in float64; memory O(d²), never O(n·d). Removing records subtracts their
part. λ (`penalty`), s (`scale`) and the centring mean m are frozen when the statistics are made, so
that removals add up in any order.

The difference of the statistics before and after the removal of one record reveals that record's
features: whoever holds both holds the record. Keep old copies as safe as the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from expunge.errors import StatisticsError
from expunge.network.heads import Head, backbone_digest
from expunge.statistics.sums import Sums, ridge_head_of, uncentred

__all__ = ["Constants", "FeatureStatistics"]


_VERSION = "1"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constants:
    """What is frozen when statistics are made, so that removals add up in any order.

    `mean` m centres the features; `penalty` is λ and `scale` s of the least-squares transplant;
    `diagonal` and `spread` are the mean diagonals of the uncentred and the centred Gram matrix,
    which ridges are stated relative to; `intercept` says whether the head has one.
    """

    mean: Float[Tensor, " features"]
    penalty: float
    scale: float
    diagonal: float
    spread: float
    intercept: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureStatistics:
    """Sums over the training features, with everything needed to use and update them safely.

    `backbone` is the digest of everything below the head, `head` the head's module name. `members`
    are digests of the covered ids under `salt`, None where they were stripped; then removals are
    refused.
    """

    sums: Sums
    constants: Constants
    backbone: str
    head: str
    salt: str
    members: frozenset[str] | None

    @property
    def mean(self) -> Float[Tensor, " features"]:
        """The centring vector m."""
        return self.constants.mean

    @property
    def penalty(self) -> float:
        """λ of the ridge head, in the units of the Gram matrix."""
        return self.constants.penalty

    @property
    def scale(self) -> float:
        """The factor s from the ridge head's logits to the trained head's."""
        return self.constants.scale

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
        return uncentred(self.sums, self.mean)

    def ridge_head(self) -> Float[Tensor, "classes features+1"]:
        """B = C (G̃ + λ·diag(1,..,1,0))⁻¹ in centred coordinates; targets one-hot minus 1/K."""
        return ridge_head_of(self.sums, self.penalty, intercept=self.constants.intercept)

    def without(self, forget: Sums, ids: Iterable[str]) -> FeatureStatistics:
        """Statistics of the rows that stay, after subtracting the sums of the forget rows.

        Raises StatisticsError for ids removed before or never covered, and where the smallest
        eigenvalue of the ridged remainder falls below half of λ (the sums do not belong here).
        """
        members = self.needed_members()
        wanted = {self.member(i) for i in ids}
        unknown = wanted - members
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
        if smallest + self.penalty < 0.5 * self.penalty:
            raise StatisticsError(
                "Expected the Gram matrix without the forget rows to stay positive (smallest "
                f"eigenvalue at least {-0.5 * self.penalty:.3g}), got {smallest:.3g}. The forget "
                "rows are not the ones the statistics were made from."
            )
        return dataclasses.replace(self, sums=rest, members=members - wanted)

    def needed_members(self) -> frozenset[str]:
        """Digests of the covered ids; raises StatisticsError where they were stripped."""
        if self.members is None:
            raise StatisticsError(
                "Expected statistics that know which ids they cover, got some without ids. Use "
                "those of the run folder with its private/ part, or make them again."
            )
        return self.members

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
            "ridge": self.penalty.hex(),
            "scale": self.scale.hex(),
            "trace": self.constants.diagonal.hex(),
            "spread": self.constants.spread.hex(),
            "backbone": self.backbone,
            "head": self.head,
            "salt": self.salt,
            "intercept": self.constants.intercept,
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
            constants=Constants(
                mean=tensors["mean"],
                penalty=float.fromhex(facts["ridge"]),
                scale=float.fromhex(facts["scale"]),
                diagonal=float.fromhex(facts["trace"]),
                spread=float.fromhex(facts["spread"]),
                intercept=bool(facts["intercept"]),
            ),
            backbone=facts["backbone"],
            head=facts["head"],
            salt=facts["salt"],
            members=None if members is None else member_set(members.numpy()),
        )


def member_array(members: frozenset[str]) -> npt.NDArray[np.uint8]:
    """Digests of ids as a sorted array (n, 16) of bytes."""
    raw = b"".join(bytes.fromhex(m) for m in sorted(members))
    return np.frombuffer(raw, np.uint8).reshape(-1, 16).copy()


def member_set(array: npt.NDArray[np.uint8]) -> frozenset[str]:
    """The inverse of `member_array`."""
    return frozenset(row.tobytes().hex() for row in array)
