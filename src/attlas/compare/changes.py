"""What becomes of one weight: by an adapter's factors, or as the difference of two models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attlas.models.adapter_file import AdapterPart
from attlas.projections.low_rank import LowRank
from attlas.projections.weights import Weights, as_kept, weights_of_module


@dataclass(frozen=True, eq=False)
class Change:
    """One module's weight in the base, and what changes it; everything that is made of it is float64.

    Parameters
    ----------
    name : str
        The module in the base.
    module : torch.nn.Module
    part : AdapterPart, optional
        What an adapter adds.
    other : torch.nn.Module, optional
        The same module of a tuned model; one of the two is there.
    """

    name: str
    module: nn.Module
    part: AdapterPart | None = None
    other: nn.Module | None = None

    @property
    def before(self) -> Weights:
        """The base's weight as an (out, in) matrix, with its bias."""
        return weights_of_module(self.module, self.name)

    @property
    def after(self) -> Weights:
        """The tuned model's, where there is one."""
        return weights_of_module(self.other, self.name)

    @property
    def factored(self) -> bool:
        """Whether the change is a product of thin factors; a magnitude (DoRA) scales the whole weight."""
        return self.part is not None and self.part.magnitude is None

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return down (rank, in) and up (out, rank) of an adapter, the scaling included in `up`."""
        part = self.part
        if part is None:
            raise RuntimeError(f"{self.name}: no adapter changes it")
        device = self.before.weight.device
        return part.down.to(device, torch.float64), part.up.to(device, torch.float64) * part.scaling

    def delta(self) -> Tensor:
        """Return the change, dense, (out, in)."""
        before = self.before.weight.double()
        return self.after.weight.double() - before if self.part is None else self.part.change(before)

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (out, k), S (k,) and Vh (k, in) of the change, largest first."""
        if self.factored:
            down, up = self.factors()
            return LowRank(up, down).svd()
        u, s, vh = torch.linalg.svd(self.delta(), full_matrices=False)
        return u, s, vh

    def rank(self, singular: Tensor) -> int:
        """Return how many singular values stand above the rounding of float64."""
        if self.factored:
            down, up = self.factors()
            return int(LowRank(up, down).rank())
        largest = float(singular[0]) if len(singular) else 0.0
        noise = torch.finfo(torch.float64).eps * max(self.before.weight.shape) * largest
        return int((singular > noise).sum())

    def bias_change(self) -> float:
        """Return the norm of the change of the bias; an adapter has none."""
        if self.part is not None:
            return 0.0
        old, new = self.before.bias, self.after.bias
        if old is None or new is None:
            return 0.0
        return float((new.double() - old.double()).norm())

    def merged(self) -> Tensor:
        """Return the tuned weight as the module keeps it: in its dtype, and transposed where it is."""
        module: Any = self.module
        kept = module.weight
        total = (self.before.weight.double() + self.delta()).to(kept.dtype)
        return as_kept(self.module, total)
