"""The merged form of PRUNE: constraints by loops, the optimum by SLSQP, honest about failure."""

from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import linprog, minimize

from expunge.methods.prune import merging
from expunge.methods.prune.merging import Asked, Held, merge

RHO = 0.1
FLOOR = 0.3


def _problem(seed=0, *, retained=120, features=8, classes=4, records=2, noise=0.7):
    """Clusters around class means, a head of float32 values, records with targets drawn near."""
    rng = np.random.default_rng(seed)
    means = 1.5 * rng.normal(size=(classes, features))
    y = rng.integers(0, classes, retained + records)
    h = means[y] + noise * rng.normal(size=(len(y), features))
    rows = np.c_[h, np.ones(len(y))].astype(np.float32).astype(np.float64)
    head = np.c_[means, -0.5 * (means**2).sum(1)].astype(np.float32).astype(np.float64)
    targets = rows[:records] @ head.T + 1.5 * rng.normal(size=(records, classes))
    tensors = [head, rows[:records], y[:records], targets, rows[records:], y[records:]]
    names = ["head", "records", "labels", "targets", "retained", "retained_labels"]
    return dict(zip(names, map(torch.from_numpy, tensors), strict=True))


def _asked(problem):
    return Asked(rows=problem["records"], labels=problem["labels"], targets=problem["targets"])


def _merge(problem, *, has_bias=True, metric=None, floor=FLOOR, seconds=60.0):
    """What `merge` returns, with the programmes solved, retained cuts in the last, and who fits."""
    sizes, solve = [], merging._solve

    def counted(cuts, classes, left):
        change = solve(cuts, classes, left)
        if change is not None:
            sizes.append(len(cuts.own))
        return change

    columns = problem["head"].shape[1]
    with patch.object(merging, "_solve", counted):
        found = merge(
            problem["head"],
            _asked(problem),
            Held(rows=problem["retained"], labels=problem["retained_labels"]),
            metric=torch.eye(columns, dtype=torch.float64) if metric is None else metric,
            free=columns if has_bias else columns - 1,
            tolerance=RHO,
            floor=floor,
            seconds=seconds,
        )
    margins = (
        min(_to_each(found.matrix, row, y).values())
        for row, y in zip(problem["records"], problem["labels"].tolist(), strict=True)
    )
    fits = [bool(sizes) and abs(m - _wanted(problem, i)) <= RHO for i, m in enumerate(margins)]
    return SimpleNamespace(
        matrix=found.matrix,
        finished=found.finished,
        seconds=found.seconds,
        rounds=len(sizes),
        cuts=sizes[-1] - sizes[0] if sizes else 0,
        fits=torch.tensor(fits, dtype=torch.bool),
    )


def _gram(problem):
    return problem["retained"].T @ problem["retained"] / len(problem["retained"])


def _to_each(matrix, row, label):
    """The margin of one row to every other class, by a loop."""
    logits = [sum(float(a) * float(x) for a, x in zip(w, row, strict=True)) for w in matrix]
    return {j: logits[label] - value for j, value in enumerate(logits) if j != label}


def _wanted(problem, record):
    target, y = problem["targets"][record].tolist(), int(problem["labels"][record])
    return target[y] - max(value for j, value in enumerate(target) if j != y)


def _old_margins(problem):
    rows = zip(problem["retained"], problem["retained_labels"].tolist(), strict=True)
    return [_to_each(problem["head"], row, y) for row, y in rows]


# --- the law -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 6])
@pytest.mark.parametrize("has_bias", [True, False])
def test_every_constraint_holds_by_brute_force(seed, has_bias):
    problem = _problem(seed, retained=2000, noise=0.9)
    merged = _merge(problem, has_bias=has_bias, metric=_gram(problem))
    assert merged.finished
    assert merged.rounds > 1
    assert merged.fits.all()
    for i, (row, y) in enumerate(zip(problem["records"], problem["labels"].tolist(), strict=True)):
        margin = min(_to_each(merged.matrix, row, y).values())
        assert abs(margin - _wanted(problem, i)) <= RHO
    old = _old_margins(problem)
    protected = 0
    for i, y in enumerate(problem["retained_labels"].tolist()):
        if min(old[i].values()) <= 0:
            continue
        new = _to_each(merged.matrix, problem["retained"][i], y)
        for j, before in old[i].items():
            assert new[j] >= min(before, FLOOR) - 2e-4
            protected += before < FLOOR
    assert protected > 0  # some margins were below the floor already and may not fall at all


def test_the_edit_survives_float32():
    problem = _problem(1)
    merged = _merge(problem)
    assert torch.equal(merged.matrix.float().double(), merged.matrix)
    logits = problem["records"].float() @ merged.matrix.float().T
    for i, y in enumerate(problem["labels"].tolist()):
        others = [float(logits[i, y] - logits[i, j]) for j in range(4) if j != y]
        assert abs(min(others) - _wanted(problem, i)) <= RHO


