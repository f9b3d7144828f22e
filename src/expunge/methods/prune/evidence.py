"""What a method that proves something hands to the certificate: rows, claims, digests, salts."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from expunge.certificate.digests import tensor_digests
from expunge.certificate.facts import EntangledEvidence, Evidence, Layer, RecordEvidence
from expunge.certificate.layers import Network, network_of
from expunge.data.rows import Rows
from expunge.errors import DataError
from expunge.methods.prune.fitting import Entangled
from expunge.methods.prune.shifts import Claimed
from expunge.network.heads import Head
from expunge.network.passes import feature_batches
from expunge.patches.heads import NarrowLinear, gated

__all__ = [
    "Seen",
    "at_features",
    "base_digests",
    "earlier_rows",
    "narrow_evidence",
    "network_as_is",
    "network_with",
    "record_evidence",
    "seen",
    "through",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Rows as the head saw them: features (n, d), logits (n, K), and what a claim starts from.

    `start` (n, s) float32 are the features again, or the flattened inputs of a plain MLP.
    """

    features: Float[Tensor, "rows features"]
    logits: Float[Tensor, "rows classes"]
    start: NDArray[np.float32]

    def from_features(self) -> Seen:
        """The same rows, with a claim that starts at the features."""
        return Seen(features=self.features, logits=self.logits, start=self.features.numpy())


def seen(
    model: nn.Module,
    head: Head,
    rows: Rows,
    layers: Sequence[Layer],
    *,
    batch_size: int,
    device: torch.device,
) -> Seen:
    """Read `rows` once in eval mode; float32 on the CPU. Raises DataError for NaN and infinity."""
    features, logits = [], []
    for h, z, _ in feature_batches(model, head, rows, batch_size=batch_size, device=device):
        features.append(h.float().cpu())
        logits.append(z.float().cpu())
    z = torch.cat(features)
    if not bool(torch.isfinite(z).all()):
        raise DataError(
            "Expected finite features, got NaN or infinity on some row. Check the normalisation of "
            "the data."
        )
    if not layers:
        return Seen(features=z, logits=torch.cat(logits), start=z.numpy())
    inputs = [x.flatten(1).float() for x, _ in rows.batches(batch_size) if isinstance(x, Tensor)]
    return Seen(features=z, logits=torch.cat(logits), start=torch.cat(inputs).numpy())


def tensors_of(model: nn.Module, head: Head, layers: Sequence[Layer]) -> dict[str, NDArray[Any]]:
    """The tensors that a claim is about, float32 on the CPU."""
    names = {n for layer in layers for n in (layer.weight, layer.bias) if n is not None}
    names |= head.tensor_names()
    return {n: t.detach().cpu().numpy() for n, t in model.state_dict().items() if n in names}


def network_as_is(model: nn.Module, head: Head) -> Network:
    """The head as it stands, on features."""
    return network_of(tensors_of(model, head, ()), head=head.name, features=head.features)


def network_with(
    model: nn.Module,
    head: Head,
    layers: Sequence[Layer],
    features: int,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor,
) -> Network:
    """The network as it would be deployed with these gates appended."""
    new = gated(head.of(model), weight, bias, shift)
    prefix = f"{head.name}." if head.name else ""
    state = {prefix + n: t.detach().cpu().numpy() for n, t in new.state_dict().items()}
    return network_of(
        tensors_of(model, head, layers) | state,
        head=head.name,
        features=features,
        layers=[(layer.op, layer.weight, layer.bias) for layer in layers],
    )


def through(
    model: nn.Module, layers: Sequence[Layer], rows: Float[Tensor, "rows inputs"]
) -> Float[Tensor, "rows features"]:
    """What the layers make of rows, one after another, on the CPU and in the dtype of the rows."""
    state, value = model.state_dict(), rows
    for layer in layers:
        if layer.weight is None:
            value = value.relu()
            continue
        bias = None if layer.bias is None else state[layer.bias].to(value)
        value = F.linear(value, state[layer.weight].to(value), bias)
    return value


def earlier_rows(
    model: nn.Module, evidence: Evidence | None, head: Head
) -> Float[Tensor, "records features"]:
    """Features of the records of earlier requests: new gates must stay shut on them."""
    if evidence is None or not evidence.records:
        return torch.zeros(0, head.features)
    rows = torch.from_numpy(np.stack([r.row for r in evidence.records]))
    return through(model, evidence.layers, rows)


def at_features(evidence: Evidence | None, model: nn.Module, head: Head) -> Evidence | None:
    """The evidence with features for inputs as rows; its claims must be proven again."""
    if evidence is None or not evidence.layers:
        return evidence
    rows = earlier_rows(model, evidence, head).numpy()
    records = tuple(
        dataclasses.replace(r, row=row.copy())
        for r, row in zip(evidence.records, rows, strict=True)
    )
    return dataclasses.replace(
        evidence, records=records, layers=(), features=head.features, retained=evidence.retained[:0]
    )


