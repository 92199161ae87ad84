"""Spectra of stacked thin factors: QR of each factor, and a small core between them; float64 inside.

With ``left = Q₁R₁`` and ``rightᵀ = Q₂R₂`` the product ``left·right`` is ``Q₁(R₁R₂ᵀ)Q₂ᵀ``: its singular values are those
of the core ``R₁R₂ᵀ``, which is no larger than the factors are wide. No Gram matrix is made, because its rounding would
hide everything below the square root of the precision: the difference of two nearly equal products, above all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.errors import NonFiniteError, complaint
from attlas.matrix.threads import each

# Powers of two beyond these would themselves overflow in float64.
_LARGEST_EXPONENT = 1000
_WORTH_A_THREAD = 2**16


@dataclass(frozen=True, eq=False)
class Factors:
    """Two factors in float64, scaled so that neither their squares nor their product can overflow.

    Parameters
    ----------
    left : Tensor, (…, rows, width)
        Its largest entry lies between 1/2 and 1, unless all are 0.
    right : Tensor, (…, width, cols)
        Likewise.
    exponents : (Tensor, Tensor), each (…), float64 whole numbers
        The product is ``left @ right`` times two to the power of each.
    """

    left: Tensor
    right: Tensor
    exponents: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> Factors:
        """Bring two factors into float64.

        Raises
        ------
        NonFiniteError
            A number is NaN or infinite.
        """
        (first, up), (second, down) = _scaled("left", left), _scaled("right", right)
        return cls(first, second, (up, down))

    def unscaled(self, values: Tensor, axes: int = 0) -> Tensor:
        """Give numbers of the product the powers of two back; their last `axes` axes are not batch."""
        for exponent in self.exponents:
            values = values * torch.exp2(exponent.reshape(exponent.shape + (1,) * axes))
        return values

    def core(self) -> Tensor:
        """Return ``R₁R₂ᵀ``, (…, ≤ width, ≤ width)."""
        return triangle(self.left) @ triangle(self.right.mT).mT

    def rounding(self) -> Tensor:
        """Return the size below which a singular value of the scaled product is noise, (…)."""
        size = torch.linalg.matrix_norm(self.left) * torch.linalg.matrix_norm(self.right)
        return torch.finfo(torch.float64).eps * max(*self.left.shape[-2:], self.right.shape[-1]) * size

    def svdvals(self) -> Tensor:
        """Return the singular values of the scaled product, largest first, (…, min(rows, cols, width))."""
        return of_each(lambda matrix: (torch.linalg.svdvals(matrix),), self.core())[0]

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (…, rows, k), S (…, k), Vh (…, k, cols) of the scaled product, k = min(rows, cols, width)."""
        first, upper = of_each(torch.linalg.qr, self.left)
        second, lower = of_each(torch.linalg.qr, self.right.mT)
        u, s, vh = of_each(lambda matrix: torch.linalg.svd(matrix, full_matrices=False), upper @ lower.mT)
        return first @ u, s, vh @ second.mT

    def eigvals(self) -> Tensor:
        """Return those eigenvalues of the scaled square product that can differ from 0, (…, min(rows, width))."""
        rows, width = self.left.shape[-2:]
        small = self.right @ self.left if width <= rows else self.left @ self.right
        return of_each(lambda matrix: (torch.linalg.eigvals(matrix),), small)[0]

    def inner(self, other: Factors) -> Tensor:
        """Return the sum of the products of the entries of both scaled products, (…)."""
        return ((self.left.mT @ other.left) * (self.right @ other.right.mT)).sum((-2, -1))


def _scaled(name: str, factor: Tensor) -> tuple[Tensor, Tensor]:
    factor = factor.detach()
    largest = factor.abs().amax((-2, -1)).double()
    if not bool(largest.isfinite().all()):
        raise NonFiniteError(complaint(name, wanted="finite numbers", got="NaN or infinity"))
    exponent = torch.frexp(largest).exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).double()
    return factor.to(torch.float64, copy=True).mul_(torch.exp2(-exponent[..., None, None])), exponent


def of_each(work: Callable[[Tensor], tuple[Tensor, ...]], stack: Tensor) -> tuple[Tensor, ...]:
    """Apply `work` to every matrix of a stack (…, rows, cols): on a CPU an equal part of them on each thread.

    `work` is given some of the matrices, (n, rows, cols), and its answers are stacked likewise.
    """
    flat = stack.reshape(-1, *stack.shape[-2:])
    # Handing work to a thread costs more than decomposing a few small matrices.
    parts = torch.get_num_threads() if stack.device.type == "cpu" and stack.numel() > _WORTH_A_THREAD else 1
    done = each(work, flat.tensor_split(min(parts, len(flat))), stack.device)
    joined = (torch.cat(answer) for answer in zip(*done, strict=True))
    return tuple(answer.reshape(stack.shape[:-2] + answer.shape[1:]) for answer in joined)


def triangle(tall: Tensor) -> Tensor:
    """Return R of ``tall = QR``, (…, min(rows, cols), cols)."""
    return of_each(lambda matrix: (torch.linalg.qr(matrix, mode="r").R,), tall)[0]


def effective_rank(singular: Tensor) -> Tensor:
    """Return ``exp(−Σ p ln p)``, p the singular values over their sum; 0 for a zero matrix (Roy and Vetterli 2007)."""
    share = ratio(singular, singular.sum(-1, keepdim=True))
    return torch.where(singular[..., 0] > 0, torch.exp(-torch.special.xlogy(share, share).sum(-1)), 0.0)


def stable_rank(singular: Tensor) -> Tensor:
    """Return ``Σσ² / σ₁²``; 0 for a zero matrix (Rudelson and Vershynin 2007)."""
    return ratio(singular, singular[..., :1]).square().sum(-1)


def participation(singular: Tensor) -> Tensor:
    """Return ``(Σσ²)² / Σσ⁴``: how many directions share the energy; 0 for a zero matrix."""
    energy = ratio(singular, singular[..., :1]).square()
    return ratio(energy.sum(-1).square(), energy.square().sum(-1))


def rank_without(singular: Tensor, share: float) -> Tensor:
    """Return how many singular values leave out at most a `share` of ``Σσ²``, int64; 0 for a zero matrix."""
    energy = ratio(singular, singular[..., :1]).square()
    # Summed from the smallest, so that what is left out does not drown in the rounding of what is kept.
    left_out = energy.flip(-1).cumsum(-1).flip(-1)
    return (left_out > share * left_out[..., :1]).sum(-1)


def positivity(eigen: Tensor) -> Tensor:
    """Return ``Σ Re λ / Σ |λ|``, from −1 to 1; 0 for a zero matrix (Elhage et al. 2021)."""
    return ratio(eigen.real.sum(-1), eigen.abs().sum(-1))


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide; 0 where the whole is 0."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
