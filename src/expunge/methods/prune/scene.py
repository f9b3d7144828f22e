"""The scene of a patch: every row as the head saw it, read once, and where a claim may start."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from expunge.certificate.facts import Evidence, Layer
from expunge.certificate.layers import Network, network_of
from expunge.data.rows import Rows
from expunge.errors import DataError
from expunge.methods.prune.mlp import layers_before
from expunge.methods.prune.twins import Twins, find_twins
from expunge.methods.run import Run
from expunge.network.heads import Head
from expunge.network.passes import feature_batches
from expunge.task import ForgetTask

__all__ = ["Scene", "Seen", "read_scene", "seen", "through"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """Rows as the head saw them: features (n, d), logits (n, K), and what a claim starts from.

    `start` (n, s) float32 are the features again, or the flattened inputs of a plain MLP.
    """

    labels: Int[Tensor, " rows"]
    ids: tuple[str, ...]
    features: Float[Tensor, "rows features"]
    logits: Float[Tensor, "rows classes"]
    start: NDArray[np.float32]

    def from_features(self) -> Seen:
        """The same rows, with a claim that starts at the features."""
        return dataclasses.replace(self, start=self.features.numpy())


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
    parts = [
        (h.float().cpu(), logits.float().cpu())
        for h, logits, _ in feature_batches(model, head, rows, batch_size=batch_size, device=device)
    ]
    z = torch.cat([h for h, _ in parts])
    if not bool(torch.isfinite(z).all()):
        raise DataError(
            "Expected finite features, got NaN or infinity on some row. Check the normalisation of "
            "the data."
        )
    found = Seen(
        labels=rows.labels,
        ids=rows.ids,
        features=z,
        logits=torch.cat([logits for _, logits in parts]),
        start=z.numpy(),
    )
    if not layers:
        return found
    inputs = [x.flatten(1).float() for x, _ in rows.batches(batch_size) if isinstance(x, Tensor)]
    return dataclasses.replace(found, start=torch.cat(inputs).numpy())


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """All that a patch of records is made from.

    `model` is the private copy, not edited yet. `kept` are the rows that stay, `tune` those never
    seen. `layers` are the operations before the head where claims start at the input, else none.
    `past` is the evidence of earlier requests.
    """

    model: nn.Module
    head: Head
    forget: Seen
    kept: Seen
    tune: Seen
    twins: Twins
    layers: tuple[Layer, ...]
    past: Evidence | None

    def from_features(self) -> Scene:
        """The same scene with claims that start at the features; earlier ones are to be proven."""
        return dataclasses.replace(
            self,
            forget=self.forget.from_features(),
            kept=self.kept.from_features(),
            layers=(),
            past=_from_features(self.past, self.past_features().numpy()),
        )

    def past_features(self) -> Float[Tensor, "records features"]:
        """Features of the records of earlier requests: new gates must stay shut on them."""
        if self.past is None or not self.past.records:
            return torch.zeros(0, self.head.features)
        rows = torch.from_numpy(np.stack([r.row for r in self.past.records]))
        return through(self.model, self.past.layers, rows)

    def network(self, layer: nn.Linear) -> Network:
        """The network from where claims start, as it would be deployed with this head."""
        names = {n for own in self.layers for n in (own.weight, own.bias) if n is not None}
        prefix = f"{self.head.name}." if self.head.name else ""
        tensors = {n: t for n, t in self.model.state_dict().items() if n in names}
        tensors |= {prefix + n: t for n, t in layer.state_dict().items()}
        return network_of(
            {n: t.detach().cpu().numpy() for n, t in tensors.items()},
            head=self.head.name,
            features=self.forget.start.shape[1],
            layers=[(own.op, own.weight, own.bias) for own in self.layers],
        )


def read_scene(model: nn.Module, task: ForgetTask, run: Run) -> Scene:
    """Compare the inputs by content, then read forget, retained and tune rows once each."""
    assert task.retain is not None, "the door refuses a request without what `needs` names"
    assert task.holdout is not None, "the door refuses a request without what `needs` names"
    twins = find_twins(task.forget, task.retain)
    head = run.needed_head
    layers = layers_before(model, head, task.forget)
    began = time.perf_counter()
    forget, kept, tune = (
        seen(model, head, rows, layers, batch_size=run.batch_size, device=run.device)
        for rows in (task.forget, task.retain, task.holdout)
    )
    run.touched(len(task.forget) + len(task.retain) + len(task.holdout))
    run.log("feature_seconds", time.perf_counter() - began)
    return Scene(
        model=model,
        head=head,
        forget=forget,
        kept=kept,
        tune=tune,
        twins=twins,
        layers=layers,
        past=run.before.evidence,
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


def _from_features(past: Evidence | None, rows: NDArray[np.float32]) -> Evidence | None:
    """The evidence with features for inputs as rows; its claims must be proven again."""
    if past is None or not past.layers:
        return past
    records = tuple(
        dataclasses.replace(r, row=row.copy()) for r, row in zip(past.records, rows, strict=True)
    )
    return dataclasses.replace(
        past, records=records, layers=(), features=rows.shape[1], retained=past.retained[:0]
    )
