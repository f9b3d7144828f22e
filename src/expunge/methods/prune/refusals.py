"""What PRUNE cannot serve: heads in other precision, and forms that do not go together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from expunge.errors import UnsupportedError
from expunge.methods.base import Before
from expunge.network.heads import Head
from expunge.records import Scope

__all__ = ["refuse_head"]


def refuse_head(
    model: nn.Module,
    head: Head,
    scope: Scope,
    before: Before,
    form: Literal["auto", "gated", "merged"],
) -> None:
    """Raise UnsupportedError for half precision, and for a head that this request cannot extend."""
    dtype = head.of(model).weight.dtype
    if dtype != torch.float32:
        raise UnsupportedError(
            f"Expected a head in float32 for Prune, got {dtype}: the certificate holds for "
            "float32 weights only. Convert the model with `.float()`."
        )
    earlier = 0 if before.evidence is None else len(before.evidence.records)
    lost = before.evidence is None and before.predecessor is not None
    if scope == "classes":
        if head.kind == "gated" or earlier or (lost and head.kind == "plain"):
            raise UnsupportedError(
                "Expected a head without patches for records to remove a class, got one that "
                "earlier requests certified records on: their claims would be lost. Start from the "
                "original model: remove the class with a method that keeps its row, such as "
                "mask-class, then forget the records; or retrain."
            )
        return
    if head.kind == "narrow":
        raise UnsupportedError(
            "Expected a head with all its rows to forget records, got one without the rows of "
            "removed classes. Start from the original model: remove the class with a method that "
            "keeps its row, such as mask-class, then forget the records."
        )
    if lost or (before.evidence is None and head.kind == "gated"):
        raise UnsupportedError(
            "Expected what the records of earlier requests were proven with, got none: a new "
            "patch could break their claims. Load the run with its private/ folder and its "
            "features.safetensors, or retrain."
        )
    if form == "merged" and head.kind == "gated":
        raise UnsupportedError(
            'Expected a head without gates for `form` "merged": earlier requests left gates.'
        )
