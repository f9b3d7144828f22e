"""What a certificate says: strict models of version 1, read from canonical bytes only.

The payload is canonical JSON (RFC 8785), compared byte for byte, and holds no floats: real numbers
are hexadecimal (`float.hex`), so that nobody rounds them. The sentences are functions of the other
fields, and the checker compares them: a signer cannot write a nicer one.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from expunge.certificate.canonical import (
    VERSION,
    checked_real,
    parse_canonical,
    real,
    version_refusal,
)
from expunge.certificate.terms import WIDEST
from expunge.errors import InputError

__all__ = [
    "DOES_NOT_CLAIM",
    "SEMANTICS",
    "UNIT_ROUNDOFF",
    "Count",
    "Digest",
    "HexFloat",
    "Model",
    "Op",
    "Part",
    "Record",
    "Retained",
    "Statement",
    "Unpatched",
    "UnpatchedRecord",
    "parse_statement",
]

UNIT_ROUNDOFF = "0x1.0000000000000p-24"
SEMANTICS = "real arithmetic on the stored float32 tensors, and float32 in any order of summation"
DOES_NOT_CLAIM = (
    (
        "That targets were drawn as the rule says: the rule, its seed and the digest of what it "
        "drew from are stated, not proven."
    ),
    (
        "Anything about the rounding of the backbone: where the claim starts at the features, it "
        "holds for the rows as given, not for those that another machine may compute."
    ),
    "Anything about TF32, half precision, quantised weights or other reduced arithmetic.",
    (
        "That the records were removed from the features or from the weights, or that the old "
        "model cannot be rebuilt from this one."
    ),
    "Resistance to attacks beyond the figures that are attached to the run.",
    (
        "That a program runs the file as described here: which tensors are the head and the layers "
        "before it is stated, not proven."
    ),
)
"""The limits of every certificate of version 1, word for word."""


def _once(ids: tuple[int, ...]) -> tuple[int, ...]:
    if list(ids) != sorted(set(ids)):
        raise ValueError("class ids must rise")
    return ids


_Hex = r"^[0-9a-f]{64}$"
Digest = Annotated[str, StringConstraints(pattern=_Hex)]
NoDigest = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
HexFloat = Annotated[str, AfterValidator(checked_real)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Ids = Annotated[tuple[Count, ...], AfterValidator(_once)]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Part(BaseModel):
    """Strict: nothing is converted, nothing unknown is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


@final
class Op(Part):
    """A layer before the head: `linear` with the names of its tensors, or `relu`."""

    op: Literal["linear", "relu"]
    weight: str | None
    bias: str | None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.op == "linear") != (self.weight is not None):
            raise ValueError("a linear layer names its weight, and no other does")
        if self.op == "relu" and self.bias is not None:
            raise ValueError("relu has no bias")
        return self


@final
class Model(Part):
    """The model file and the part of it that the claim speaks about."""

    file: Digest
    head: str
    classes: Annotated[int, Field(ge=1, le=2**31)]
    row: Annotated[int, Field(ge=1, le=2**31)]
    starts_at: Literal["features", "input"]
    layers: tuple[Op, ...]
    base: dict[str, Digest]
    edited: dict[str, Digest]

    @model_validator(mode="after")
    def _starting(self) -> Self:
        if (self.starts_at == "input") != bool(self.layers):
            raise ValueError("a claim starts at the input exactly where it lists layers")
        return self


@final
class Record(Part):
    """One forgotten record: commitments, and what is claimed within which bound."""

    commitment: Digest
    target: Digest | None
    claim: Literal["unseen", "mispredict", "margin"]
    bound: HexFloat
    request: Count

    @model_validator(mode="after")
    def _meaning(self) -> Self:
        if (self.claim == "mispredict") != (self.target is None):
            raise ValueError("a claim other than mispredict has a target")
        value = real(self.bound)
        if value < 0 or (value == 0 and self.claim == "mispredict"):
            raise ValueError("a bound below what means anything")
        if self.claim != "mispredict" and value > WIDEST:
            raise ValueError("a bound so wide that it says nothing")
        return self


