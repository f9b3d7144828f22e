"""How tests/golden/runs-v1/ was made, once, before the modules moved: never run it over them.

    python tests/golden/make_runs_v1.py NEW_FOLDER

One run folder a kind of model, on the small nets of `expunge.testing`.
"""

import sys
from pathlib import Path

import torch

import expunge
from expunge.runs import ResolvedJob
from expunge.testing import toy


def requests(made):
    """Each kind of run: a method and a task."""
    return {
        "least-squares-removal": (expunge.LeastSquaresRemoval(), made.absent(3)),
        "mu-mis": (expunge.MuMis(most_steps=40), made.absent(3)),
        "prune-class": (expunge.Prune(), made.absent(3)),
        "prune-gated": (expunge.Prune(form="gated"), made.unseen(*range(0, 40, 5))),
        "prune-auto": (expunge.Prune(), made.unseen(0, 7)),
    }


def make(target):
    """Write the runs to `target`, which must not exist."""
    torch.set_num_threads(1)
    target.mkdir(parents=True)
    made = toy("mlp")
    model = made.trained()
    for title, (method, task) in requests(made).items():
        expunge.save_run(expunge.unlearn(model, method, task, seed=3), target / title)
    published = expunge.Prune.as_published()
    result = expunge.unlearn(model, published, made.absent(3), seed=3)
    settings = {
        "seed": 3,
        "method": {"name": "prune", "mode": "as_published", "rounds": 10},
        "forget": {"aim": "absent", "classes": [3]},
    }
    expunge.save_run(result, target / "prune-as-published", job=ResolvedJob(settings=settings))
    first = expunge.unlearn(model, expunge.MaskClass(), made.absent(3), seed=3)
    then = expunge.unlearn(first, expunge.LeastSquaresRemoval(), made.absent(1), seed=4)
    expunge.save_run(then, target / "sequence")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
