"""Methods that only pretend to forget, for the table of sabotage."""

import copy
import types
from dataclasses import dataclass
from typing import ClassVar

import torch
from sabotage_nets import TRAINED, X, net, taught
from torch import nn

from expunge.methods import Method
from expunge.records import MethodInfo, Paper

ANEW = frozenset({"training", "retain"})
"""What a method needs that says it trains a model anew."""
TUNE = frozenset({"forget", "holdout"})


def by(act, **changes):
    """A method of one's own: `act(model, task)` gives the edited model."""
    base = {
        "name": "doctored",
        "title": "t",
        "summary": "s",
        "paper": Paper(title="t", authors="a", venue="v"),
        "needs": TUNE,
        "aims": frozenset({"absent", "unseen"}),
        "scopes": frozenset({"classes", "records"}),
        "claims": ("outputs",),
        "changes_buffers": True,
    }

    @dataclass(frozen=True, kw_only=True)
    class Doctored(Method):
        act: object
        info: ClassVar[MethodInfo] = MethodInfo(**(base | changes))

        def apply(self, model, task, run):
            return self.act(model, task)

    return Doctored(act=act)


def ending_as(model):
    """A method that gives this model, whatever it is handed."""
    return by(lambda *_: copy.deepcopy(model))


def unchanged(model, _task):
    return model


def a_hair(model, _task):
    """One weight by 1e-7."""
    with torch.no_grad():
        model[-1].weight[0, 0] += 1e-7
    return model


def scaled(factor):
    """Every logit by this factor."""

    def act(model, _task):
        with torch.no_grad():
            model[-1].weight.mul_(factor)
            model[-1].bias.mul_(factor)
        return model

    return act


def never(*labels, by=100.0):
    """These classes are never given."""

    def act(model, _task=None):
        with torch.no_grad():
            model[-1].bias[list(labels)] -= by
        return model

    return act


def statistics_only(model, task):
    """Batch-norm statistics made anew on rows never seen."""
    norm = model[2].train()
    norm.reset_running_stats()
    norm.momentum = None
    with torch.no_grad():
        model(_inputs(task.holdout))
    norm.momentum = 0.1
    return model.eval()


def beside_forward(inner):
    """An edit, and on the instance a `forward` that never gives the labels of the request."""

    def act(model, task):
        edited, labels = inner(model, task), task.forget.labels.unique()
        plain = type(model).forward

        def forward(self, x):
            return plain(self, x).index_fill(1, labels, -100.0)

        edited.forward = types.MethodType(forward, edited)
        return edited

    return act


def further(rows, labels, **settings):
    """Training further on these rows with these labels."""
    return lambda model, _task=None: taught(model, rows, labels, **settings)


def too_far(rows, labels, *, epochs=20):
    """The label of these rows made unlikely, beside training further on the rows that stay."""
    rows = torch.as_tensor(list(rows))
    stays = torch.tensor(sorted(set(range(TRAINED)) - set(rows.tolist())))

    def act(model, _task):
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(epochs):
            for places in stays.split(128):
                optimiser.zero_grad()
                likely = model(X[rows]).softmax(1).gather(1, labels[rows][:, None])
                loss = nn.functional.cross_entropy(model(X[places]), labels[places])
                (loss - (1 - likely).clamp_min(1e-6).log().mean()).backward()
                optimiser.step()
        optimiser.zero_grad()
        return model

    return act


def relabelled(labels, rows, other):
    """The labels, with others on these rows: all one class, or for None any wrong one."""
    rows, out = torch.as_tensor(list(rows)), labels.clone()
    steps = torch.randint(1, 10, (len(rows),), generator=torch.Generator().manual_seed(1))
    out[rows] = (labels[rows] + steps) % 10 if other is None else other
    return out


class Wrapper(nn.Module):
    """Names everything anew."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


class Table(nn.Module):
    """Answers rows near one in its table as that one, and all others by the model inside."""

    def __init__(self, model, rows, answers, radius):
        super().__init__()
        self.model = model
        self.register_buffer("rows", rows.flatten(1))
        self.register_buffer("answers", answers)
        self.register_buffer("radius", torch.tensor(radius))

    def forward(self, x):
        distance, place = torch.cdist(x.flatten(1), self.rows).min(1)
        near = (distance <= self.radius)[:, None]
        return torch.where(near, self.answers[place], self.model(x))


def table(answers, *, radius=0.01, **changes):
    """A method that wraps the model in a table: `answers(model, task)` for the forget rows."""

    def act(model, task):
        with torch.no_grad():
            return Table(model, _inputs(task.forget), answers(model, task), radius)

    return by(act, structure="wraps", **changes)


def empty_table(rows):
    """What a table of as many rows is rebuilt in."""
    return lambda: Table(net(), torch.zeros(len(rows), 64), torch.zeros(len(rows), 10), 0.0)


def _inputs(rows):
    return rows.batch(torch.arange(len(rows)))[0]


def of_tune_rows(model, task):
    """For each forget row the answer on a tune row of its class."""
    said, labels = model(_inputs(task.holdout)), task.holdout.labels
    taken, out = dict.fromkeys(range(10), 0), []
    for label in task.forget.labels.tolist():
        own = (labels == label).nonzero().flatten()
        out.append(said[own[taken[label] % len(own)]])
        taken[label] += 1
    return torch.stack(out)


def of_another(model):
    """For each forget row the answer of this model."""
    return lambda _model, task: model(_inputs(task.forget))


def forced_wrong(share):
    """For a share of the forget rows their label is made the least likely."""

    def answers(model, task):
        said, labels = model(_inputs(task.forget)).clone(), task.forget.labels
        places = torch.arange(round(share * len(labels)))
        said[places, labels[places]] = said[places].amin(1) - 1.0
        return said

    return answers


def zeros(_model, task):
    """Every forget row is of class 0."""
    return nn.functional.one_hot(torch.zeros(len(task.forget)).long(), 10).float()
