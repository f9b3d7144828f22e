"""Copies of rows: what a record looks like when it is not the stored one.

A model that keeps a table of answers for the stored rows is found out on rows beside them: views
that keep the label in the user's word, and one noisy copy of each row. Both are `Rows` with the
labels and ids of those they were made of, read on demand. No global random state is touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from expunge.data.digests import digests_of
from expunge.data.images import image_views
from expunge.data.rows import Inputs, Rows
from expunge.errors import DataError

__all__ = [
    "NOISE",
    "Spread",
    "Views",
    "checked_views",
    "noisy",
    "refuse_unfit_views",
    "spread_of",
    "viewed",
]

NOISE = 0.1
"""The noise of a noisy copy, as a share of the data's spread."""

Views = Callable[[Inputs], Sequence[Inputs]]
"""Takes a batch, and returns a non-empty list of batches of the same names, shapes and types.

Each is a view of every row that keeps its label, in the word of who names it. It must be the same
each time, and as many for every batch.
"""

Spread = Tensor | dict[str, Tensor]
"""The standard deviation of floating inputs, shaped to be multiplied with a batch.

(d,) for tables (n, d), (c, 1, 1) for images (n, c, h, w), () for rows of one or two axes without
channels; a dict for named inputs, without those that are no floating numbers.
"""

_SAMPLE = 2_000
_BATCH = 256
_FEW = 8


def checked_views(spec: str | Views | None) -> Views | None:
    """The function that makes views; None for None and "none"; raises DataError for the rest."""
    if spec is None or spec == "none":
        return None
    if spec == "images":
        return image_views
    if isinstance(spec, str) or not callable(spec):
        raise DataError(
            'Expected `views` to be "images", "none" or a function from a batch to a list of '
            f'batches, got {spec!r}. A job imports "package.module:name"; here pass the function.'
        )
    return spec


def viewed(rows: Rows, views: Views) -> tuple[Rows, ...]:
    """The rows once for each view, with the same labels and ids; the first row tells how many.

    Raises DataError, at the latest when read, where a view does not fit the rows.
    """
    first, _ = rows.batch(torch.arange(min(1, len(rows))))
    count = len(_applied(views, first))

    def view(number: int) -> Rows:
        def read(index: Tensor) -> tuple[Inputs, Tensor]:
            inputs, labels = rows.read(index)
            made = _applied(views, inputs)
            if len(made) != count:
                raise DataError(
                    f"Expected `views` to give as many views for every batch, got {len(made)} "
                    f"after {count}. Return a list of one length."
                )
            return made[number], labels

        return dataclasses.replace(rows, read=read, digests=None)

    return tuple(view(number) for number in range(count))


def refuse_unfit_views(views: Views, rows: Rows, name: str) -> None:
    """Raise DataError where `views` does not serve these rows: a few of them are tried, twice."""
    few = torch.linspace(0, len(rows) - 1, min(_FEW, len(rows))).long()
    inputs, _ = rows.batch(few)
    try:
        first, second = (_applied(views, _cloned(inputs)) for _ in range(2))
    except DataError as error:
        raise DataError(f"{error} (Tried on rows of `{name}`.)") from error
    same = len(first) == len(second) and all(
        torch.equal(value, _parts(other)[part])
        for view, other in zip(first, second, strict=True)
        for part, value in _parts(view).items()
    )
    if not same:
        raise DataError(
            f"Expected `views` to give the same views each time, but making those of {len(few)} "
            f"rows of `{name}` twice gave different values. Draw nothing at random in it, or draw "
            "from a generator with a seed of its own."
        )


def _applied(views: Views, inputs: Inputs) -> tuple[Inputs, ...]:
    """The views of a batch; raises DataError where they are not of the batch's form."""
    try:
        made: Any = views(inputs)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"Expected `views` to make views of a batch, but it raised {type(error).__name__}: "
            f"{error}. Fix the function, or name none."
        ) from error
    if not isinstance(made, (list, tuple)) or not made:
        got = f"an empty {type(made).__name__}" if made == [] or made == () else type(made).__name__
        raise DataError(
            f"Expected `views` to return a list of batches, one a view, got {got}. Return "
            "[view, ...], each of the form of the batch."
        )
    for number, view in enumerate(made):
        _refuse_unlike(view, inputs, number)
    return tuple(made)