def test_a_target_that_is_wrong_makes_the_record_wrong():
    problem = _problem(2, retained=40, noise=0.5)
    logits = problem["records"] @ problem["head"].T
    runner_up = logits.topk(2, dim=1).indices[:, 1]
    problem["targets"] = torch.zeros(2, 4, dtype=torch.float64)
    problem["targets"][torch.arange(2), runner_up] = 0.4
    merged = _merge(problem, floor=0.0)
    assert merged.fits.all()
    assert torch.equal((problem["records"] @ merged.matrix.T).argmax(1), runner_up)


def test_without_a_bias_its_column_is_untouched():
    problem = _problem(3)
    problem["head"][:, -1] = 0.1  # no float32 value
    merged = _merge(problem, has_bias=False)
    assert torch.equal(merged.matrix[:, -1], problem["head"][:, -1])
    assert not torch.equal(merged.matrix[:, :-1], problem["head"][:, :-1])
    assert not torch.equal(_merge(problem).matrix[:, -1], problem["head"][:, -1])


def test_rows_that_were_wrong_are_free():
    problem = _problem(1, retained=2000, noise=0.9)
    was_wrong = torch.tensor([min(old.values()) <= 0 for old in _old_margins(problem)])
    assert was_wrong.any()
    rest = dict(problem)
    for name in ("retained", "retained_labels"):
        rest[name] = problem[name][~was_wrong]
    assert torch.equal(_merge(problem).matrix, _merge(rest).matrix)


def test_no_records_leave_the_head_as_it_is():
    problem = _problem(0, records=0)
    merged = _merge(problem)
    assert merged.finished
    assert torch.equal(merged.matrix, problem["head"])
    assert (merged.rounds, merged.cuts, len(merged.fits)) == (0, 0, 0)


def test_nothing_retained_is_one_round():
    merged = _merge(_problem(0, retained=0))
    assert merged.finished
    assert merged.fits.all()
    assert (merged.rounds, merged.cuts) == (1, 0)


def test_same_bytes_twice():
    problem = _problem(1, retained=2000, records=4)
    first, second = (_merge(problem, metric=_gram(problem)) for _ in range(2))
    assert first.matrix.numpy().tobytes() == second.matrix.numpy().tobytes()
    assert (first.rounds, first.cuts) == (second.rounds, second.cuts)


def test_what_was_given_is_not_changed():
    problem = _problem(1)
    before = {name: value.clone() for name, value in problem.items()}
    _merge(problem)
    assert all(torch.equal(problem[name], before[name]) for name in before)


# --- the reference -------------------------------------------------------------------------------


def _hard_constraints(problem):
    """G, g of the same constraints without slack, G vec(Δ) ≥ g, written row by row."""
    A = problem["head"].numpy()
    G, g = [], []

    def at_least(row, y, j, bound):
        gradient = np.zeros(A.shape)
        gradient[y], gradient[j] = row, -row
        G.append(gradient.ravel())
        g.append(bound - (A[y] - A[j]) @ row)

    for i, (row, y) in enumerate(
        zip(problem["records"].numpy(), problem["labels"].tolist(), strict=True)
    ):
        target = problem["targets"][i].tolist()
        others = [j for j in range(len(A)) if j != y]
        sums = np.abs(A) @ np.abs(row)
        room = RHO - 2 * (len(row) + 2) * 2.0**-24 * (sums[y] + max(sums))
        for j in others:
            at_least(row, y, j, _wanted(problem, i) - room)
        runner_up = max(others, key=lambda j, t=target: t[j])
        at_least(-row, y, runner_up, -_wanted(problem, i) - room)
    for row, y, old in zip(
        problem["retained"].numpy(),
        problem["retained_labels"].tolist(),
        _old_margins(problem),
        strict=True,
    ):
        if min(old.values()) > 0:
            for j, before in old.items():
                at_least(row, y, j, min(before, FLOOR))
    return np.array(G), np.array(g)


