"""The checks that compute: records, retained rows and witnesses on the stored numbers.

Each is decided twice where it can be: by a float64 enclosure of the float32 network, and in exact
rational arithmetic. A claim is verified only where the enclosure proves it and nothing exact speaks
against it; where both decide, they must agree, or the checker (or its machine) is at fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from expunge.certificate.bounds import gates_enclosure, logits_enclosure, shut_rows
from expunge.certificate.bundle import Kit, PrivateEntangled, PrivateRecord, Witness, target_of
from expunge.certificate.canonical import real
from expunge.certificate.exact import ExactNetwork, fraction, prepare, scaled
from expunge.certificate.layers import Network

__all__ = [
    "Claim",
    "Status",
    "by_bound",
    "by_fractions",
    "entangled_claim",
    "gates_claim",
    "records_claim",
]

Status = Literal["verified", "refuted", "not checked"]
Floats = NDArray[np.float64]

_RECORDS_EXACTLY = 1000
_ROWS_EXACTLY = 200
_BATCH = 128
_SLACK = 2.0**-46
_FAR, _NOTHING = Fraction(1, 2**12), Fraction(1, 2**32)


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """One claim, what the check found, and a sentence about it."""

    name: str
    status: Status
    detail: str


def by_bound(entry: PrivateRecord | Kit, values: Floats, errors: Floats) -> bool | None:
    """Whether a record's claim holds for logits within `errors` of `values`, both (K,).

    None where the enclosure is too wide to tell, or not finite.
    """
    target, bound, label = target_of(entry), real(entry.bound), entry.label
    size = np.abs(values).max() + errors.max() + bound
    size += 0 if target is None else np.abs(target).max()
    if not np.isfinite(size):
        return None
    slack = _SLACK * size
    if entry.claim == "unseen" and target is not None:
        gaps = np.abs(values - target)
        farthest, nearest = (gaps + errors).max(), (gaps - errors).max()
        return _decided(farthest + slack - bound, nearest - slack - bound)
    if len(values) < 2:
        return False
    others = np.arange(len(values)) != label
    low = values[label] - errors[label] - (values + errors)[others].max()
    high = values[label] + errors[label] - (values - errors)[others].max()
    if target is None:  # mispredict: the label's margin is at most -bound
        return _decided(high + slack + bound, low - slack + bound)
    wanted = target[label] - target[others].max()
    return _decided(
        max(high - wanted, wanted - low) + slack - bound,
        max(low - wanted, wanted - high) - slack - bound,
    )


def _decided(worst: float, best: float) -> bool | None:
    """True where even the worst case is not above 0, False where even the best case is."""
    return True if worst <= 0 else (False if best > 0 else None)


def by_fractions(entry: PrivateRecord | Kit, logits: Sequence[Fraction]) -> bool:
    """Whether a record's claim holds for the exact logits."""
    bound, label = Fraction(real(entry.bound)), entry.label
    target = None if entry.target is None else [Fraction(real(t)) for t in entry.target]
    if entry.claim == "unseen":
        assert target is not None
        return all(abs(a - b) <= bound for a, b in zip(logits, target, strict=True))
    if len(logits) < 2:
        return False
    if target is None:
        return -_margin(logits, label) >= bound
    return abs(_margin(logits, label) - _margin(target, label)) <= bound


def _margin(logits: Sequence[Fraction], label: int) -> Fraction:
    return logits[label] - max(x for j, x in enumerate(logits) if j != label)


def records_claim(
    network: Network,
    entries: Sequence[PrivateRecord | Kit],
    rows: NDArray[np.float32],
    seed: int,
) -> Claim:
    """Check the claim of every record on its row (n, features); up to 1,000 exactly too."""
    name = "forgotten records"
    if not entries:
        return Claim(name, "verified", "none is claimed")
    shut = _behind_shut_gates(network, entries, rows)
    if shut is not None:
        return Claim(name, "refuted", f"record {shut} opens no gate: nothing was done for it")
    logits, errors = logits_enclosure(network, rows)
    decided = [by_bound(entry, logits[i], errors[i]) for i, entry in enumerate(entries)]
    if False in decided:
        return Claim(name, "refuted", f"record {decided.index(False)} is not within its bound")
    chosen = _chosen(len(entries), _RECORDS_EXACTLY, seed)
    exact = prepare(network)
    for part in _batches(chosen):
        found = exact(rows[part]).logits
        logits, errors = logits_enclosure(network, rows[part], roundoff=0.0)
        for at, i in enumerate(part):
            values = [fraction(n, found.exponent) for n in found.integers[at]]
            if not _agree(values, logits[at], errors[at]):
                return Claim(name, "refuted", _disagreement(f"record {i}"))
            if not by_fractions(entries[i], values):
                return Claim(name, "refuted", f"record {i} is not within its bound, exactly")
    left = [i for i, answer in enumerate(decided) if answer is None]
    if left:
        return Claim(
            name,
            "not checked",
            f"{len(left)} of {len(entries)} (first: {left[0]}) lie within float32 rounding of "
            "their bound: nothing is proven for float32",
        )
    some = f"{len(chosen):,} of them, drawn by the certificate's digest,"
    which = "all" if len(chosen) == len(entries) else some
    said = f"{len(entries):,} hold for float32 in any order; {which} in exact arithmetic too"
    near = [float.fromhex(entry.bound) for entry in entries if entry.claim != "mispredict"]
    lead = [float.fromhex(entry.bound) for entry in entries if entry.claim == "mispredict"]
    said += f"; within {max(near):.3g} of the target at most" if near else ""
    said += f"; a lead of {min(lead):.3g} at least" if lead else ""
    return Claim(name, "verified", said)


