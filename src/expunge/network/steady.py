"""Whether a model's answer is a function of the row: each time, alone, and in any company.

Everything else rests on it: what is edited, judged and certified is what the model says to a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from expunge.data.rows import Inputs
from expunge.errors import ModelError
from expunge.network.answers import as_logits
from expunge.network.calls import call, frozen_statistics, tried
from expunge.network.copying import copied
from expunge.network.rounding import apart
from expunge.network.state import digest_of

__all__ = ["last_rows", "refuse_unsteady"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One module's turn in a forward pass: the tensors that went in and came out."""

    name: str
    kind: str
    taken: tuple[Tensor, ...]
    given: tuple[Tensor, ...]


def last_rows(inputs: Inputs, rows: int) -> Inputs:
    """The last rows of a batch."""
    if isinstance(inputs, Tensor):
        return inputs[-rows:]
    return {name: value[-rows:] for name, value in inputs.items()}


def refuse_unsteady(model: nn.Module, company: Inputs, rows: int, name: str = "the data") -> None:
    """Raise ModelError where an answer depends on more than the row.

    `company` is a batch whose last `rows` rows are looked at: twice in it, then on their own, then
    the last one alone. The module is named where the first difference arises. A pass that writes a
    buffer is refused too, by the buffer's name.
    """
    with frozen_statistics(model), torch.no_grad():
        _refuse_writing(model, company, name)
        found = _looked(model, company, rows, name)
        if found is None:
            return
        try:
            exact = copied(model).double()
            found = _looked(exact, _doubled(company), rows, name)
        except Exception:  # noqa: BLE001 - a model that casts by itself: what was seen stands
            raise ModelError(found) from None
        if found is not None:
            raise ModelError(found)


def _looked(model: nn.Module, company: Inputs, rows: int, name: str) -> str | None:
    """What is wrong with the answers, in words; None where they are each row's own."""
    first, steps = _pass(model, company, name)
    second, again = _pass(model, company, name)
    if apart(first, second):
        return _random(_far(first, second), _origin(model, steps, again))
    if 1 < rows < len(first):
        own, aside = _pass(model, last_rows(company, rows), name)
        if apart(first[-rows:], own):
            return _by_company(_far(first[-rows:], own), _origin(model, steps, aside))
    return _single(model, last_rows(company, 1), first[-1:], steps) if len(first) > 1 else None


