"""What the table of sabotage stands on: nets on sklearn's digits, and requests to forget some."""

import copy
from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn

from expunge import Training, forget_classes, forget_indices, unlearn
from expunge.data.images import image_views

TRAINED, LABEL = 700, 3
RECORDS = range(300)


def _digits():
    x, y = load_digits(return_X_y=True)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(x), generator=generator)
    drawn = torch.rand(len(x), generator=generator) < 1 / 3
    noise = torch.randint(10, (len(x),), generator=generator)
    clean = torch.tensor(y)[order]
    x = torch.tensor(x).float()[order].reshape(-1, 1, 8, 8) / 16
    return x, clean, torch.where(drawn, noise, clean)


X, CLEAN, NOISY = _digits()
"""Images, their labels, and labels of which a third is drawn: a net learns those by heart."""
UNSEEN = range(TRAINED, len(X))
OF_CLASS = (CLEAN[:TRAINED] == LABEL).nonzero().flatten().tolist()
MISLABELLED = NOISY != CLEAN


def net():
    """An untrained net."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10)
    )


def taught(model, rows, labels, *, epochs, seed=0, lr=1e-2, sign=1.0, views=lambda x: [x]):
    """The model, trained on these rows; with `sign` -1 the loss is made larger."""
    rows = torch.as_tensor(list(rows))
    made = views(X[rows])
    x, y = torch.cat(made), labels[rows].repeat(len(made))
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    model.train()
    for _ in range(epochs):
        for places in torch.randperm(len(x), generator=generator).split(128):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(x[places]), y[places])
            (sign * loss).backward()
            optimiser.step()
        slower.step()
    optimiser.zero_grad()
    return model.eval()


@dataclass(frozen=True, eq=False)
class Scene:
    """Nets trained on digits with these labels, each once; rows below `TRAINED` may train."""

    labels: torch.Tensor
    epochs: int

    def trained(self, rows, seed):
        """A net trained on these rows alone."""
        return copy.deepcopy(_trained(self, tuple(rows), seed))

    def original(self):
        """The net that was trained on every row."""
        return self.trained(range(TRAINED), 1000)

    def without(self, rows, seed):
        """A net trained on every row but these."""
        return self.trained(sorted(set(range(TRAINED)) - set(rows)), seed)

    def rows(self, places):
        """These rows as data."""
        places = torch.as_tensor(list(places))
        return X[places], self.labels[places]

    def honest(self, forget):
        """Training as it should be: `fit` on the rows that it is given."""

        def fit(model, dataset, *, generator, device):
            del generator, device
            stays = sorted(set(range(TRAINED)) - set(forget))
            assert len(dataset) == len(stays)
            return taught(model, stays, self.labels, epochs=self.epochs, seed=7)

        return Training(net, fit)


def _fresh(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return net()


@cache
def _trained(scene, rows, seed):
    return taught(_fresh(seed), rows, scene.labels, epochs=scene.epochs, seed=seed)


@cache
def _augmented():
    every = range(TRAINED)
    return taught(_fresh(2), every, NOISY, epochs=30, views=lambda x: [x, *image_views(x)])


def augmented():
    """The net for records, had it been trained on every row and its views."""
    return copy.deepcopy(_augmented())


CLASS = Scene(CLEAN, epochs=15)
RECORD = Scene(NOISY, epochs=60)


def references(count):
    """Models retrained without the records."""
    return [RECORD.without(RECORDS, 20 + i) for i in range(count)]


def kept(share, seed=30):
    """A model retrained with this share of the records still in."""
    return RECORD.without(RECORDS[round(share * len(RECORDS)) :], seed)


def giving(model):
    """Training whose `fit` gives this model, whatever it is handed."""
    return Training(net, lambda *_, **__: copy.deepcopy(model))


def untrained(factory=net):
    """Training that does nothing to what `factory` gives."""
    return Training(factory, lambda model, *_, **__: model)


def of_class(*, label=LABEL, holdout=UNSEEN, labels=CLEAN, training=None):
    """A request for a digit."""
    train, held = (X[:TRAINED], labels[:TRAINED]), (X[list(holdout)], labels[list(holdout)])
    training = training or CLASS.honest(OF_CLASS)
    return forget_classes(train, {label}, holdout=held, training=training)


def of_records(*, forget=RECORDS, holdout=UNSEEN, training=None):
    """A request for records."""
    train, held = RECORD.rows(range(TRAINED)), RECORD.rows(holdout)
    training = training or RECORD.honest(forget)
    return forget_indices(train, list(forget), holdout=held, training=training)


def on_class(method, task=None, *, model=None, **options):
    """What comes out where the digit is asked to be forgotten."""
    return unlearn(model or CLASS.original(), method, task or of_class(), seed=0, **options)


def on_records(method, task=None, *, model=None, **options):
    """What comes out where records are asked to be forgotten."""
    return unlearn(model or RECORD.original(), method, task or of_records(), seed=0, **options)
