"""Models whose answer is no function of the row are refused by name, before any edit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import expunge
from expunge.data.rows import parts
from expunge.data.views import as_rows
from expunge.errors import ModelError
from expunge.models import resnet20
from expunge.network.state import digest_of, hook_count, state_of
from expunge.network.steady import refuse_unsteady
from expunge.unlearning.door import rehearse
from expunge.unlearning.found import look_at_answers

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self, middle=None, between=lambda h: h):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(6, 16)
        self.middle = middle if middle is not None else nn.Identity()
        self.between = between
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        return self.out(self.between(self.middle(torch.relu(self.a(x)))))


class AlwaysOn(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p, training=True)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x):
        return self.inner(F.dropout(x, 0.3))


class StaysOn(nn.Dropout):
    """Monte Carlo dropout: `train` keeps it on."""

    def train(self, mode=True):
        del mode
        return super().train(True)


class Batch(nn.BatchNorm1d):
    def __init__(self):
        super().__init__(16, track_running_stats=False)


UNSTEADY = {
    "dropout module": (
        Net(AlwaysOn(0.3)),
        r"two passes .* in the module 'middle' \(AlwaysOn\)",
    ),
    "dropout kept on": (Net(StaysOn(0.3)), r"first in the module 'middle' \(StaysOn\)"),
    "functional dropout": (
        Net(between=lambda h: F.dropout(h, 0.3)),
        r"first in the model \(Net\), in its own forward pass before 'out'.*training=self.training",
    ),
    "inside a block": (
        Net(Block()),
        r"first in the module 'middle' \(Block\), in its own forward pass before 'middle.inner'",
    ),
    "noise at the end": (
        nn.Sequential(Net(), AlwaysOn(0.3)),
        r"first in the module '1' \(AlwaysOn\)",
    ),
    "batch statistics": (
        Net(Batch()),
        r"other rows in its batch .* first in the module 'middle' \(Batch\).*track_running_stats",
    ),
    "functional batch norm": (
        Net(between=lambda h: F.batch_norm(h, None, None, training=True)),
        r"first in the model \(Net\), in its own forward pass before 'out'",
    ),
    "ranks in the batch": (Net(between=lambda h: h + h.argsort(0)), "other rows in its batch"),
    "squeeze": (
        Net(between=torch.squeeze),
        r"logits of shape \(4,\) \(in the model \(Net\), before 'out'\).*squeeze\(-1",
    ),
}


def _rows():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    return x, torch.arange(40) % 4


@pytest.mark.parametrize(("model", "words"), UNSTEADY.values(), ids=UNSTEADY)
@pytest.mark.parametrize("act", [expunge.unlearn, rehearse], ids=["unlearn", "dry run"])
def test_an_answer_that_is_no_function_of_the_row_is_refused(act, model, words):
    before = digest_of(state_of(model))
    task = expunge.forget_classes(_rows(), {1}, holdout=_rows(), ids=range(40))
    with pytest.raises(ModelError, match=words):
        act(model, expunge.FineTune(), task, seed=0)
    assert digest_of(state_of(model)) == before
    assert hook_count(model) == 0
    assert all(m.training for m in model.modules())


def test_a_single_record_is_looked_at_among_holdout_rows():
    x, y = _rows()
    task = expunge.forget_indices((x, y), [3], holdout=(x[:20] + 1, y[:20]))
    with pytest.raises(ModelError, match=r"first in the module 'middle' \(Batch\)"):
        rehearse(Net(Batch()), expunge.FineTune(), task, seed=0)


def test_the_cure_for_batch_statistics_works():
    model = Net(nn.BatchNorm1d(16, momentum=None))
    model.train()(torch.randn(64, 6))
    refuse_unsteady(model, X, 2)


def test_the_cure_for_dropout_works():
    class Cured(Net):
        def forward(self, x):
            return self.out(F.dropout(torch.relu(self.a(x)), 0.3, training=self.training))

    refuse_unsteady(Cured(), X, 2)


class Counting(Net):
    def __init__(self, *, once):
        super().__init__()
        self.once = once
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if not (self.once and self.calls > 0):
            self.calls.add_(1)
        return super().forward(x)


@pytest.mark.parametrize(
    ("once", "cure"),
    [(True, "It is a cache: run one batch"), (False, "Let it write in training only")],
)
def test_a_forward_pass_that_writes_a_buffer_is_refused_by_its_name(once, cure):
    model = Counting(once=once)
    task = expunge.forget_classes(_rows(), {1}, holdout=_rows(), ids=range(40))
    with pytest.raises(ModelError, match=f"writes the buffer 'calls'. {cure}"):
        rehearse(model, expunge.FineTune(), task, seed=0)
    assert model.calls == 0
    if once:
        model.eval()(X)
        refuse_unsteady(model, X, 2)


def _deep():
    """A net that amplifies rounding between batch sizes to some percent of the logits."""
    torch.manual_seed(0)
    layers = (nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.LayerNorm(64)) for _ in range(80))
    return nn.Sequential(*layers, nn.Linear(64, 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_rounding_between_batch_sizes_is_no_reason(dtype):
    model, images = resnet20().to(dtype), torch.randn(8, 3, 32, 32, dtype=dtype)
    for rows in (1, 2, 5):
        refuse_unsteady(model, images, rows)
        refuse_unsteady(_deep().to(dtype), torch.randn(8, 64, dtype=dtype), rows)


def test_what_a_deep_net_makes_of_rounding_is_looked_at_again_in_float64(monkeypatch):
    monkeypatch.setattr("expunge.network.rounding._ROUNDING", 1e-9)

    class Coarse(Net):
        def forward(self, x):
            noise = 1e-8 * torch.rand(()).to(x) if x.dtype == torch.float32 else 0.0
            return super().forward(x) + noise

    refuse_unsteady(Coarse(), X, 2)


def test_one_row_without_any_other_is_served():
    look_at_answers(Net(), as_rows((X[:1], torch.zeros(1).long())))


@pytest.mark.parametrize(
    ("rows", "size", "lengths"),
    [
        (9, 4, [4, 3, 2]),
        (8, 4, [4, 4]),
        (1, 4, [1]),
        (3, 2, [2, 1]),
        (2, 1, [1, 1]),
        (4, 3, [2, 2]),
        (10, 4, [4, 4, 2]),
    ],
)
def test_no_batch_ends_with_a_single_row_where_that_can_be_avoided(rows, size, lengths):
    found = parts(torch.arange(rows), size)
    assert [len(p) for p in found] == lengths
    assert torch.equal(torch.cat(found), torch.arange(rows))
    view = as_rows((torch.randn(rows, 2), torch.zeros(rows).long()))
    assert [len(labels) for _, labels in view.batches(size)] == lengths