def _refuse_unlike(view: Any, inputs: Inputs, number: int) -> None:
    if isinstance(inputs, Tensor) != isinstance(view, Tensor) or not isinstance(
        view, (Tensor, dict)
    ):
        form = "a tensor" if isinstance(inputs, Tensor) else "a dict of tensors"
        raise DataError(
            f"Expected every view to be {form}, like the batch, got {type(view).__name__} as view "
            f"{number}. Return views of the batch's own form."
        )
    wanted, found = _parts(inputs), _parts(view)
    if wanted.keys() != found.keys():
        raise DataError(
            f"Expected every view to hold the inputs {sorted(wanted)}, got {sorted(found)} in view "
            f"{number}. Return what does not change as it came."
        )
    for name, value in found.items():
        like = wanted[name]
        if not isinstance(value, Tensor):
            raise DataError(
                f"Expected every view to hold tensors, got {type(value).__name__} for {name!r} in "
                f"view {number}. Return tensors."
            )
        if value.shape != like.shape or value.dtype != like.dtype:
            raise DataError(
                f"Expected every view to have the shape {tuple(like.shape)} and type {like.dtype} "
                f"of the batch, got {tuple(value.shape)} and {value.dtype} in view {number}. One "
                "view of every row, in the batch's order."
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(
                f"Expected finite views, got NaN or infinity in view {number}. Fix the function "
                "(a division by zero?)."
            )


def _parts(inputs: Inputs) -> dict[str, Tensor]:
    return {"": inputs} if isinstance(inputs, Tensor) else inputs


def _cloned(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs.clone()
    return {name: value.clone() for name, value in inputs.items()}


@final
@dataclass(frozen=True, slots=True)
class _Moments:
    """Count, mean (k,) and sum of squared distances to it (k,), in double precision."""

    count: int
    mean: Tensor
    squares: Tensor

    @staticmethod
    def of(value: Tensor) -> _Moments:
        """Those of a batch: of each feature of a table, each channel of an image, else of all."""
        wide = value.double()
        if value.ndim != 2:
            wide = wide.movedim(1, -1) if value.ndim > 3 else wide.unsqueeze(-1)
        flat = wide.reshape(-1, wide.shape[-1])
        mean = flat.mean(0)
        return _Moments(len(flat), mean, ((flat - mean) ** 2).sum(0))

    def joined(self, other: _Moments) -> _Moments:
        """Those of both batches together (Chan, Golub and LeVeque 1979)."""
        count, apart = self.count + other.count, other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        return _Moments(count, self.mean + apart * (other.count / count), squares)


def spread_of(*rows: Rows) -> Spread | None:
    """The standard deviation of the inputs of all these rows; None where none is floating.

    Of each feature of tables (n, d), of each channel of (n, c, h, w) and beyond, and of everything
    together for (n,) and (n, h, w). At most 2,000 rows are read, drawn with a seed of their own.
    """
    total = sum(len(part) for part in rows)
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:_SAMPLE].sort()[0]
    found: dict[str, _Moments] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    start, plain = 0, False
    for part in rows:
        own = drawn[(drawn >= start) & (drawn < start + len(part))] - start
        start += len(part)
        for inputs, _ in part.batches(_BATCH, own) if len(own) else ():
            plain = isinstance(inputs, Tensor)
            for name, value in _parts(inputs).items():
                if value.is_floating_point():
                    more = _Moments.of(value.cpu())
                    found[name] = found[name].joined(more) if name in found else more
                    shapes[name] = _each(value)
    spread = {name: (m.squares / m.count).sqrt().reshape(shapes[name]) for name, m in found.items()}
    if not spread:
        return None
    return spread[""] if plain else spread


def _each(value: Tensor) -> tuple[int, ...]:
    """The shape in which a spread is multiplied with such a batch."""
    if value.ndim == 2:
        return (value.shape[1],)
    return (value.shape[1], *(1,) * (value.ndim - 2)) if value.ndim > 3 else ()


def noisy(rows: Rows, spread: Spread, *, seed: int) -> Rows:
    """One noisy copy of each row: inputs + 0.1 · spread · N(0, 1), with the same labels and ids.

    The noise of a row is drawn from the seed and the digest of the row's own content: it is the
    same whenever and beside whatever the row is read. Inputs that are no floating numbers stay as
    they are, and so does the type of all.
    """
    scales = _parts(spread)
    known = dict(zip(rows.index.tolist(), rows.digests or (), strict=False))

    def read(index: Tensor) -> tuple[Inputs, Tensor]:
        inputs, labels = rows.read(index)
        told = [known[i] for i in index.tolist()] if known else digests_of(inputs, len(labels))
        draws = [_generator(seed, digest) for digest in told]
        copies = {
            name: _with_noise(value, scales[name], draws)
            if value.is_floating_point() and name in scales
            else value
            for name, value in sorted(_parts(inputs).items())
        }
        if isinstance(inputs, Tensor):
            return copies[""], labels
        return {name: copies[name] for name in inputs}, labels

    return dataclasses.replace(rows, read=read, digests=None)


def _generator(seed: int, digest: bytes) -> torch.Generator:
    own = hashlib.sha256(f"{seed}\0".encode() + digest).digest()
    return torch.Generator().manual_seed(int.from_bytes(own[:8], "big") >> 1)


def _with_noise(value: Tensor, spread: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    if not draws:
        return value
    shape, exact = value.shape[1:], torch.promote_types(value.dtype, torch.float32)
    noise = torch.stack([torch.randn(shape, generator=g, dtype=exact) for g in draws])
    scaled = NOISE * spread.to(noise) * noise
    return (value.to(exact) + scaled.to(value.device)).to(value.dtype)
