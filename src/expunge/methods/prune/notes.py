"""What every reader of a record must know of a patch, said in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.certificate.facts import Evidence
from expunge.functional.membership import auc
from expunge.methods.prune.evidence import Edit
from expunge.methods.prune.gates import gate_values, nearness
from expunge.methods.prune.scene import Scene
from expunge.methods.prune.shifts import Patch
from expunge.methods.run import Run
from expunge.records import Scope

if TYPE_CHECKING:
    from expunge.methods.prune.published.forget import PublishedReport

__all__ = [
    "say_from_features",
    "say_gated_because",
    "say_merged",
    "say_narrowed",
    "say_patched",
    "say_published",
    "say_wider",
]

_BY_DESIGN = (
    "spec: mispredict misses the aim `unseen` by design: a retrained model gets most of the "
    "records right, and a forced error is itself a leak"
)


def say_narrowed(run: Run, *, evidence: Evidence | None) -> None:
    """A class is gone; and whether there is something to certify it by."""
    run.note("the output row is gone: the model cannot give the class, whatever the input")
    if evidence is None:
        run.note("no certificate: what the earlier one was written from is not at hand")


def say_merged(run: Run, words: str, *, records: int, claims: int, copies: int) -> None:
    """The merged form was taken, and for how many records nothing is claimed."""
    run.note(f"form: merged, an edit of the head alone without gates: {words}")
    if claims < records:
        same = f" ({copies} identical to retained rows)" if copies else ""
        run.note(
            f"{records - claims} of {records} records are not merged{same}: nothing is claimed for "
            "them"
        )


def say_gated_because(run: Run, reason: str) -> None:
    """The merged form was not taken."""
    run.note(f"form: gated, because {reason}")


def say_from_features(run: Run, reason: str) -> None:
    """A plain MLP's claim starts at the features all the same."""
    run.note(f"the claim starts at the features: {reason}")


def say_wider(run: Run, before: Evidence | None, after: Evidence | None) -> None:
    """Earlier records whose bound had to grow."""
    if before is None or after is None:
        return
    pairs = zip(after.records, before.records, strict=True)
    wider = sum(new.tolerance > old.tolerance for new, old in pairs)
    if wider:
        run.note(f"{wider} records of earlier requests claim a wider bound than before")


def say_patched(run: Run, edit: Edit) -> None:
    """Form, entangled records, and what the gates leak; nothing for an edit without gates."""
    if edit.patch is None:
        return
    run.note(
        "form: gated, one gate a record. It supports the claim `outputs` and never `file`: who "
        "holds the file can take the gates off, and can tell with them who was forgotten"
    )
    if edit.targets.spec == "mispredict":
        run.note(_BY_DESIGN)
    if edit.entangled:
        reasons = ", ".join(sorted({e.reason for e in edit.entangled}))
        run.note(
            f"{len(edit.entangled)} of {len(edit.scene.forget.ids)} records are entangled "
            f"({reasons}): no gate separates them from what stays, and nothing was done for them"
        )
    run.log("gates", len(edit.patch.c))
    run.log("by_linear_program", edit.patch.by_program)
    run.log("linear_program_seconds", edit.patch.program_seconds)
    run.log("entangled", len(edit.entangled))
    if len(edit.scene.tune.features):
        _say_leaks(run, edit.scene, edit.patch)


def _say_leaks(run: Run, scene: Scene, patch: Patch) -> None:
    """What the gates tell of the records that have one, beside the tune rows."""
    opened = gate_values(patch.u, patch.c, scene.tune.features)
    openings = float((opened > 0).double().sum(1).mean())
    chance = len(patch.c) / (len(scene.kept.features) + 1)
    run.log("openings_per_unseen_row", openings)
    run.log("openings_by_chance", chance)
    # every record lies at 1.5 of its own gate, before the clip: who has the file looks for that
    members = scene.forget.features[sorted(patch.claims)]
    scores = (nearness(patch.u, patch.c, rows) for rows in (members, scene.tune.features))
    told = auc(*scores)
    run.log("patch_membership_auc", told)
    run.note(
        f"what the gates tell whoever holds the file: records that have one ({len(members)}) from "
        f"tune rows with an AUC of {told:.3f}; a tune row, never seen by the model, opens "
        f"{openings:.4f} gates on average (chance: {chance:.4f})"
    )


def say_published(run: Run, report: PublishedReport, scope: Scope) -> None:
    """What the published form did, and what it cannot do."""
    run.note(
        f"as published: {report.forgotten} of {report.records} records are wrong after "
        f"{report.rounds} rounds, {report.patches} patches on {report.regions} regions, "
        f"{report.patch_bytes:,} bytes ({report.dense_bytes:,} in the published layout)"
    )
    run.note(_BY_DESIGN if scope == "records" else "the patch knows the forget rows alone")
