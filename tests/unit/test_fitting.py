"""Gates with slack beyond rounding; who shares one, who gets none, and the witness for it."""

import pytest
import torch

from expunge.methods.prune.fitting import fit_gates
from expunge.methods.prune.twins import Twins

EACH = 2.0**-20
"""A difference in the last bits of a feature near 1."""


def _kept(n=400, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _far(n=1, d=6):
    """Records that the closed form separates: far out, each on an axis of its own."""
    return 9.0 * torch.eye(d)[:n]


def _fit(records, kept, *, labels=None, twins=None, past=None):
    alone = Twins(tuple([i] for i in range(len(records))), {})
    return fit_gates(
        records,
        torch.zeros(len(records), dtype=torch.int64) if labels is None else torch.tensor(labels),
        kept,
        torch.zeros(0, records.shape[1]) if past is None else past,
        twins or alone,
        ridge=1e-3,
        nearest=50,
        report=lambda *_: None,
    )


def _checked(found, records, kept):
    """Every witness, as a checker would see it."""
    for e in found.entangled:
        if e.reason == "rounding":
            assert len(e.rows) == 0
            continue
        mean = (e.weights / e.weights.sum()) @ kept[e.rows].double()
        if e.reason == "hull":
            apart = float((mean - records[e.position].double()).abs().max())
            assert apart <= e.residual <= 2.0**-12 * float(records[e.position].abs().max())
    return {e.position: e for e in found.entangled}


def test_no_gate_opens_without_slack():
    """Hulls, near misses and far rows: whatever is accepted is open and shut beyond rounding."""
    kept = _kept(500)
    near = 1e-6 + kept[:5]
    records = torch.cat([_kept(30, seed=1), near])
    found = _fit(records, kept)
    served = {i for group in found.served for i in group}
    left = _checked(found, records, kept)
    assert served | set(left) == set(range(35))
    assert not served & set(left)
    for order in (torch.arange(6), torch.arange(6).flip(0)):  # any order of summation
        u, c = found.u[:, order], found.c
        shut = kept[:, order] @ u.T + c
        assert bool((shut <= 0).all())
        for p, (i, *_rest) in enumerate(found.served):
            assert float(records[i, order] @ u[p] + c[p]) >= 1
    assert all(e.residual < 1e-5 for e in left.values())


def test_equal_content_shares_the_gate_of_the_first():
    """Read in two batches, the features of one input differ in the last bits."""
    record = _far(1)
    records = torch.cat([record, _far(2)[1:], record * (1 + EACH)])
    found = _fit(records, _kept(), twins=Twins(([0, 2], [1]), {}))
    assert found.served == [[0, 2], [1]]
    assert torch.equal(found.u[:1], _fit(record, _kept()).u)


def test_equal_features_share_a_gate_though_the_content_differs():
    records = torch.cat([_far(2), _far(1)])
    assert _fit(records, _kept()).served == [[0, 2], [1]]


@pytest.mark.parametrize("shift", [0.0, EACH])
def test_a_twin_that_stays_is_named_whatever_its_features(shift):
    kept = _kept()
    kept[:50] = 2.0  # as many look-alikes as there may be
    records = torch.cat([kept[[40]] * (1 + shift), kept[[40]], _far(1)])
    found = _fit(records, kept, twins=Twins(([0, 1], [2]), {0: 40, 1: 40}))
    left = _checked(found, records, kept)
    assert [(e.reason, e.rows.tolist()) for e in left.values()] == [("identical", [40])] * 2
    assert found.served == [[2]]


def test_features_equal_to_a_row_that_stays_are_its_mean():
    kept = _kept()
    kept[7] = _far(1)
    found = _fit(_far(2), kept)
    (left,) = found.entangled
    assert (left.reason, left.rows.tolist(), left.weights.tolist()) == ("hull", [7], [1.0])
    assert left.residual == 0.0
    assert found.served == [[1]]


def test_features_equal_up_to_the_last_bits_have_a_witness():
    kept = _kept()
    kept[7] = _far(1)
    records = torch.cat([_far(1) * (1 + EACH), _far(1) * (1 + 2 * EACH)])
    found = _fit(records, kept, twins=Twins(([0, 1],), {}))
    left = _checked(found, records, kept)
    assert [(e.reason, e.rows.tolist()) for e in left.values()] == [("hull", [7])] * 2
    assert left[0].residual < left[1].residual


def test_where_all_features_are_equal_the_witness_is_one_row():
    kept = torch.full((30, 6), 0.3)
    found = _fit(kept[:3].clone(), kept, labels=[0, 1, 2])
    assert {(e.reason, len(e.rows), e.residual) for e in found.entangled} == {("hull", 1, 0.0)}


def test_dead_features_have_a_witness_too():
    kept = torch.zeros(30, 6)
    found = _fit(torch.zeros(1, 6), kept)
    assert [(e.reason, len(e.rows), e.residual) for e in found.entangled] == [("hull", 1, 0.0)]


def test_equal_features_with_two_labels_get_no_gate():
    records = torch.cat([_far(2), _far(1)])
    found = _fit(records, _kept(), labels=[0, 0, 1])
    assert {e.position: e.reason for e in found.entangled} == {0: "rounding", 2: "rounding"}
    assert found.served == [[1]]


def test_a_record_of_an_earlier_request_is_no_witness():
    found = _fit(_far(2), _kept(), past=_far(1))
    (left,) = found.entangled
    assert (left.position, left.reason, len(left.rows)) == (0, "rounding", 0)
