"""A ReLU network with patches on linear regions (REASSURE), as PRUNE forgets records.

A ReLU network is affine on the region S = {x : A x ≤ b} of inputs that share one activation
pattern, one row per hidden ReLU. A patch adds a shift d to the logits on S, through a support
network that is 1 on S and falls to 0 beside it; several records may share one patch.

Equations: n_S(x) = max(0, 1 − Σ_j min(1, λ·viol_j(x))), viol_j = max(0, a_j·x − b_j), ‖a_j‖₁ = 1;
g = max over the records of a patch of n_S; c(x) = ReLU(d + H g − H) − ReLU(−d + H g − H) with
H = max|d|; out = base(x) + Σ c(x).
Reference: F. Fu, W. Li, "Sound and Complete Neural Network Repair with Minimality and Locality
Guarantees" (REASSURE), ICLR 2022; X. Li et al., PRUNE, arXiv 2505.06520.
What we do differently: everything is in the state dict. A region is held as its activation pattern
and the scales of its rows, not as a dense A: the rows follow from the hidden weights, so a linear
pass with the pattern held fixed gives the same support from N bits and N numbers a record instead
of N·n. Rows are scaled so that λ means an ℓ∞ distance. Patches are evaluated in float64 and
violations below the rounding of any summation order count as none, so the support on S is 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expunge.errors import ModelError

__all__ = ["ROUNDING", "RegionPatched", "inside", "rebuild", "supports"]

ROUNDING = 2.0**-40
"""Violations below this share of the sum of absolute terms count as float64 rounding.

Covers any summation order for layers of up to some thousand inputs.
"""

_CHUNK = 2**22

Affine = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out,) of one linear layer."""