@pytest.mark.parametrize("seed", [0, 2, 3, 7])
@pytest.mark.parametrize("measured", [False, True])
def test_a_tiny_problem_equals_slsqp(seed, measured):
    problem = _problem(seed, retained=15, features=3, classes=3)
    metric = _gram(problem) if measured else torch.eye(4, dtype=torch.float64)
    A = problem["head"].numpy()
    ridge = 1e-6 * np.trace(metric.numpy()) / 4
    H = np.kron(np.eye(3), metric.numpy() + ridge * np.eye(4))
    G, g = _hard_constraints(problem)
    found = minimize(
        lambda x: 0.5 * x @ H @ x,
        np.zeros(A.size),
        jac=lambda x: H @ x,
        constraints={"type": "ineq", "fun": lambda x: G @ x - g, "jac": lambda x: G},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert (G @ found.x - g).min() > -1e-8
    assert np.abs(found.x).max() > 0.01
    merged = _merge(problem, metric=metric if measured else None)
    np.testing.assert_allclose(merged.matrix, A + found.x.reshape(A.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_an_impossible_problem_breaks_constraints_by_as_little_as_a_linear_programme(seed):
    problem = _problem(seed, retained=2000, noise=0.9, records=3)
    G, g = _hard_constraints(problem)
    rows, size = G.shape
    least = linprog(
        np.repeat([0.0, 1.0], [size, rows]),
        A_ub=sparse.hstack([sparse.csr_array(-G), -sparse.eye_array(rows)]),
        b_ub=-g,
        bounds=[(None, None)] * size + [(0.0, None)] * rows,
    )
    assert least.fun > 0.05
    merged = _merge(problem)
    assert merged.finished
    change = (merged.matrix - problem["head"]).numpy().ravel()
    broken = np.maximum(g - G @ change, 0.0).sum()
    assert broken == pytest.approx(least.fun, rel=1e-3)


# --- the effect ----------------------------------------------------------------------------------


def test_many_retained_rows_keep_their_floors_by_a_few_cuts():
    problem = _problem(11, retained=5000, records=3, noise=0.8)
    merged = _merge(problem, metric=_gram(problem))
    assert merged.finished
    assert merged.fits.all()
    assert merged.rounds > 1
    assert 0 < merged.cuts < 1000
    own = problem["retained_labels"][:, None]

    def margins(matrix):
        logits = problem["retained"] @ matrix.T
        return (logits.gather(1, own) - logits).scatter(1, own, 1e9)

    old, new = margins(problem["head"]), margins(merged.matrix)
    right = old.amin(1) > 0
    assert (new >= old.clamp_max(FLOOR) - 2e-4)[right].all()


def test_the_gram_matrix_as_metric_moves_retained_logits_least():
    problem = _problem(1)
    moved = []
    for metric in (None, _gram(problem)):
        change = _merge(problem, metric=metric).matrix - problem["head"]
        moved.append(float((problem["retained"] @ change.T).square().sum()))
    assert moved[1] < 0.9 * moved[0]


# --- what cannot be had --------------------------------------------------------------------------


def test_an_impossible_pair_does_not_spoil_the_others():
    problem = _problem(2, records=4, noise=0.5)
    problem["records"][1] = problem["records"][0]
    problem["labels"][1] = problem["labels"][0]
    logits = problem["head"] @ problem["records"][0]
    for record, shift in ((0, 1.0), (1, -1.0)):
        problem["targets"][record] = logits
        problem["targets"][record, problem["labels"][0]] += shift
    merged = _merge(problem)
    assert merged.finished
    assert merged.fits.tolist() == [False, False, True, True]


def test_a_record_that_is_also_retained_does_not_fit_or_costs_that_row():
    problem = _problem(2, noise=0.5)
    problem["retained"] = torch.cat([problem["retained"], problem["records"][:1].repeat(3, 1)])
    problem["retained_labels"] = torch.cat(
        [problem["retained_labels"], problem["labels"][:1].repeat(3)]
    )
    problem["targets"][0] = 0.0
    problem["targets"][0, problem["labels"][0]] = -1.0
    merged = _merge(problem)
    assert merged.finished
    assert merged.fits.tolist() == [False, True]


def test_no_time_is_no_edit():
    problem = _problem(0)
    merged = _merge(problem, seconds=0.0)
    assert not merged.finished
    assert not merged.fits.any()
    assert merged.rounds == 0
    assert torch.equal(merged.matrix, problem["head"])
    assert merged.seconds < 1.0


def test_when_the_time_ends_the_last_programme_counts(monkeypatch):
    problem = _problem(11, retained=5000, records=3, noise=0.8)
    solve, calls = merging._solve, []

    def once(cuts, classes, seconds):
        calls.append(seconds)
        return solve(cuts, classes, seconds) if len(calls) == 1 else None

    monkeypatch.setattr(merging, "_solve", once)
    merged = _merge(problem, seconds=60.0)
    assert not merged.finished
    assert (merged.rounds, merged.cuts) == (1, 0)
    assert merged.fits.all()
    assert 60.0 >= calls[0] > calls[1] > 0.0  # each solve is given what is left


def test_the_solver_keeps_to_its_time():
    problem = _problem(0, retained=0)
    margins = merging._margins(problem["records"] @ problem["head"].T, problem["labels"])
    room = torch.full((2,), RHO, dtype=torch.float64)
    cuts = merging._record_cuts(problem["records"], _asked(problem), margins, room)
    assert merging._solve(cuts, 4, 60.0) is not None
    assert merging._solve(cuts, 4, 1e-9) is None