def _doubled(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    return {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}


def _single(model: nn.Module, row: Inputs, expected: Tensor, steps: Sequence[_Step]) -> str | None:
    """One row alone, which the model must serve as it serves several."""
    seen: list[_Step] = []
    try:
        with _watching(model, seen):
            given = call(model, _fresh(row))
        shape = tuple(getattr(getattr(given, "logits", given), "shape", ()))
        output, said = None, f"logits of shape {shape}"
        output = as_logits(given)
    except ModelError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever the model raises is its answer
        output, said = None, f"{type(error).__name__}: {error}"
    if output is None or len(output) != 1:
        return (
            f"Expected one row to be served as several are, but alone it gives {said} "
            f"{_lost_axis(model, seen, steps)}`squeeze()` loses the axis of a batch of one: name "
            "it (`squeeze(-1)`, `flatten(1)`). Batch statistics do not exist for one: give "
            "batch norm running ones."
        )
    if apart(expected, output):
        return _by_company(_far(expected, output), _origin(model, steps, seen))
    return None


def _refuse_writing(model: nn.Module, inputs: Inputs, name: str) -> None:
    """Two passes, after which the buffers must be what they were."""
    start = _buffers(model)
    _pass(model, inputs, name)
    once = _buffers(model)
    if once == start:
        return
    names = [n for n in {**start, **once} if start.get(n) != once.get(n)]
    _pass(model, inputs, name)
    listed = ", ".join(repr(n) for n in names[:3]) + (", ..." if len(names) > 3 else "")
    cure = (
        "It is a cache: run one batch through the model in eval mode before you hand it over."
        if once == _buffers(model)
        else "Let it write in training only (`if self.training:`)."
    )
    raise ModelError(
        "Expected a forward pass in eval mode to leave the model as it is, but it writes the "
        f"buffer {listed}. {cure}"
    )


def _random(far: float, where: str) -> str:
    return (
        "Expected the same answer to the same rows each time, but two passes in eval mode differ "
        f"by up to {far:.2g} in the logits; first in {where}. Switch its randomness off in eval "
        "mode: use nn.Dropout, or `F.dropout(x, p, training=self.training)`."
    )


def _by_company(far: float, where: str) -> str:
    return (
        "Expected an answer that depends on the row alone, but with other rows in its batch a row "
        f"is answered otherwise in eval mode, by up to {far:.2g} in the logits; first in {where}. "
        "Nothing may be computed across the batch: give batch norm running statistics "
        "(`track_running_stats=True`, gathered by a pass over the training data in train mode)."
    )


def _buffers(model: nn.Module) -> dict[str, str]:
    return {n: digest_of({"": t}) for n, t in model.named_buffers()}


def _fresh(inputs: Inputs) -> Inputs:
    """A copy: a model may write on its input."""
    if isinstance(inputs, Tensor):
        return inputs.clone()
    return {name: value.clone() for name, value in inputs.items()}


def _pass(model: nn.Module, inputs: Inputs, name: str) -> tuple[Tensor, list[_Step]]:
    seen: list[_Step] = []
    with _watching(model, seen):
        return as_logits(tried(model, _fresh(inputs), name)).clone(), seen


@contextmanager
def _watching(model: nn.Module, seen: list[_Step]) -> Iterator[None]:
    """Note each module's inputs and outputs, in the order in which the modules end."""
    handles = []
    taken: dict[str, list[tuple[Tensor, ...]]] = {}

    def before(name: str) -> Any:
        def hook(_module: nn.Module, args: Any) -> None:
            taken.setdefault(name, []).append(_tensors(args))

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            given = _tensors(output)
            seen.append(_Step(name, type(module).__name__, taken[name].pop(), given))

        return hook

    try:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            handles.append(module.register_forward_pre_hook(before(name)))
            handles.append(module.register_forward_hook(after(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> tuple[Tensor, ...]:
    """The floating tensors in what a module takes or gives, as they are now."""
    if isinstance(value, Tensor):
        return (value.detach().clone(),) if value.is_floating_point() else ()
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return tuple(t for part in value for t in _tensors(part))
    return ()


def _far(a: Tensor, b: Tensor) -> float:
    apart = (a.double() - b.double()).abs()
    return float(apart[torch.isfinite(apart)].max()) if apart.isfinite().any() else float("inf")


def _origin(model: nn.Module, one: Sequence[_Step], other: Sequence[_Step]) -> str:
    """The first module whose output differs; the one around it where its input differs too."""
    kinds = {n: type(m).__name__ for n, m in model.named_modules()}
    for a, b in zip(one, other, strict=False):
        if a.name != b.name:
            break
        if not _differ(a.given, b.given):
            continue
        if not _differ(a.taken, b.taken):
            return f"the module {a.name!r} ({a.kind})" if a.name else f"the model ({a.kind})"
        around = a.name.rpartition(".")[0]
        return f"{_named(around, kinds)}, in its own forward pass before {a.name!r}"
    return f"the forward pass of {kinds['']}"


def _named(name: str, kinds: Mapping[str, str]) -> str:
    return f"the module {name!r} ({kinds[name]})" if name else f"the model ({kinds['']})"


def _differ(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether some tensors differ on the rows that both batches have: the last ones."""
    for a, b in zip(one, other, strict=False):
        if a.ndim == 0 or a.shape[1:] != b.shape[1:]:
            continue
        rows = min(len(a), len(b))
        if rows and apart(a[-rows:], b[-rows:]):
            return True
    return False


def _lost_axis(model: nn.Module, alone: Sequence[_Step], several: Sequence[_Step]) -> str:
    """Where one row first has fewer axes than several have; nothing where that is not seen."""
    kinds = {n: type(m).__name__ for n, m in model.named_modules()}
    for a, b in zip(alone, several, strict=False):
        if a.name != b.name:
            break
        if [t.ndim for t in a.taken] != [t.ndim for t in b.taken]:
            return f"(in {_named(a.name.rpartition('.')[0], kinds)}, before {a.name!r}). "
        if [t.ndim for t in a.given] != [t.ndim for t in b.given]:
            return f"(in {_named(a.name, kinds)}). "
    return "(in the model's own forward pass). "
