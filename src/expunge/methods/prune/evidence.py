"""What a patch hands to the certificate: rows, claims, witnesses, digests and salts."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from expunge.certificate.digests import tensor_digests
from expunge.certificate.facts import EntangledEvidence, Evidence, RecordEvidence
from expunge.methods.prune.fitting import Entangled
from expunge.methods.prune.scene import Scene
from expunge.methods.prune.shifts import Claimed, Patch
from expunge.methods.prune.targets import Targets
from expunge.network.heads import Head
from expunge.patches.heads import NarrowLinear

__all__ = ["Edit", "Origin", "narrow_evidence", "record_evidence"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edit:
    """What becomes of the head, and what it proves.

    `layer` takes the head's place. `scene` starts where the claims start, and its earlier evidence
    is proven for this head; `targets` are those that were asked in the end. `claims` are by
    position of the record; `patch` are the gates of the gated form.
    """

    form: Literal["gated", "merged"]
    layer: nn.Linear
    scene: Scene
    targets: Targets
    claims: Mapping[int, Claimed]
    patch: Patch | None = None

    @property
    def entangled(self) -> Sequence[Entangled]:
        """The records that no gate separates."""
        return () if self.patch is None else self.patch.entangled


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an edit comes from: seed, digest of the certificate before, settings of the method."""

    seed: int
    predecessor: str | None
    settings: Mapping[str, str | int | float | bool | None]


def record_evidence(edit: Edit, origin: Origin) -> Evidence:
    """The evidence of all requests so far, this one's records last; before the head is replaced."""
    scene, past, drawn_from = edit.scene, edit.scene.past, edit.targets.drawn_from
    kept, ids = scene.kept, scene.forget.ids
    width = scene.forget.start.shape[1]
    records = _records(edit)
    return Evidence(
        form=edit.form,
        spec="mispredict" if any(r.claim == "mispredict" for r in records) else "unseen",
        head=scene.head.name,
        classes=scene.head.classes,
        features=width,
        layers=scene.layers,
        records=records,
        entangled=tuple(_witnessed(e, scene) for e in edit.entangled),
        earlier_without_claim=() if past is None else _without_claim(past, ids),
        unmerged=tuple(ids[i] for i in range(len(ids)) if i not in edit.claims)
        if edit.form == "merged"
        else (),
        retained=kept.start if edit.form == "gated" else np.zeros((0, width), np.float32),
        retained_salt=secrets.token_hex(32),
        rule=edit.targets.rule,
        seed=origin.seed,
        tune_digest=_tune_digest(drawn_from)
        if drawn_from is not None
        else ("" if past is None else past.tune_digest),
        base=_base(scene.model, past, edit.form),
        previous=origin.predecessor,
        method=origin.settings,
    )


def narrow_evidence(
    model: nn.Module, head: Head, layer: NarrowLinear, past: Evidence | None, origin: Origin
) -> Evidence:
    """The evidence that rows of the head are gone, for every input; before it is replaced."""
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
        seed=origin.seed,
        base=_base(model, past, "narrow"),
        previous=origin.predecessor,
        method=origin.settings,
    )


def _records(edit: Edit) -> tuple[RecordEvidence, ...]:
    """The records of earlier requests, and those of this one."""
    past = () if edit.scene.past is None else edit.scene.past.records
    number = max((r.request for r in past), default=-1) + 1
    forget = edit.scene.forget
    mine = (
        RecordEvidence(
            id=forget.ids[i],
            label=int(forget.labels[i]),
            salt=secrets.token_hex(32),
            row=forget.start[i].copy(),
            claim=claimed.claim,
            target=None if claimed.claim == "mispredict" else edit.targets.logits[i].numpy().copy(),
            tolerance=claimed.bound,
            request=number,
        )
        for i, claimed in sorted(edit.claims.items())
    )
    return (*past, *mine)


def _witnessed(entry: Entangled, scene: Scene) -> EntangledEvidence:
    """An entangled record with the retained rows that show why."""
    forget, kept, i = scene.forget, scene.kept, entry.position
    # read in another batch the twin's features may differ in the last bits: take its own
    row = kept.start[int(entry.rows[0])] if entry.reason == "identical" else forget.start[i]
    return EntangledEvidence(
        id=forget.ids[i],
        label=int(forget.labels[i]),
        salt=secrets.token_hex(32),
        row=row.copy(),
        reason=entry.reason,
        rows=entry.rows.numpy().astype(np.int64),
        weights=entry.weights.numpy().astype(np.float64),
        residual=entry.residual,
        names=tuple(kept.ids[r] for r in entry.rows.tolist()),
    )


def _without_claim(past: Evidence, asked: Sequence[str]) -> tuple[str, ...]:
    """Ids of all requests so far for which nothing is claimed; less those asked for again now."""
    left = tuple(e.id for e in past.entangled)
    again = set(asked)
    return tuple(
        text for text in (*past.earlier_without_claim, *left, *past.unmerged) if text not in again
    )


def _base(
    model: nn.Module, past: Evidence | None, form: Literal["gated", "merged", "narrow"]
) -> Mapping[str, str]:
    """Digests of the weights before the first request of this form in the sequence.

    A head that was edited in another form before is the base itself: its own base is no longer in
    the file.
    """
    if past is not None and past.form == form:
        return past.base
    state = {
        n: t.detach().cpu().contiguous().clone()
        for n, t in model.state_dict().items()
        if isinstance(t, Tensor)
    }
    return tensor_digests(safetensors_bytes(state))


def _tune_digest(logits: Float[Tensor, "tune classes"]) -> str:
    """SHA-256 of the float32 tune logits that targets were drawn from."""
    return hashlib.sha256(logits.float().contiguous().numpy().tobytes()).hexdigest()
