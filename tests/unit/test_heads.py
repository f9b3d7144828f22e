"""Heads: found in common architectures, refused where an edit would mean something else."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from expunge.data.views import as_rows
from expunge.errors import DataError, ModelError
from expunge.models import resnet20
from expunge.network.answers import as_logits
from expunge.network.heads import Head, backbone_digest, find_head, head_matrix, set_head_matrix
from expunge.network.passes import feature_batches, logits_of
from expunge.network.state import digest_of, hook_count, state_of
from expunge.testing import toy

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Body(nn.Module):
    def __init__(self, finish=lambda z: z):
        super().__init__()
        self.trunk = nn.Linear(6, 8)
        self.out = nn.Linear(8, 4)
        self.finish = finish

    def forward(self, x):
        return self.finish(self.out(torch.relu(self.trunk(x))))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"net": Body()})

    def forward(self, x):
        return self.inner["net"](x)


def _in_place(z):
    return z.mul_(0.5)


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("model", "x", "name"),
    [
        (Body(), X, "out"),
        (Wrapped(), X, "inner.net.out"),
        (nn.Linear(6, 4), X, ""),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)), X, "3"),
        (Body(lambda z: (z, None)), X, "out"),
        (Body(lambda z: {"logits": z}), X, "out"),
        (Body(lambda z: SimpleNamespace(logits=z)), X, "out"),
        (Body(nn.Dropout(0.5)), X, "out"),
        (nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), X, "1"),
        (resnet20(), torch.randn(2, 3, 32, 32), "linear"),
    ],
)
def test_head_is_found(model, x, name):
    modes = [m.training for m in model.modules()]
    head = find_head(model, x)
    assert head.name == name
    assert head.of(model).weight.shape == (head.classes, head.features)
    assert [m.training for m in model.modules()] == modes
    assert hook_count(model) == 0


def test_head_is_found_for_named_inputs():
    made = toy("mapping")
    inputs, _ = as_rows(made.train).batch(torch.arange(2))
    assert find_head(made.trained(), inputs).name == "classifier"


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(4, 8)
        self.trunk = nn.Linear(6, 8)
        self.out = nn.Linear(8, 4, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(self.trunk(x))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 4)

    def forward(self, x):
        return self.out(x[:, None].expand(-1, 3, -1))


def _parametrised():
    model = Body()
    nn.utils.parametrizations.weight_norm(model.out)
    return model


REFUSED = {
    "softmax": (Body(lambda z: z.softmax(1)), "not a softmax of it"),
    "log-softmax": (Body(lambda z: z.log_softmax(1)), "nothing after it"),
    "temperature": (Body(lambda z: z / 2), "no match among trunk, out"),
    "temperature in place": (Body(_in_place), "no match among trunk, out"),
    "tied": (Tied(), "tied to another module .*words.weight"),
    "parametrised": (_parametrised(), "to own its weight, got one that is made anew"),
    "none": (nn.Sequential(nn.Conv1d(6, 3, 1), nn.Flatten(1)), "no nn.Linear at all"),
    "tokens": (Tokens(), r"shape \(batch, classes\), got \(5, 3, 4\)"),
    "one logit": (nn.Linear(6, 1), "at least two logits a row"),
    "no tensor": (Body(lambda z: "cat"), "as a tensor, a tuple or `.logits`, got str"),
}


@pytest.mark.parametrize(("model", "words"), REFUSED.values(), ids=REFUSED)
def test_head_is_refused(model, words):
    x = X[:, :, None] if isinstance(model, nn.Sequential) else X
    hooks = hook_count(model)
    with pytest.raises(ModelError, match=words):
        find_head(model, x)
    assert hook_count(model) == hooks


def test_named_head():
    same = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    assert find_head(same, X, name="1").name == "1"
    with pytest.raises(ModelError, match="got 'fc'; there are 0, 1"):
        find_head(same, X, name="fc")
    with pytest.raises(ModelError, match="the layer '0' to be the logits"):
        find_head(same, X, name="0")


@pytest.mark.parametrize("output", [(torch.zeros(2, 3), 1), [torch.zeros(2, 3)], torch.zeros(2, 3)])
def test_logits_are_unwrapped(output):
    assert as_logits(output).shape == (2, 3)


def test_items_that_cannot_be_logits_are_passed_over():
    logits = torch.zeros(2, 3)
    others = (torch.tensor(0.5), torch.zeros(2, 5, 7), torch.zeros(2, 4).long(), torch.zeros(2, 1))
    assert as_logits((*others, logits)) is logits
    assert as_logits((logits, *others)) is logits


@pytest.mark.parametrize("finish", [lambda z: (z, 2 * z), lambda z: (torch.cat([z, z], 1), z)])
def test_a_tuple_with_two_items_that_may_be_the_logits_is_refused_with_a_cure_that_works(finish):
    model = Body(finish)
    with pytest.raises(ModelError, match=r"got \(5, \d\) at 0, \(5, 4\) at 1: which of them"):
        find_head(model, X)

    class Second(Body):
        def forward(self, x):
            return super().forward(x)[1]

    assert as_logits(Second(finish)(X)).shape == (5, 4)
    assert find_head(Second(lambda z: (2 * z, z)), X).name == "out"


def test_no_hook_or_mode_is_left_when_the_model_raises():
    def fail(_z):
        raise RuntimeError("boom")

    model = Body(fail)
    with pytest.raises(ModelError, match="RuntimeError: boom"):
        find_head(model, X)
    assert hook_count(model) == 0
    assert all(m.training for m in model.modules())
    with pytest.raises(RuntimeError, match="boom"):
        list(
            feature_batches(
                model,
                Head("out", 8, 4, True),
                as_rows((X, torch.zeros(5).long())),
                batch_size=2,
                device=CPU,
            )
        )
    assert hook_count(model) == 0
    assert all(m.training for m in model.modules())


def test_no_hook_is_left_when_the_data_raise():
    made = toy("cnn")
    model = made.trained()

    def fail(position):
        if position == 7:
            raise OSError("gone")

    data = made.train.watched(fail)
    head = find_head(model, made.train.inputs["x"][:2])
    with pytest.raises(DataError, match="gone"):
        list(feature_batches(model, head, as_rows(data), batch_size=4, device=CPU))
    assert hook_count(model) == 0


def test_features_times_head_are_the_logits():
    made = toy("cnn")
    model, rows = made.trained().train(), as_rows(made.holdout)
    head = find_head(model, made.train.inputs["x"][:2])
    matrix = head_matrix(model, head)
    for features, logits, labels in feature_batches(model, head, rows, batch_size=64, device=CPU):
        own = features.double() @ matrix[:, :-1].T + matrix[:, -1]
        torch.testing.assert_close(own.float(), logits)
        assert len(labels) == len(logits)
    torch.testing.assert_close(
        logits_of(model, rows, batch_size=7, device=CPU),
        logits_of(model, rows, batch_size=200, device=CPU),
    )


def test_rows_not_edited_stay_bit_equal():
    model = Body()
    head = find_head(model, X)
    before = {n: t.clone() for n, t in state_of(model).items()}
    matrix = head_matrix(model, head)
    matrix[2] += 0.125
    set_head_matrix(model, head, matrix)
    others = [0, 1, 3]
    assert torch.equal(model.out.weight[others], before["out.weight"][others])
    assert torch.equal(model.out.bias[others], before["out.bias"][others])
    assert torch.allclose(model.out.weight[2], before["out.weight"][2] + 0.125)
    assert torch.equal(model.trunk.weight, before["trunk.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_writing_the_own_matrix_changes_nothing(dtype):
    model = Body().to(dtype)
    head = Head("out", 8, 4, True)
    before = digest_of(state_of(model))
    set_head_matrix(model, head, head_matrix(model, head))
    assert digest_of(state_of(model)) == before


def test_a_head_without_bias_takes_no_bias():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4, bias=False))
    head = find_head(model, X)
    assert not head.has_bias
    matrix = head_matrix(model, head)
    assert not matrix[:, -1].any()
    matrix[0, -1] = 1.0
    with pytest.raises(ModelError, match="to have a bias for this edit"):
        set_head_matrix(model, head, matrix)


def test_backbone_digest_sees_the_backbone_only():
    made = toy("cnn")
    model = made.trained()
    head = find_head(model, made.train.inputs["x"][:2])
    digest = backbone_digest(model, head)
    with torch.no_grad():
        head.of(model).weight.add_(1.0)
    assert backbone_digest(model, head) == digest
    model.norm.running_mean.add_(1e-3)
    assert backbone_digest(model, head) != digest
