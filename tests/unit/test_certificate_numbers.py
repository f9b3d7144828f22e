"""Bounds and exact arithmetic against brute force: fractions, and float32 in random orders."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from certificate_toys import salt
from hypothesis import given
from hypothesis import strategies as st

from expunge.certificate.bounds import (
    UNIT_ROUNDOFF,
    gates_enclosure,
    logits_enclosure,
    shut_rows,
)
from expunge.certificate.bundle import PrivateEntangled, PrivateRecord, Witness
from expunge.certificate.claims import by_bound, entangled_claim, gates_claim, records_claim
from expunge.certificate.exact import fraction, prepare, scaled
from expunge.certificate.layers import Network, Stage

SEEDS = st.integers(0, 2**32 - 1)


def floats(rng, shape, spread):
    """Float32 numbers whose exponents are spread over 2 · spread binades; some zeros."""
    found = rng.standard_normal(shape) * 2.0 ** rng.integers(-spread, spread + 1, shape)
    return np.where(rng.random(shape) < 0.1, 0, found).astype(np.float32)


def network(rng, *, spread=2):
    features, depth = int(rng.integers(1, 6)), int(rng.integers(0, 3))
    stages, size = [], features
    for _ in range(depth):
        wide = int(rng.integers(1, 6))
        bias = floats(rng, wide, spread) if rng.random() < 0.5 else np.zeros(wide, np.float32)
        stages.append(Stage(weight=floats(rng, (wide, size), spread), bias=bias))
        stages.append(Stage(weight=None, bias=None))
        size = wide
    gates, classes = int(rng.integers(0, 5)), int(rng.integers(2, 5))
    return Network(
        features=features,
        stages=tuple(stages),
        weight=floats(rng, (classes, size), spread),
        bias=floats(rng, classes, spread),
        gate_weight=floats(rng, (gates, size), spread),
        gate_bias=floats(rng, gates, spread),
        shift=floats(rng, (classes, gates), spread),
    )


def brute(net, row):
    """Gates and logits in `fractions.Fraction`, element by element."""

    def linear(weight, bias, x):
        return [
            sum((Fraction(float(a)) * b for a, b in zip(w, x, strict=True)), Fraction(float(c)))
            for w, c in zip(weight, bias, strict=True)
        ]

    x = [Fraction(float(v)) for v in row]
    for stage in net.stages:
        if stage.weight is None:
            x = [max(v, Fraction(0)) for v in x]
        else:
            x = linear(stage.weight, stage.bias, x)
    gates = linear(net.gate_weight, net.gate_bias, x)
    opened = [min(max(g, Fraction(0)), Fraction(1)) for g in gates]
    logits = linear(net.weight, net.bias, x)
    return gates, [
        value + sum((Fraction(float(d)) * g for d, g in zip(row, opened, strict=True)), Fraction(0))
        for value, row in zip(logits, net.shift, strict=True)
    ]


def shuffled_sum(rng, terms):
    """A float32 sum in a random order along a random tree."""
    terms = [np.float32(t) for t in terms]
    while len(terms) > 1:
        i = int(rng.integers(len(terms)))
        a = terms.pop(i)
        j = int(rng.integers(len(terms)))
        b = terms.pop(j)
        terms.append(a + b)
    return terms[0] if terms else np.float32(0)


def deployed(rng, net, row):
    """The network in float32, each sum in a random order of its own."""

    def linear(weight, bias, x):
        out = []
        for w, c in zip(weight, bias, strict=True):
            products = [np.float32(a * b) for a, b in zip(w, x, strict=True)]
            out.append(shuffled_sum(rng, [*products, c]))
        return np.array(out, np.float32)

    x = row
    for stage in net.stages:
        x = np.maximum(x, 0) if stage.weight is None else linear(stage.weight, stage.bias, x)
    gates = linear(net.gate_weight, net.gate_bias, x)
    opened = np.clip(gates, 0, 1)
    shift = linear(net.shift, np.zeros(len(net.shift), np.float32), opened)
    return gates, linear(net.weight, net.bias, x) + shift


def inside(numbers, values, errors):
    return all(
        abs(Fraction(x) - Fraction(float(v))) <= Fraction(float(e))
        for x, v, e in zip(numbers, values, errors, strict=True)
    )


@given(SEEDS, st.sampled_from([0, 2, 20, 60]))
def test_exact_evaluation_is_that_of_fractions(seed, spread):
    rng = np.random.default_rng(seed)
    net = network(rng, spread=spread)
    rows = floats(rng, (3, net.features), spread)
    found = prepare(net)(rows)
    for i, row in enumerate(rows):
        gates, logits = brute(net, row)
        assert [fraction(n, found.gates.exponent) for n in found.gates.integers[i]] == gates
        assert [fraction(n, found.logits.exponent) for n in found.logits.integers[i]] == logits


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=0, max_size=6))
def test_scaled_numbers_are_exact(values):
    found = scaled(np.array(values, dtype=np.float64))
    assert [fraction(n, found.exponent) for n in found.integers] == [Fraction(v) for v in values]


@given(SEEDS, st.sampled_from([0, 2, 10]))
def test_enclosure_holds_for_float32_in_every_order_and_for_real_numbers(seed, spread):
    rng = np.random.default_rng(seed)
    net = network(rng, spread=spread)
    rows = floats(rng, (3, net.features), spread)
    found, own = (
        (*gates_enclosure(net, rows, roundoff=unit), *logits_enclosure(net, rows, roundoff=unit))
        for unit in (UNIT_ROUNDOFF, 0.0)
    )
    assert (own[3] <= found[3]).all()
    for i, row in enumerate(rows):
        gates, logits = brute(net, row)
        for wide in (found, own):
            assert inside(gates, wide[0][i], wide[1][i])
            assert inside(logits, wide[2][i], wide[3][i])
        for _ in range(4):
            gates, logits = deployed(rng, net, row)
            assert inside(map(float, gates), found[0][i], found[1][i])
            assert inside(map(float, logits), found[2][i], found[3][i])


@given(SEEDS)
def test_enclosure_holds_for_torch_in_float32(seed):
    rng = np.random.default_rng(seed)
    net = network(rng)
    rows = floats(rng, (5, net.features), 2)
    x = torch.from_numpy(rows)
    for stage in net.stages:
        if stage.weight is None:
            x = x.relu()
        else:
            x = torch.nn.functional.linear(
                x, torch.from_numpy(stage.weight), torch.from_numpy(stage.bias)
            )
    gates = torch.addmm(torch.from_numpy(net.gate_bias), x, torch.from_numpy(net.gate_weight).T)
    logits = torch.addmm(torch.from_numpy(net.bias), x, torch.from_numpy(net.weight).T)
    logits = torch.addmm(logits, gates.clamp(0, 1), torch.from_numpy(net.shift).T)
    scores, score_errors = gates_enclosure(net, rows)
    values, errors = logits_enclosure(net, rows)
    for i in range(len(rows)):
        assert inside(gates[i].tolist(), scores[i], score_errors[i])
        assert inside(logits[i].tolist(), values[i], errors[i])


def test_shut_rows_are_those_whose_every_gate_is_enclosed_below_zero():
    rng = np.random.default_rng(4)
    net = network(rng)
    rows = floats(rng, (9, net.features), 2)
    values, errors = gates_enclosure(net, rows)
    shut = (values + errors <= 0).all(axis=1)
    np.testing.assert_array_equal(shut_rows(net, rows), shut)


def plain(weight, gate_weight=None, gate_bias=None, shift=None):
    weight = np.array(weight, np.float32)
    classes, size = weight.shape
    given = gate_weight is not None
    return Network(
        features=size,
        stages=(),
        weight=weight,
        bias=np.zeros(classes, np.float32),
        gate_weight=np.array(gate_weight if given else np.zeros((0, size)), np.float32),
        gate_bias=np.array(gate_bias if given else [], np.float32),
        shift=np.array(shift if given else np.zeros((classes, 0)), np.float32),
    )


def test_what_could_overflow_in_float32_has_no_bound():
    net = plain([[1e38, 1e38]] * 2)
    rows = np.array([[3, -3], [1e-3, 0]], np.float32)
    errors = logits_enclosure(net, rows)[1]
    assert np.isinf(errors[0]).all()
    assert np.isfinite(errors[1]).all()
    assert np.isfinite(logits_enclosure(net, rows, roundoff=0.0)[1]).all()
    assert records_claim(net, [entry(0, "mispredict", None, 1.0)], rows[:1], 0).status == "refuted"


def test_shut_gates_add_no_rounding_at_all():
    net = plain([[1, 2]] * 2, gate_weight=[[1, 0]], gate_bias=[-9], shift=[[5], [5]])
    bare = plain([[1, 2]] * 2)
    rows = np.array([[1, 1]], np.float32)
    for got, wanted in zip(logits_enclosure(net, rows), logits_enclosure(bare, rows), strict=True):
        np.testing.assert_array_equal(got, wanted)


def entry(label, claim, target, bound):
    return PrivateRecord(
        id="x",
        label=label,
        salt=salt("x"),
        index=0,
        claim=claim,
        target=None if target is None else tuple(float(t).hex() for t in target),
        bound=float(bound).hex(),
        request=0,
    )


def holds(record, logits):
    """The claim of a record for exact logits, as the page writes it."""
    bound = Fraction(float.fromhex(record.bound))
    y = record.label

    def margin(values):
        return values[y] - max(v for j, v in enumerate(values) if j != y)

    if record.claim == "mispredict":
        return max(v for j, v in enumerate(logits) if j != y) - logits[y] >= bound
    target = [Fraction(float.fromhex(t)) for t in record.target]
    if record.claim == "unseen":
        return max(abs(a - b) for a, b in zip(logits, target, strict=True)) <= bound
    return abs(margin(logits) - margin(target)) <= bound


@given(SEEDS, st.sampled_from(["unseen", "margin", "mispredict"]), st.floats(-9, 1))
def test_the_checker_never_accepts_what_fractions_refute(seed, claim, digits):
    rng = np.random.default_rng(seed)
    net = network(rng, spread=1)
    row = floats(rng, (1, net.features), 1)
    _, logits = brute(net, row[0])
    near = 10.0**digits
    label = int(rng.integers(len(logits)))
    target = [float(v) + near * rng.uniform(-1.2, 1.2) for v in logits]
    bound = near
    if claim == "mispredict":
        others = max(v for j, v in enumerate(logits) if j != label)
        bound = max(abs(float(others - logits[label])) + near * rng.uniform(-1, 1), 1e-300)
        target = None
    record = entry(label, claim, target, bound)
    values, errors = logits_enclosure(net, row)
    truth, status = holds(record, logits), records_claim(net, [record], row, 0).status
    decided = by_bound(record, values[0], errors[0])
    assert decided in (truth, None)
    gates, radii = gates_enclosure(net, row)
    if len(net.gate_bias) and claim != "margin" and (gates + radii <= 0).all():
        assert status == "refuted"  # a record that no gate serves
        return
    assert (
        status
        == {True: "verified", False: "refuted", None: "not checked"}[decided if truth else False]
    )
    for _ in range(3):
        _, ran = deployed(rng, net, row[0])
        if status == "verified":
            assert holds(record, [Fraction(float(v)) for v in ran])


@given(SEEDS, st.sampled_from([0.0, 1e-8, 1e-3]))
def test_gates_are_never_accepted_where_fractions_see_one_open(seed, above):
    rng = np.random.default_rng(seed)
    net = network(rng, spread=1)
    rows = floats(rng, (4, net.features), 1)
    highest = [max(brute(net, row)[0], default=Fraction(0)) for row in rows]
    if len(net.gate_bias) and rng.random() < 0.7:  # lower the thresholds until about all is shut
        lowered = net.gate_bias - np.float32(float(max(highest)) + above * rng.choice([-1, 1]))
        fields = {name: getattr(net, name) for name in Network.__slots__}
        net = Network(**{**fields, "gate_bias": lowered.astype(np.float32)})
        highest = [max(brute(net, row)[0]) for row in rows]
    status = gates_claim(net, rows, 0).status
    assert (status == "refuted") == (max(highest) > 0)
    if status == "verified":
        assert all((deployed(rng, net, row)[0] <= 0).all() for row in rows)


def test_a_gate_within_rounding_is_neither_proven_nor_refuted():
    net = plain([[1, 1]] * 2, gate_weight=[[1, 1]], gate_bias=[-2], shift=[[1], [1]])
    rows = np.array([[1, 1], [0, 0]], np.float32)
    found = gates_claim(net, rows, 0)
    assert found.status == "not checked"
    assert "closer than float32 rounding" in found.detail
    rows[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert gates_claim(net, rows, 0).status == "refuted"


def test_above_a_thousand_records_a_seeded_thousand_is_exact_and_said_so():
    net = plain(np.eye(2))
    rows = np.zeros((1100, 2), np.float32)
    records = [entry(0, "unseen", [0, 0], 1.0)] * 1100
    found = records_claim(net, records, rows, 5)
    assert found.status == "verified"
    assert "1,000 of them, drawn by the certificate's digest" in found.detail


def test_a_mistake_in_the_float_bound_would_be_seen(monkeypatch):
    from expunge.certificate import claims

    net = plain(np.eye(2))
    rows = np.ones((1, 2), np.float32)
    true = claims.logits_enclosure

    def wrong(network, rows, **options):
        values, errors = true(network, rows, **options)
        return values + 1e-6, errors

    monkeypatch.setattr(claims, "logits_enclosure", wrong)
    found = records_claim(net, [entry(0, "unseen", [1, 1], 0.5)], rows, 0)
    assert found.status == "refuted"
    assert "disagree" in found.detail


RETAINED = np.array([[0, 0], [1, 0], [0, 1], [8, 8]], np.float32)


def witnessed(row, reason="hull", rows=(1, 2), weights=(1.0, 1.0), residual=0.0, through=None):
    opening = PrivateEntangled(id="x", label=0, salt=salt("x"), index=0, reason=reason)
    witness = Witness(
        rows=rows, weights=tuple(w.hex() for w in weights), residual=float(residual).hex()
    )
    rows = np.array([row], np.float32)
    through = through or plain(np.eye(2))
    return entangled_claim(through, [opening], [witness], rows, RETAINED)


def test_witnesses_are_checked_as_rationals():
    assert witnessed([0.5, 0.5]).status == "verified"
    assert witnessed([0.25, 0.75], weights=(1.0, 3.0)).status == "verified"
    third = witnessed([1 / 3, 1 / 3], rows=(0, 1, 2), weights=(1.0, 1.0, 1.0), residual=2e-8)
    assert third.status == "verified"
    assert witnessed([1, 0], "identical", (1,), (1.0,)).status == "verified"
    assert witnessed([1, 0], "rounding", (), ()).status == "verified"


def test_witnesses_are_means_where_the_gates_look():
    fold = np.array([[1, 1], [-1, -1]], np.float32)  # both inputs of a sum look the same
    stages = (Stage(weight=fold, bias=np.zeros(2, np.float32)), Stage(weight=None, bias=None))
    fields = {name: getattr(plain(np.eye(2)), name) for name in Network.__slots__}
    folded = Network(**{**fields, "stages": stages})
    assert witnessed([0.25, 0.75], rows=(1, 2)).status == "refuted"
    assert witnessed([0.25, 0.75], rows=(1, 2), through=folded).status == "verified"
    alike = witnessed([0.25, 0.75], "identical", (1,), (1.0,), through=folded)
    assert alike.status == "verified"
    assert witnessed([0.5, 0.75], rows=(1, 2), through=folded).status == "refuted"


@pytest.mark.parametrize(
    ("row", "changes", "detail"),
    [
        ([0.5, 0.5001], {}, "farther"),
        ([1 / 3, 1 / 3], {"rows": (0, 1, 2), "weights": (1.0, 1.0, 1.0)}, "farther"),
        ([0.5, 0.5], {"rows": (1, 9)}, "not there"),
        ([0.5, 0.5], {"weights": (1.0, -1.0)}, "not those of a mean"),
        ([0.5, 0.5], {"weights": (0.0, 0.0)}, "not those of a mean"),
        ([0.5, 0.5], {"weights": (1.0,)}, "do not go together"),
        ([0.5, 0.5], {"rows": (), "weights": ()}, "do not go together"),
        ([5, 5], {"residual": 9.0}, "shows nothing"),
        ([0.5, 0.5], {"residual": -1.0}, "shows nothing"),
        ([0.5, 0.5], {"reason": "identical"}, "not identical"),
    ],
)
def test_witnesses_that_show_nothing_are_refuted(row, changes, detail):
    found = witnessed(row, **changes)
    assert found.status == "refuted"
    assert detail in found.detail