@final
class UnpatchedRecord(Part):
    """A record that no gate separates: nothing is claimed for it.

    Witnesses show that it is `identical` to a retained row, or lies in their `hull`; `rounding`
    (no gate holds beyond the rounding error) is stated and not shown.
    """

    commitment: Digest
    reason: Literal["identical", "hull", "rounding"]


@final
class Unpatched(Part):
    """The entangled records, and the digest of their witnesses."""

    records: tuple[UnpatchedRecord, ...]
    witnesses: NoDigest

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if bool(self.records) != bool(self.witnesses):
            raise ValueError("witnesses belong to entangled records")
        return self


@final
class Retained(Part):
    """The rows on which every gate is shut."""

    count: Count
    root: Digest
    claim: Literal["every gate shut", "none"]


@final
class Arithmetic(Part):
    """For which arithmetic the numbers hold."""

    semantics: Literal[
        "real arithmetic on the stored float32 tensors, and float32 in any order of summation"
    ]
    unit_roundoff: Literal["0x1.0000000000000p-24"]


@final
class Statement(Part):
    """The payload of a certificate of version 1."""

    type: Literal["expunge.certificate"]
    version: Literal[1]
    claim: str
    created: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    tool: Text
    form: Literal["gated", "merged", "narrow"]
    spec: Literal["unseen", "mispredict", "absent"]
    method: dict[Text, Text]
    rule: Text
    seed: Annotated[str, StringConstraints(pattern=r"^(0|-?[1-9][0-9]{0,38})$")]
    tune_logits: NoDigest
    model: Model
    records: tuple[Record, ...]
    entangled: Unpatched
    not_merged: Count
    earlier_without_claim: Count
    retained: Retained
    removed: Ids
    kept: Ids
    arithmetic: Arithmetic
    does_not_claim: tuple[str, ...]
    previous: Digest | None

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        if (self.form == "gated") != (self.retained.claim == "every gate shut"):
            raise ValueError("gates are shut in the gated form, and in no other")
        if self.form != "merged" and self.not_merged:
            raise ValueError("only the merged form counts records that did not fit")
        if (self.form == "narrow") != bool(self.removed) or (self.spec == "absent") != (
            self.form == "narrow"
        ):
            raise ValueError("classes are removed in the narrow form, and in no other")
        if self.form == "narrow" and (
            self.records or self.entangled.records or self.retained.count
        ):
            raise ValueError("the narrow form speaks about classes, not records")
        if self.form != "narrow" and not self.records:
            raise ValueError("no record has a claim")
        if self.form == "gated" and not self.retained.count:
            raise ValueError("there is no retained row on which gates are shut")
        both = sorted((*self.kept, *self.removed))
        if self.removed or self.kept:
            if len(both) != self.model.classes or both != list(range(len(both))):
                raise ValueError("kept and removed are not all classes")
            if not self.removed or not self.kept:
                raise ValueError("some class is removed, and some is kept")
        latest = max((r.request for r in self.records), default=0)
        last = [r for r in self.records if r.request == latest]
        drawn = any(r.claim != "mispredict" for r in last)
        if any(r.target for r in self.records) and not (self.rule and self.tune_logits):
            raise ValueError("targets were drawn by a rule, from logits with a digest")
        if self.records and drawn != (self.spec == "unseen"):
            raise ValueError("the specification is not that of the last request's records")
        commitments = [r.commitment for r in self.records]
        commitments += [r.commitment for r in self.entangled.records]
        if len(set(commitments)) != len(commitments):
            raise ValueError("a record stands twice")
        return self


def parse_statement(payload: bytes) -> Statement:
    """Read the payload of a certificate.

    Raises InputError where the bytes are not canonical, a field is unknown, missing or does not
    agree with the others, or the version is a newer one.
    """
    facts = parse_canonical(payload, what="a certificate's payload")
    if not isinstance(facts, dict) or facts.get("type") != "expunge.certificate":
        raise InputError(
            'Expected a payload of type "expunge.certificate", got another. Name the file '
            "certificate.dsse.json that Expunge wrote."
        )
    if facts.get("version") != VERSION or facts["version"] is True:
        raise version_refusal("a certificate", facts.get("version"))
    try:
        return Statement.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InputError(
            f"Expected a certificate of version {VERSION}, but at {at}: {first['msg']}. The file "
            "was changed, or something else wrote it: take it from its origin."
        ) from error
