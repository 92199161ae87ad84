"""What attention and its gradient give together: the positive part of their product, and sums that need no pass."""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.capture.attended import Attended, Gradients
from attlas.matrix import AttentionGradient, AttentionOperator, Positive, Product


def relevance(attended: Attended, value: Tensor, gradients: Gradients) -> AttentionOperator:
    """Return ``(A ⊙ ∂A)⁺`` of a call, lazily."""
    return Positive(Product(attended.matrix, AttentionGradient(attended.matrix, gradients.output, value)))


def depends(gradients: Gradients) -> Tensor:
    """Tell on which queries the target depends, (n_query,), on the CPU: the others have no gradient at all."""
    return (gradients.output[0] != 0).any(-1).any(0).cpu()


def paired(tensor: Tensor, gradient: Tensor) -> Tensor:
    """Return ``Σ_heads ⟨X_j, dX_j⟩`` for every key, (n_key,), float64 on the CPU."""
    return torch.einsum("hjd,hjd->j", tensor[0].double(), gradient[0].double()).cpu()
