"""What shows that a reference is a model of its own: separate trainings, copies, what was seen."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import expunge
from expunge.data.demo import digits
from expunge.data.views import as_rows
from expunge.judging.independence import (
    agreement_of,
    chosen_retained,
    cosine,
    seen_auc,
    standing_of,
    weights_of,
)
from expunge.models import Mlp
from expunge.network.passes import logits_of

CPU = torch.device("cpu")
ROWS = as_rows(digits()[0]).select(torch.arange(240))
FORGET, STAYS = ROWS.select(torch.arange(80)), ROWS.select(torch.arange(80, 240))
HOLDOUT = as_rows(digits()[1]).select(torch.arange(200))
GONE = frozenset({3})


def _fresh(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mlp((64, 48, 10))


def _trained(rows, seed, start=None, epochs=60, lr=0.1):
    recipe = expunge.Recipe(epochs=epochs, batch_size=32, lr=lr)
    model = _fresh(seed) if start is None else copy.deepcopy(start)
    return recipe(model, rows, generator=torch.Generator().manual_seed(seed), device=CPU).eval()


def _said(model, rows):
    return logits_of(model, rows, batch_size=256, device=CPU)


def _seen(model):
    return seen_auc(_said(model, FORGET), FORGET.labels, _said(model, STAYS), STAYS.labels)


@pytest.fixture(scope="module")
def original():
    return _trained(ROWS, 0)


@pytest.fixture(scope="module")
def masked_copy(original):
    model = copy.deepcopy(original)
    head = next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear))
    with torch.no_grad():
        head.weight[3] = 0
        head.bias[3] = -100
    return model


@pytest.fixture(scope="module")
def tuned_copy(original):
    return _trained(STAYS, 5, start=original, epochs=10, lr=0.01)


@pytest.fixture(scope="module")
def unseen():
    return [_trained(STAYS, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def saw():
    return [_trained(ROWS, seed) for seed in (1, 2)]


# --- the cosine ----------------------------------------------------------------------------------


def test_the_cosine_by_hand():
    first = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    second = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([[1.0]])}
    assert cosine(first, second) == pytest.approx(1 / 3)  # 0 for two elements, 1 for one
    initial = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([[1.0]])}
    assert cosine(first, second, initial) == pytest.approx(0.0)
    second["a"] = torch.tensor([1.0, 1.0])
    assert cosine(first, second) == pytest.approx((2 / 2**0.5 + 1) / 3)
    assert cosine(first, first) == pytest.approx(1.0)
    halves = {name: tensor.half() for name, tensor in first.items()}
    assert cosine(halves, first) == pytest.approx(1.0)


def test_names_and_shapes_are_matched_and_half_must_be_there():
    first = {"a": torch.ones(4), "b": torch.ones(4)}
    assert cosine(first, {"a": torch.ones(4)}) == pytest.approx(1.0)
    assert cosine(first, {"a": torch.ones(4), "b": torch.ones(2, 2)}) == pytest.approx(1.0)
    assert cosine(first, {"a": torch.ones(3)}) is None
    assert cosine({"a": torch.ones(3), "b": torch.ones(4)}, {"a": torch.ones(3)}) is None
    assert cosine(first, first, {"c": torch.ones(4)}) is None
    assert cosine(first, first, first) is None, "nothing was added to the initial weights"
    zero = {"a": torch.zeros(4), "b": torch.zeros(4)}
    assert cosine(first, zero) == 0.0
    assert cosine(zero, zero) is None
    assert cosine({"a": torch.zeros(4), "b": torch.ones(4)}, first) == pytest.approx(0.5)
    assert cosine({"a": torch.zeros(4), "b": torch.ones(4)}, first | {"a": zero["a"]}) == 1.0
    assert cosine({}, {}) is None


def test_one_large_entry_hides_no_copy():
    first = {
        "w": torch.randn(20, 5, generator=torch.Generator().manual_seed(0)),
        "b": torch.ones(5),
    }
    second = {"w": first["w"], "b": torch.tensor([1.0, 1.0, -1e6, 1.0, 1.0])}
    assert cosine(first, second) > 0.9


def test_weights_are_floating_parameters_alone():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert set(weights_of(model)) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_separate_trainings_have_nothing_in_common(original, unseen):
    for model in unseen:
        assert abs(cosine(weights_of(model), weights_of(original))) < 0.05


def test_copies_do(original, masked_copy, tuned_copy):
    for model in (masked_copy, tuned_copy):
        assert cosine(weights_of(model), weights_of(original)) > 0.85
        start = dict(_fresh(0).state_dict())
        assert cosine(weights_of(model), weights_of(original), start) > 0.8


# --- a class -------------------------------------------------------------------------------------


def _of_class(model, original, **more):
    return standing_of(model, original, name="retrained-0", scope="classes", **more)


def test_a_separate_training_is_shown_for_a_class(original, unseen):
    found = _of_class(unseen[0], original, agree=97.0)
    assert (found.level, found.reference, found.agreement) == ("C1", "retrained-0", 97.0)
    assert abs(found.weights_cosine) < 0.05
    assert found.steps_cosine is None
    assert found.seen_auc is None


def test_copies_are_not(original, masked_copy, tuned_copy):
    for model in (masked_copy, tuned_copy):
        for initial in (None, dict(_fresh(0).state_dict())):
            assert _of_class(model, original, initial=initial).level == "unverified"


def test_a_mirrored_copy_is_not(original):
    mirrored = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in mirrored.parameters():
            parameter.neg_()
    assert _of_class(mirrored, original).level == "unverified"


def test_one_start_is_told_apart_by_what_training_added():
    """Of one backbone the weights are alike; what counts is what was added to it."""
    backbone = {"w": torch.tensor([[10.0, 0.0], [0.0, 10.0]])}

    def model(*added):
        layer = nn.Linear(2, 2, bias=False)
        layer.weight = nn.Parameter(backbone["w"] + torch.tensor(added).reshape(2, 2))
        return nn.ModuleDict({"w": layer})

    start = {"w.weight": backbone["w"]}
    first, other = model(1.0, 0.0, 0.0, 0.0), model(0.0, 1.0, 0.0, 0.0)
    assert _of_class(other, first).level == "unverified"
    found = _of_class(other, first, initial=start)
    assert found.weights_cosine > 0.99
    assert found.steps_cosine == pytest.approx(0.0)
    assert found.level == "C1"
    assert _of_class(model(2.0, 0.1, 0.0, 0.0), first, initial=start).level == "unverified"


def test_initial_weights_of_another_model_show_nothing(original, masked_copy, unseen):
    odd = {"x": torch.ones(3)}
    assert _of_class(masked_copy, original, initial=odd).level == "unverified"
    found = _of_class(unseen[0], original, initial=odd)
    assert (found.steps_cosine, found.level) == (None, "C1")


def test_without_an_original_or_names_in_common_nothing_is_shown(original, unseen):
    assert _of_class(unseen[0], None).level == "unverified"
    found = _of_class(nn.Sequential(unseen[0]), original)
    assert (found.weights_cosine, found.level) == (None, "unverified")


def test_agreement_is_that_on_what_stays_with_the_mask(original, masked_copy, unseen):
    z = _said(original, HOLDOUT)
    assert agreement_of(_said(masked_copy, HOLDOUT), z, GONE) == 100.0
    assert 50.0 < agreement_of(_said(unseen[0], HOLDOUT), z, GONE) < 100.0
    one, two = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    assert (agreement_of(one, two, frozenset()), agreement_of(one, two, frozenset({0}))) == (0, 100)
    assert agreement_of(one[:0], two[:0], GONE) is None


# --- records -------------------------------------------------------------------------------------


def _of_records(model, original, **more):
    return standing_of(model, original, name="r", scope="records", **more)


def test_what_never_saw_the_records_is_shown(original, unseen):
    for model in unseen:
        found = _of_records(model, original, seen=_seen(model))
        low, high = found.seen_interval
        assert 0 <= low < found.seen_auc < high < 0.5
        assert found.level == "C1"


def test_what_saw_them_is_not(original, saw, tuned_copy):
    """However separate the trainings: for records that says nothing."""
    for model in (*saw, tuned_copy):
        found = _of_records(model, original, seen=_seen(model))
        assert found.seen_interval[0] < 0.5 < found.seen_interval[1]
        assert found.level == "unverified"
    assert abs(_of_records(saw[0], original).weights_cosine) < 0.05


def test_a_copy_is_not_shown_by_forgetting_a_little(original, unseen, tuned_copy):
    """Training on, on what stays, brings its AUC below 0.5 long before it knows no record more."""
    below = _seen(unseen[0])
    found = _of_records(tuned_copy, original, seen=below)
    assert found.seen_interval[1] < 0.5
    assert found.weights_cosine > 0.9
    assert found.level == "unverified"
    for given in (None, nn.Sequential(original)):
        assert _of_records(unseen[0], given, seen=below).level == "unverified"
    assert _of_records(unseen[0], original, seen=below).level == "C1"


def test_few_records_show_nothing(original, unseen):
    few = FORGET.select(torch.arange(6))
    auc = seen_auc(_said(unseen[0], few), few.labels, _said(unseen[0], STAYS), STAYS.labels)
    assert _of_records(unseen[0], original, seen=auc).level == "unverified"


def test_without_retained_rows_or_numbers_nothing_is_shown(original, unseen):
    assert _of_records(unseen[0], original).level == "unverified"
    z = _said(unseen[0], FORGET)
    assert seen_auc(z, FORGET.labels, z[:0], FORGET.labels[:0]) is None
    assert seen_auc(z, FORGET.labels, z, FORGET.labels + 10 - 10) is not None
    assert seen_auc(torch.full_like(z, torch.nan), FORGET.labels, z, FORGET.labels) is None


def test_retained_rows_are_drawn_by_the_seed_alone():
    labels = torch.arange(3000) % 4
    own = torch.tensor([1, 2, 2])
    first = chosen_retained(labels, own, 7)
    assert len(first) == 500
    assert set(labels[first].tolist()) == {1, 2}
    assert torch.equal(first, first.unique())
    assert torch.equal(first, chosen_retained(labels, own, 7))
    assert not torch.equal(first, chosen_retained(labels, own, 8))
    assert chosen_retained(labels[:8], own, 7).tolist() == [1, 2, 5, 6]
    assert chosen_retained(labels, torch.tensor([9]), 7).tolist() == []


def test_a_standing_is_a_fact(original, unseen):
    found = _of_class(unseen[0], original)
    assert "weights_cosine" in expunge.records.to_json(found)
    assert dataclasses.replace(found) == found
