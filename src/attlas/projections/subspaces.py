"""How two subspaces lie to each other: principal angles, and their overlap beside that of random ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.projections.chance import rotation_variance
from attlas.projections.factors import of_each


@dataclass(frozen=True, eq=False)
class Subspaces:
    """Two subspaces of the same space; all float64.

    Parameters
    ----------
    angles : Tensor, (…, k)
        Principal angles in radians, smallest first; k is the smaller of the two bases' widths. Right angles stand for
        directions that a subspace lacks. Angles below about 1e-8 cannot be told from 0.
    overlap : Tensor, (…)
        ``Σ cos²`` of the angles, which is ``‖U₁ᵀU₂‖²``: 0 for orthogonal subspaces, min(r₁, r₂) where one lies within
        the other. Known as the projection kernel.
    chance : Tensor, (…)
        Its mean for random subspaces of the same dimensions, ``r₁r₂/d``, exact.
    deviation : Tensor, (…)
        Its standard deviation for those, exact.
    """

    angles: Tensor
    overlap: Tensor
    chance: Tensor
    deviation: Tensor

    @property
    def z(self) -> Tensor:
        """How many standard deviations the overlap lies above chance; 0 where all subspaces overlap alike."""
        above = (self.overlap - self.chance) / torch.where(self.deviation > 0, self.deviation, 1.0)
        return torch.where(self.deviation > 0, above, 0.0)


def compare_subspaces(first: Tensor, second: Tensor) -> Subspaces:
    """Compare the spaces of two bases (…, d, k), whose columns are orthonormal, or zero where there are fewer."""
    cosines = of_each(lambda matrix: (torch.linalg.svdvals(matrix),), first.mT @ second)[0].clamp(max=1.0)
    (r1, r2), d = ((basis.square().sum((-2, -1)).round() for basis in (first, second)), first.shape[-2])
    spread = rotation_variance(d, 1 / r1.clamp(min=1), 1 / r2.clamp(min=1)).sqrt()
    return Subspaces(
        angles=torch.arccos(cosines),
        overlap=cosines.square().sum(-1),
        chance=r1 * r2 / d,
        deviation=r1 * r2 * spread,
    )


def basis(tall: Tensor) -> Tensor:
    """Return an orthonormal basis of what the columns of (…, d, k) span, float64; zeros where there is no direction."""
    q, r = of_each(torch.linalg.qr, tall.detach().double())
    u, s, _ = of_each(lambda matrix: torch.linalg.svd(matrix, full_matrices=False), r)
    noise = torch.finfo(torch.float64).eps * max(tall.shape[-2:]) * s[..., :1]
    return (q @ u) * (s > noise)[..., None, :]
