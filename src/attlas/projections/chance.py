"""What unrelated heads would give: exact moments under a random rotation, and spectra of random factors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from attlas.projections import factors
from attlas.projections.factors import Factors

DRAWS = 64
"""How many random heads stand behind the chance level of a spectrum."""


def rotation_variance(d: int, left_share: Tensor | float, right_share: Tensor | float) -> Tensor:
    """Return the variance of ``‖A O B‖² / (‖A‖² ‖B‖²)`` over all rotations O of d dimensions; its mean is 1/d.

    Parameters
    ----------
    d : int
        The dimension between A and B.
    left_share, right_share : Tensor or float
        ``Σσ⁴ / (Σσ²)²`` of A and of B: the inverse of their participation. They broadcast.

    Notes
    -----
    With ``p = σ²(A)/‖A‖²`` and ``q = σ²(B)/‖B‖²`` the score is ``Σ pᵢ qⱼ Oᵢⱼ²``. For O uniform on the orthogonal group
    ``E[Oᵢⱼ²] = 1/d`` and ``E[Oᵢⱼ² Oₖₗ²]`` is ``3/(d(d+2))`` for the same entry, ``1/(d(d+2))`` in the same row or
    column, and ``(d+1)/(d(d−1)(d+2))`` otherwise (Collins and Śniady 2006, for the orthogonal group). Summed up:

        variance = 2 (Σp² − 1/d) (Σq² − 1/d) / ((d − 1)(d + 2)).

    It is 0 where all directions of A, or of B, count the same: then no rotation changes anything.
    """
    if d == 1:
        return torch.zeros(())
    left, right = (torch.as_tensor(share, dtype=torch.float64) - 1 / d for share in (left_share, right_share))
    return 2 * left.clamp(min=0) * right.clamp(min=0) / ((d - 1) * (d + 2))


@dataclass(frozen=True)
class Chance:
    """What random heads of the same shape give: the mean and the standard deviation of each number over the draws.

    Parameters
    ----------
    mean, deviation : dict
        A name as in `summary` -> float.
    draws : int
        How many heads were drawn.
    """

    mean: dict[str, float]
    deviation: dict[str, float]
    draws: int


def summary(singular: Tensor, eigen: Tensor | None) -> dict[str, Tensor]:
    """Return what a spectrum is summed up in, each (…), float64; "positivity" only where there are eigenvalues."""
    numbers = {
        "effective_rank": factors.effective_rank(singular),
        "stable_rank": factors.stable_rank(singular),
        "rank_90": factors.rank_without(singular, 0.1).double(),
    }
    return numbers if eigen is None else numbers | {"positivity": factors.positivity(eigen)}


@lru_cache(maxsize=64)
def of_random_heads(rows: int, width: int, cols: int) -> Chance:
    """Sum up the spectra of products of two factors of independent Gaussian numbers; always the same draws."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # One at a time, so that memory does not grow with the number of draws.
    found: dict[str, list[Tensor]] = {}
    for _ in range(DRAWS):
        product = Factors.of(draw(rows, width), draw(width, cols))
        for name, value in summary(product.svdvals(), product.eigvals() if rows == cols else None).items():
            found.setdefault(name, []).append(value)
    values = {name: torch.stack(numbers) for name, numbers in found.items()}
    return Chance(
        mean={name: float(value.mean()) for name, value in values.items()},
        deviation={name: float(value.std()) for name, value in values.items()},
        draws=DRAWS,
    )
