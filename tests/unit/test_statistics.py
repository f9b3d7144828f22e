"""Feature statistics: sums add up in any order, and refuse what does not belong to them."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from expunge.data.views import as_rows
from expunge.errors import StatisticsError
from expunge.network.heads import find_head
from expunge.network.state import hook_count
from expunge.statistics.collect import collect_statistics, collect_sums
from expunge.statistics.features import FeatureStatistics
from expunge.statistics.sums import Sums, augment, from_centred, to_centred
from expunge.testing import toy


def _close(a, b, rtol=1e-10):
    torch.testing.assert_close(a, b, rtol=rtol, atol=1e-9)


@pytest.fixture(scope="module")
def scene():
    """A float64 toy, so that sums are exact to rounding: model, head, rows, raw features."""
    made = toy("cnn")
    model = made.trained().double()
    rows = as_rows((made.train.inputs["x"].double(), made.train.targets))
    head = find_head(model, rows.batch(torch.arange(2))[0])
    caught = []
    handle = head.of(model).register_forward_pre_hook(lambda _m, args: caught.append(args[0]))
    with torch.no_grad():
        model(made.train.inputs["x"].double())
    handle.remove()
    return model, head, rows, caught[0]


def _collect(scene, **given):
    model, head, rows, _ = scene
    return collect_statistics(model, head, given.pop("rows", rows), **given)[0]


def _part(scene, statistics, positions):
    model, head, rows, _ = scene
    chosen = rows.select(torch.as_tensor(positions))
    return collect_sums(model, head, chosen, mean=statistics.mean), chosen.ids


def test_streaming_equals_one_shot(scene):
    _, head, rows, features = scene
    statistics = _collect(scene, batch_size=7)
    centred = torch.cat([features - statistics.mean, torch.ones(len(features), 1)], dim=1)
    onehot = torch.nn.functional.one_hot(rows.labels, head.classes).double()
    _close(statistics.sums.gram, centred.T @ centred)
    _close(statistics.sums.class_sums, onehot.T @ centred)
    assert statistics.sums.counts.tolist() == onehot.sum(0).tolist()
    _close(statistics.uncentred_gram(), features.T @ features)
    spread = (features - features.mean(0)).square().sum() / head.features
    assert statistics.constants.spread == pytest.approx(float(spread))
    assert statistics.constants.diagonal == pytest.approx(
        float(features.square().sum()) / head.features
    )
    assert statistics.penalty == pytest.approx(1e-3 * float(spread))


@pytest.mark.parametrize("size", [1, 13, 1000])
def test_what_statistics_say_does_not_depend_on_the_batch_size(scene, size):
    # Each batch size centres by another mean; nothing that is read off may depend on it.
    one, other = _collect(scene, batch_size=50), _collect(scene, batch_size=size)
    _close(one.uncentred_gram(), other.uncentred_gram())
    _close(
        from_centred(one.ridge_head(), one.mean), from_centred(other.ridge_head(), other.mean), 1e-7
    )
    assert one.penalty == pytest.approx(other.penalty)
    assert one.scale == pytest.approx(other.scale)


def test_ridge_head_is_ridge_regression(scene):
    from sklearn.linear_model import Ridge

    _, head, rows, features = scene
    statistics = _collect(scene)
    targets = np.eye(head.classes)[rows.labels.numpy()] - 1 / head.classes
    fitted = Ridge(alpha=statistics.penalty).fit(features.numpy(), targets)
    own = from_centred(statistics.ridge_head(), statistics.mean)
    np.testing.assert_allclose(own[:, :-1], fitted.coef_, atol=1e-8)
    np.testing.assert_allclose(own[:, -1], fitted.intercept_, atol=1e-8)


def test_ridge_head_without_intercept():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double()
    y = torch.arange(40) % 3
    model = torch.nn.Linear(5, 3, bias=False).double()
    statistics, _ = collect_statistics(model, find_head(model, x[:2]), as_rows((x, y)))
    assert not statistics.mean.any()
    targets = torch.nn.functional.one_hot(y, 3).double() - 1 / 3
    expected = torch.linalg.solve(
        x.T @ x + statistics.penalty * torch.eye(5, dtype=torch.float64), x.T @ targets
    )
    _close(statistics.ridge_head()[:, :-1], expected.T)
    assert not statistics.ridge_head()[:, -1].any()


def test_scale_matches_the_ridge_logits_to_the_heads(scene):
    model, head, _, features = scene
    statistics = _collect(scene)
    with torch.no_grad():
        own = head.of(model)(features)
    twin = augment(features, statistics.mean) @ statistics.ridge_head().T
    own, twin = own - own.mean(1, keepdim=True), twin - twin.mean(1, keepdim=True)
    assert statistics.scale == pytest.approx(float((own * twin).sum() / twin.square().sum()))


def test_removal_is_the_statistics_of_the_rest(scene):
    _, _, rows, _ = scene
    statistics = _collect(scene)
    gone = list(range(0, 60, 3))
    left = statistics.without(*_part(scene, statistics, gone))
    rest = [i for i in range(len(rows)) if i not in gone]
    sums, ids = _part(scene, statistics, rest)
    _close(left.sums.gram, sums.gram)
    _close(left.sums.class_sums, sums.class_sums)
    assert torch.equal(left.sums.counts, sums.counts)
    assert left.covers(ids)
    assert left.covers([str(gone[0])]) is False
    assert left.constants is statistics.constants
    assert all(getattr(left, name) == getattr(statistics, name) for name in ("backbone", "salt"))
    assert statistics.covers(rows.ids), "the given statistics are a value"


@given(cuts=st.lists(st.integers(0, 150), min_size=3, max_size=3, unique=True))
def test_removals_add_up_in_any_order(scene, cuts):
    statistics = _collect(scene)
    parts = [_part(scene, statistics, [c]) for c in cuts]
    ends = []
    for order in itertools.permutations(parts):
        left = statistics
        for sums, ids in order:
            left = left.without(sums, ids)
        ends.append(left)
    once = statistics.without(*_part(scene, statistics, cuts))
    for end in ends:
        _close(end.sums.gram, once.sums.gram)
        _close(end.ridge_head(), once.ridge_head(), 1e-9)
        assert end.members == once.members


def test_forget_sums_taken_in_the_same_pass(scene):
    model, head, rows, _ = scene
    mask = rows.labels == 3
    statistics, part = collect_statistics(model, head, rows, forget=mask, batch_size=11)
    sums, _ = _part(scene, statistics, mask.nonzero().flatten())
    _close(part.gram, sums.gram)
    _close(part.class_sums, sums.class_sums)
    assert torch.equal(part.counts, sums.counts)


@pytest.mark.parametrize("ids", ["kept", "stripped"])
def test_save_and_load_round_trip(scene, tmp_path, ids):
    statistics = _collect(scene)
    if ids == "stripped":
        statistics = statistics.without_ids()
    statistics.save(tmp_path / "s.safetensors")
    loaded = FeatureStatistics.load(tmp_path / "s.safetensors")
    for field in dataclasses.fields(statistics):
        old, new = getattr(statistics, field.name), getattr(loaded, field.name)
        if field.name == "sums":
            assert all(
                torch.equal(getattr(old, n), getattr(new, n))
                for n in ("gram", "class_sums", "counts")
            )
        elif field.name == "constants":
            assert torch.equal(old.mean, new.mean)
            for f in dataclasses.fields(old):
                if f.name != "mean":
                    assert getattr(old, f.name) == getattr(new, f.name), f.name
        else:
            assert old == new, field.name


def test_ids_are_never_written_in_the_clear(scene, tmp_path):
    model, head, rows, _ = scene
    named = as_rows(rows, ids=[f"patient-{i}" for i in range(len(rows))])
    statistics, _ = collect_statistics(model, head, named)
    statistics.save(tmp_path / "s.safetensors")
    assert b"patient" not in (tmp_path / "s.safetensors").read_bytes()
    assert statistics.covers(["patient-7"])
    assert not statistics.covers(["patient-x"])


def test_load_refuses_anything_else(tmp_path):
    with pytest.raises(StatisticsError, match="found no file"):
        FeatureStatistics.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is text")
    with pytest.raises(StatisticsError, match="to be safetensors"):
        FeatureStatistics.load(tmp_path / "text.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(StatisticsError, match="hold feature statistics of version 1, got format"):
        FeatureStatistics.load(tmp_path / "model.safetensors")


def test_removed_twice_and_never_in_are_refused(scene):
    statistics = _collect(scene)
    part = _part(scene, statistics, [4])
    with pytest.raises(StatisticsError, match="1 of 1 records that were never in, or were removed"):
        statistics.without(*part).without(*part)
    with pytest.raises(StatisticsError, match="1 of 2 records that were never in"):
        statistics.without(part[0], ["4", "a stranger"])
    with pytest.raises(StatisticsError, match="without ids"):
        statistics.without_ids().without(*part)
    assert statistics.without_ids().covers(["4"]) is None


def test_sums_of_other_rows_than_the_ids_name_are_refused(scene):
    statistics = _collect(scene)
    sums, _ = _part(scene, statistics, [4, 5, 6])
    with pytest.raises(StatisticsError, match="sums of 3 rows for 1"):
        statistics.without(sums, ["4"])


def test_rows_that_are_not_part_of_the_statistics_are_refused(scene):
    statistics = _collect(scene)
    sums, ids = _part(scene, statistics, [4])
    loud = Sums(100.0 * sums.gram, sums.class_sums, sums.counts)
    with pytest.raises(StatisticsError, match="to stay positive"):
        statistics.without(loud, ids)
    crowd = Sums(sums.gram, sums.class_sums, sums.counts * 1000)
    with pytest.raises(StatisticsError, match=r"sums of 1000 rows for 1"):
        statistics.without(crowd, ids)


def test_another_backbone_is_refused(scene):
    _, head, _, _ = scene
    statistics = _collect(scene)
    made = toy("cnn")
    model = made.trained().double()
    statistics.check(model, head)
    with torch.no_grad():
        model.fc.weight.mul_(2.0)
    statistics.check(model, head)
    model.norm.running_var.mul_(1.01)
    with pytest.raises(StatisticsError, match=r"this model's backbone .* got those of another"):
        statistics.check(model, head)
    with pytest.raises(StatisticsError, match="for head 'fc2' with d = 32 and K = 5"):
        statistics.check(model, dataclasses.replace(head, name="fc2"))


def test_labels_out_of_range_are_refused_without_a_trace(scene):
    model, head, rows, _ = scene
    bad = as_rows((rows.batch(torch.arange(4))[0], torch.tensor([0, 1, 2, 5])))
    with pytest.raises(StatisticsError, match="below the model's 5 classes, got 5") as caught:
        collect_statistics(model, head, bad)
    assert caught.value.__traceback__ is not None
    assert hook_count(model) == 0


def test_dead_features_are_refused(scene):
    model, head, rows, _ = scene
    same = as_rows((torch.zeros(4, 1, 6, 6).double(), torch.arange(4)))
    with pytest.raises(StatisticsError, match="features that differ between rows"):
        collect_statistics(model, head, same)
    with pytest.raises(StatisticsError, match="at least one row"):
        collect_statistics(model, head, rows.select(torch.arange(0)))


def test_memory_is_d_squared_whatever_the_number_of_rows(scene):
    model, head, rows, _ = scene

    def held(statistics):
        tensors = [statistics.sums.gram, statistics.sums.class_sums, statistics.sums.counts]
        return sum(t.untyped_storage().nbytes() for t in [*tensors, statistics.mean])

    few = collect_statistics(model, head, rows.select(torch.arange(20)), batch_size=10)[0]
    many = collect_statistics(model, head, rows, batch_size=10)[0]
    d, k = head.features, head.classes
    assert held(few) == held(many) == 8 * ((d + 1) ** 2 + k * (d + 1) + k + d)


def test_centred_coordinates_give_the_same_logits(scene):
    _, head, _, features = scene
    mean = features.mean(0)
    matrix = torch.randn(head.classes, head.features + 1, dtype=torch.float64)
    raw = features @ matrix[:, :-1].T + matrix[:, -1]
    _close(augment(features, mean) @ to_centred(matrix, mean).T, raw)
    _close(from_centred(to_centred(matrix, mean), mean), matrix)


def test_labels_that_differ_from_those_summed_are_refused(scene):
    statistics = _collect(scene)
    gone = list(range(0, 160, 5))
    sums, ids = _part(scene, statistics, gone)
    first = statistics.without(sums, ids)
    more, other_ids = _part(scene, first, [1])
    turned = Sums(more.gram, more.class_sums.roll(-1, 0), more.counts.roll(-1))
    with pytest.raises(StatisticsError, match="more rows of a class than they hold"):
        first.without(turned, other_ids)