def supports(
    hidden: Sequence[Affine],
    active: Bool[Tensor, "records units"],
    steepness: Float[Tensor, "records units"],
    x: Float[Tensor, "rows inputs"],
) -> Float[Tensor, "rows records"]:
    """max(0, 1 − Σ_j min(1, λ·viol_j)) of every row for every record's region, float64.

    `hidden` are the layers below the logits, `active` the activation patterns, `steepness` is
    λ/‖a_j‖₁. The first layer is the same for every record: two matrix products give its share for
    all, and only pairs (row, record) that it leaves open go through the deeper layers. Leaving out
    min(1, ·) changes nothing: a term of 1 or more shuts the support either way.
    """
    weight, bias = hidden[0]
    width = len(weight)
    z, size = x @ weight.T + bias, x.abs() @ weight.abs().T + bias.abs()
    on, steep = active[:, :width], steepness[:, :width]
    below, above = torch.relu(-z - ROUNDING * size), torch.relu(z - ROUNDING * size)
    total = below @ (steep * on).T + above @ (steep * ~on).T
    gate = torch.relu(1.0 - total)
    if len(hidden) == 1:
        return gate
    row, record = (gate > 0).nonzero(as_tuple=True)
    most = max(1, _CHUNK // max(len(w) for w, _ in hidden))
    parts = [
        torch.relu(gate[r, m] - _deeper(hidden[1:], active[m], steepness[m], width, z[r], size[r]))
        for r, m in zip(row.split(most), record.split(most), strict=True)
    ]
    return torch.zeros_like(gate).index_put((row, record), torch.cat(parts))


def _deeper(
    layers: Sequence[Affine],
    active: Bool[Tensor, "pairs units"],
    steepness: Float[Tensor, "pairs units"],
    start: int,
    z: Float[Tensor, "pairs width"],
    size: Float[Tensor, "pairs width"],
) -> Float[Tensor, " pairs"]:
    """Σ λ·viol_j over the units of the layers above the first, with the patterns held fixed."""
    total = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    before = slice(0, start)
    for weight, bias in layers:
        on = active[:, before]
        z = (z * on) @ weight.T + bias
        size = (size * on) @ weight.abs().T + bias.abs()
        before = slice(before.stop, before.stop + len(weight))
        wrong = torch.where(active[:, before], -z, z)
        total = total + (torch.relu(wrong - ROUNDING * size) * steepness[:, before]).sum(1)
    return total


@final
class RegionPatched(nn.Module):
    """`base` plus patches on linear regions; returns logits in the base's dtype.

    `hidden` are the (weight, bias) pairs below the logits, `classes` is K. Buffers, all in the
    state dict: `active` (M, N) and `steepness` (M, N) a record with a region, `owner` (M,) its
    patch, `shift` (P, K) a patch, and float64 copies of the hidden layers, which fix the regions
    whatever is done to the base later. Where no support is open the output is the base's, exactly.
    Not for half precision: the patch tensors must stay float64 (ModelError).
    """

    active: Tensor
    steepness: Tensor
    owner: Tensor
    shift: Tensor

    def __init__(self, base: nn.Module, hidden: Sequence[Affine], classes: int) -> None:
        super().__init__()
        self.base = base
        self.training = base.training
        self.depth = len(hidden)
        for i, (weight, bias) in enumerate(hidden):
            self.register_buffer(f"weight_{i}", weight.detach().double().clone())
            self.register_buffer(f"bias_{i}", bias.detach().double().clone())
        units = sum(len(weight) for weight, _ in hidden)
        device = hidden[0][0].device
        empty = torch.zeros(0, units, dtype=torch.float64, device=device)
        self.register_buffer("active", empty.bool())
        self.register_buffer("steepness", empty)
        self.register_buffer("owner", torch.zeros(0, dtype=torch.int64, device=device))
        self.register_buffer("shift", empty.new_zeros(0, classes))

    @property
    def hidden(self) -> list[Affine]:
        """The (weight, bias) pairs that fix the regions."""
        return [
            (self.get_buffer(f"weight_{i}"), self.get_buffer(f"bias_{i}"))
            for i in range(self.depth)
        ]

    @property
    def patch_bytes(self) -> int:
        """Bytes of everything that was added to the base."""
        return sum(b.numel() * b.element_size() for b in self.buffers(recurse=False))

    def add(
        self,
        active: Bool[Tensor, "members units"],
        steepness: Float[Tensor, "members units"],
        shift: Float[Tensor, " classes"],
    ) -> None:
        """Append one patch: `shift` on the regions of its members."""
        owner = torch.full((len(active),), len(self.shift), dtype=torch.int64)
        self.active = torch.cat([self.active, active.to(self.active)])
        self.steepness = torch.cat([self.steepness, steepness.to(self.steepness)])
        self.owner = torch.cat([self.owner, owner.to(self.owner)])
        self.shift = torch.cat([self.shift, shift.to(self.shift)[None]])

    def twin(self, base: nn.Module) -> Self:
        """A copy of the patches around `base`, sharing nothing with this module but `base`."""
        other = type(self)(base, self.hidden, self.shift.shape[1])
        for name in ("active", "steepness", "owner", "shift"):
            setattr(other, name, getattr(self, name).clone())
        return other

    def gates(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows patches"]:
        """The largest support among the records of each patch: 1 on their regions."""
        if self.steepness.dtype != torch.float64:
            raise ModelError(
                f"Expected the patch tensors in float64, got {self.steepness.dtype}: their gates "
                "would not be 1 on the regions. Move the model with `.to(device)`, and cast "
                "`model.base` alone."
            )
        each = supports(self.hidden, self.active, self.steepness, x.flatten(1).double())
        owner: Int[Tensor, "rows records"] = self.owner.expand(len(x), -1)
        return each.new_zeros(len(x), len(self.shift)).scatter_reduce(1, owner, each, "amax")

    def correction(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows classes"]:
        """Σ c(x), float64: exactly 0 where every gate is 0, and d where one gate is 1."""
        gate = self.gates(x)
        row, patch = (gate > 0).nonzero(as_tuple=True)
        shift = self.shift[patch]
        height = shift.abs().amax(1, keepdim=True)
        drop = height * gate[row, patch][:, None] - height
        change = torch.relu(shift + drop) - torch.relu(drop - shift)
        return gate.new_zeros(len(x), self.shift.shape[1]).index_add(0, row, change)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of inputs (batch, ...)."""
        logits: Tensor = self.base(x)
        return (logits.double() + self.correction(x)).to(logits.dtype)


def inside(model: nn.Module) -> nn.Module:
    """The model, or the one inside patches on linear regions: its tensors keep their names."""
    return model.base if isinstance(model, RegionPatched) else model


def rebuild(base: nn.Module, state: Mapping[str, Tensor], *, prefix: str = "") -> RegionPatched:
    """A `RegionPatched` of the sizes in `state`, holding it; `base` is overwritten with its part.

    `prefix` is what its names start with, as "model.". Raises ModelError where `state` holds no
    patches or does not fit `base`.
    """
    own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    depth = sum(name.startswith("weight_") for name in own)
    wanted = {"active", "steepness", "owner", "shift"}
    wanted |= {f"{part}_{i}" for i in range(max(depth, 1)) for part in ("weight", "bias")}
    if missing := sorted(wanted - own.keys()):
        raise ModelError(
            f"Expected a state with region patches, but it has no {', '.join(missing)}. Give the "
            "state dict of a RegionPatched model, and `prefix` if its names have one."
        )
    hidden = [(own[f"weight_{i}"], own[f"bias_{i}"]) for i in range(depth)]
    patched = RegionPatched(base, hidden, own["shift"].shape[1])
    for name in ("active", "steepness", "owner", "shift"):
        setattr(patched, name, torch.empty_like(own[name]))
    try:
        patched.load_state_dict(dict[str, Any](own))
    except RuntimeError as error:
        raise ModelError(
            f"Expected a state that fits the base model, but loading it raised {error}. Build "
            "`base` with the factory of the model that was patched."
        ) from error
    return patched