def base_digests(model: nn.Module, evidence: Evidence | None) -> Mapping[str, str]:
    """Digests of the weights before the first request of the sequence, tensor by tensor."""
    if evidence is not None:
        return evidence.base
    state = {
        n: t.detach().cpu().contiguous().clone()
        for n, t in model.state_dict().items()
        if isinstance(t, Tensor)
    }
    return tensor_digests(safetensors_bytes(state))


def record_evidence(
    form: Literal["gated", "merged"],
    earlier: Evidence | None,
    head: Head,
    layers: Sequence[Layer],
    claims: Mapping[int, Claimed],
    left: Sequence[Entangled],
    forget: Rows,
    stays: Rows,
    mine: Seen,
    kept: Seen,
    targets: Float[Tensor, "records classes"],
    tune_logits: Tensor | None,
    base: Mapping[str, str],
    *,
    rule: str,
    seed: int,
    predecessor: str | None,
    settings: Mapping[str, str | int | float | bool | None],
) -> Evidence:
    """The evidence of all requests so far, this one's records last."""
    past = () if earlier is None else earlier.records
    number = max((r.request for r in past), default=-1) + 1
    lost = () if earlier is None else without_claim(earlier)
    drawn_from = "" if earlier is None else earlier.tune_digest
    if tune_logits is not None:
        drawn_from = tune_digest(tune_logits)
    records = tuple(
        RecordEvidence(
            id=forget.ids[i],
            label=int(forget.labels[i]),
            salt=secrets.token_hex(32),
            row=mine.start[i].copy(),
            claim=claimed.claim,
            target=None if claimed.claim == "mispredict" else targets[i].numpy().copy(),
            tolerance=claimed.bound,
            request=number,
        )
        for i, claimed in sorted(claims.items())
    )
    entangled = tuple(
        EntangledEvidence(
            id=forget.ids[e.position],
            label=int(forget.labels[e.position]),
            salt=secrets.token_hex(32),
            # read in another batch the twin's features may differ in the last bits: take its own
            row=(
                kept.start[e.rows[0]] if e.reason == "identical" else mine.start[e.position]
            ).copy(),
            reason=e.reason,
            rows=e.rows.numpy().astype(np.int64),
            weights=e.weights.numpy().astype(np.float64),
            residual=e.residual,
            names=tuple(stays.ids[i] for i in e.rows.tolist()),
        )
        for e in left
    )
    nothing = np.zeros((0, mine.start.shape[1]), np.float32)
    return Evidence(
        form=form,
        spec="mispredict" if any(r.claim == "mispredict" for r in records) else "unseen",
        head=head.name,
        classes=head.classes,
        features=mine.start.shape[1],
        layers=tuple(layers),
        records=(*past, *records),
        entangled=entangled,
        earlier_without_claim=lost,
        unmerged=tuple(forget.ids[i] for i in range(len(forget)) if i not in claims)
        if form == "merged"
        else (),
        retained=kept.start if form == "gated" else nothing,
        retained_salt=secrets.token_hex(32),
        rule=rule,
        seed=seed,
        tune_digest=drawn_from,
        base=base,
        previous=predecessor,
        method=settings,
    )


def without_claim(evidence: Evidence) -> tuple[str, ...]:
    """Ids of all requests so far for which nothing is claimed."""
    left = tuple(e.id for e in evidence.entangled)
    return (*evidence.earlier_without_claim, *left, *evidence.unmerged)


def narrow_evidence(
    head: Head,
    layer: NarrowLinear,
    base: Mapping[str, str],
    *,
    seed: int,
    predecessor: str | None,
    settings: Mapping[str, str | int | float | bool | None],
) -> Evidence:
    """The evidence that rows of the head are gone, for every input."""
    kept = set(layer.kept.tolist())
    return Evidence(
        form="narrow",
        spec="absent",
        head=head.name,
        classes=head.classes,
        features=head.features,
        retained=np.zeros((0, head.features), np.float32),
        retained_salt=secrets.token_hex(32),
        removed=tuple(c for c in range(head.classes) if c not in kept),
        rule="the output rows of the removed classes are taken away",
        seed=seed,
        base=base,
        previous=predecessor,
        method=settings,
    )


def tune_digest(logits: Float[Tensor, "tune classes"]) -> str:
    """SHA-256 of the float32 tune logits that targets were drawn from."""
    return hashlib.sha256(logits.float().contiguous().numpy().tobytes()).hexdigest()
