"""`expunge init`: a commented job file to fill in."""

from __future__ import annotations

from pathlib import Path

import typer

from expunge.cli._console import command

__all__ = ["init", "template"]

_TEMPLATE = """\
# A job for `expunge unlearn`. Relative paths are relative to this file.
seed = 0

[model]
factory = "mypkg.nets:resnet20"        # callable that returns an nn.Module
# kwargs = {{ classes = 10 }}             # what it is called with
weights = "model.safetensors"          # from a pickle: expunge convert model.pt model.safetensors
# run = "runs/earlier"                 # instead of weights: what that run forgot stays forgotten
# initial = "w0.safetensors"           # the weights before training, where kept
# head = "fc"                          # the final linear layer; found by itself otherwise

[data]
train = "mypkg.data:train"             # callable that returns a Dataset, or an npz with x, y (, id)
holdout = "mypkg.data:test"            # rows never trained on; without them the outcome stays open
# forget = "mypkg.data:forget"         # instead of train, for methods that need no other data
# ids = "ids.txt"                      # one a row; otherwise the npz's id, else the row number
# views = "images"                     # mirrored, shifted; or "mypkg.data:views": labels stay
# statistics = "S.safetensors"         # from: expunge statistics job.toml --out S.safetensors
# repeats = "expected"                 # the holdout may repeat training rows: they are left out

[forget]                               # exactly one of classes, indices, ids
classes = [1]
# indices = [3, 17]                    # or a .npy or .txt file; records of classes that stay
# ids = ["a7"]                         # or a .npy or .txt file
# aim = "absent"                       # absent for classes, unseen for records

[method]
name = "prototype-surgery"             # {names}
                                       # further keys are its settings: expunge methods --json

# [training]                           # what retrain uses; no augmentation in [data], but here
# epochs = 30
# batch_size = 128
# lr = 0.1
# momentum = 0.9
# weight_decay = 0.0005
# schedule = "cosine"                  # or constant, step
# transform = "mypkg.data:augment"     # augment(inputs, generator) -> inputs
# fit = "mypkg.train:fit"              # instead: fit(model, dataset, *, generator, device)

# [references]
# retrained = ["runs/retrained-0"]     # run folders or safetensors; the outcome needs three or more

# [limits]                             # when a run counts as ineffective or wrecked, in points
{limits}
"""


def init(
    path: Path = typer.Argument(Path("job.toml"), help="The job file to write; must not exist."),
) -> None:
    """Write a commented job file."""
    with command() as screen:
        from expunge.storage.whole import new_file, write_text

        with new_file(path) as file:
            write_text(file, template())
        screen.result(str(path))
        screen.then(f"edit {path}, then: expunge check {path}")


def template() -> str:
    """The text of a new job file; names and defaults come from the code."""
    import dataclasses

    import expunge
    from expunge.records import Limits

    return _TEMPLATE.format(
        names=", ".join(m.info.name for m in expunge.METHODS),
        limits="\n".join(f"# {f.name} = {f.default!r}" for f in dataclasses.fields(Limits)),
    )