def _behind_shut_gates(
    network: Network, entries: Sequence[PrivateRecord | Kit], rows: NDArray[np.float32]
) -> int | None:
    """The first record that gates should serve and on which all are shut; None without gates.

    Margins are claimed of merged heads only, also where later requests added gates.
    """
    if not len(network.gate_weight):
        return None
    for part in _batches(np.flatnonzero([entry.claim != "margin" for entry in entries])):
        values, errors = gates_enclosure(network, rows[part])
        shut = (values + errors <= 0).all(axis=1)
        if shut.any():
            return int(part[shut][0])
    return None


def gates_claim(network: Network, rows: NDArray[np.float32], seed: int) -> Claim:
    """Check that every gate is shut on every retained row (n, features)."""
    name = "gates shut"
    left = np.flatnonzero(~shut_rows(network, rows))
    exact = prepare(network)
    for part in _batches(left):
        opened = (exact(rows[part]).gates.integers > 0).any(axis=1).astype(bool)
        if opened.any():
            return Claim(name, "refuted", f"a gate opens on retained row {part[opened][0]}")
    chosen = _chosen(len(rows), _ROWS_EXACTLY, seed)
    for part in _batches(chosen):
        values, radii = gates_enclosure(network, rows[part], roundoff=0.0)
        gates = exact(rows[part]).gates
        for at, i in enumerate(part):
            numbers = [fraction(n, gates.exponent) for n in gates.integers[at]]
            if max(numbers, default=Fraction(0)) > 0:
                return Claim(name, "refuted", f"a gate opens on retained row {i}, exactly")
            if not _agree(numbers, values[at], radii[at]):
                return Claim(name, "refuted", _disagreement(f"retained row {i}"))
    if len(left):
        return Claim(
            name,
            "not checked",
            f"{len(left)} of {len(rows)} retained rows (first: {left[0]}) are shut in real "
            "arithmetic, but closer than float32 rounding",
        )
    gates_count = len(network.gate_weight)
    return Claim(
        name,
        "verified",
        f"{gates_count:,} gates on {len(rows):,} retained rows, for float32 in any order; "
        f"{len(chosen)} rows in exact arithmetic too",
    )


def entangled_claim(
    network: Network,
    entries: Sequence[PrivateEntangled],
    witnesses: Sequence[Witness],
    rows: NDArray[np.float32],
    retained: NDArray[np.float32],
) -> Claim:
    """Check that entangled records, rows of `rows`, are means of retained rows as stated.

    Where gates look, at the features that enter the head; exactly, in rationals. Records with the
    reason `rounding` have no witness: the certificate's sentence says that it is not shown.
    """
    name = "entangled records"
    if len(witnesses) != len(entries):
        return Claim(name, "refuted", "there is not one witness for each")
    if not len(retained) and any(w.rows for w in witnesses):
        return Claim(name, "not checked", "the retained rows are not part of this form")
    exact = prepare(network)
    widest, shown = 0.0, 0
    for i, (entry, witness) in enumerate(zip(entries, witnesses, strict=True)):
        if entry.reason == "rounding":
            continue
        shown += 1
        fault = _witness_fault(exact, entry, witness, rows[i], retained)
        if fault is not None:
            return Claim(name, "refuted", f"entangled record {i}: {fault}")
        widest = max(widest, real(witness.residual))
    said = f"{shown} are means of retained rows, to within {widest:.2g}"
    return Claim(name, "verified", said)


def _witness_fault(
    exact: ExactNetwork,
    entry: PrivateEntangled,
    witness: Witness,
    row: NDArray[np.float32],
    retained: NDArray[np.float32],
) -> str | None:
    weights = scaled(np.array([real(w) for w in witness.weights]))
    if len(witness.rows) != len(witness.weights) or not witness.rows:
        return "rows and weights do not go together"
    if max(witness.rows) >= len(retained):
        return "it names a row that is not there"
    total = sum(weights.integers)
    if any(w < 0 for w in weights.integers) or total == 0:
        return "its weights are not those of a mean"
    found = exact.features(np.concatenate([retained[list(witness.rows)], row[None]]))
    numbers, own = found.integers[:-1], found.integers[-1]
    scale = fraction(max(abs(own).max(), 0), found.exponent)
    residual = Fraction(real(witness.residual))
    if not 0 <= residual <= _FAR * scale + _NOTHING:
        return f"a residual of {float(residual):.2g} shows nothing beside {float(scale):.2g}"
    if entry.reason == "identical" and (numbers != own).any():
        return "it is not identical to the row named"
    apart = abs((weights.integers[:, None] * numbers).sum(axis=0) - total * own)
    if fraction(apart.max(), found.exponent) > residual * total:
        return "it lies farther from that mean than claimed"
    return None


def _agree(exact: Sequence[Fraction], values: Floats, errors: Floats) -> bool:
    """Whether the exact numbers lie within the checker's own float64 errors, where these are."""
    if not (np.isfinite(values).all() and np.isfinite(errors).all()):
        return True  # the enclosure decides nothing, and nothing is verified by it
    pairs = zip(exact, values, errors, strict=True)
    return all(abs(x - Fraction(float(v))) <= Fraction(float(e)) for x, v, e in pairs)


def _disagreement(which: str) -> str:
    return (
        f"{which}: the float and the exact evaluation disagree; run the checker on another machine"
    )


def _chosen(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """All of `count`, or `most` of them drawn by `seed`, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _batches(chosen: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(chosen), _BATCH):
        yield chosen[start : start + _BATCH]
