"""How much of what every head writes another head reads, for all pairs of heads of two layers, in bounded memory.

A score is the Frobenius norm of ``writer · face · tailᵀ``: the writer (value_dim × d_model) is what a head writes, but
for a rotation of its inside; the face (d_model × dim) is what another head reads, and its tail (dim × dim) what it does
with that. Heads that share a key or value head share its face, so it is multiplied once and never copied.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.matrix.threads import each
from attlas.projections.factors import Factors, ratio, triangle


def writers(value: Tensor, output: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return ``R·W_O`` with ``W_V = QR``, scaled to norm 1, and the share of its directions.

    Parameters
    ----------
    value : Tensor, (kv_head, d_key, value_dim)
        W_V.
    output : Tensor, (head, value_dim, d_out)
        W_O.
    dtype : torch.dtype
        In which the writers are returned.

    Returns
    -------
    writers : Tensor, (head, k, d_out)
        As W_V·W_O, but for an orthonormal factor from the left, which changes no norm; zero for a zero head.
    share : Tensor, (head,), float64
        ``Σσ⁴ / (Σσ²)²``.
    """
    front, share = tails(output.mT, value, dtype)
    return front @ output.to(front), share


def tails(face: Tensor, behind: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return R of ``behind = QR``, scaled so that ``face · Rᵀ`` has norm 1, and the share of its directions.

    Parameters
    ----------
    face : Tensor, (face, d_model, dim)
        One for each head, or one for each kv head.
    behind : Tensor, (behind, d, dim)
        Likewise; the number of one divides that of the other.
    dtype : torch.dtype
        In which the tails are returned.

    Returns
    -------
    tails : Tensor, (head, k, dim)
        ``face · tailᵀ`` is as ``face · behindᵀ``, but for an orthonormal factor from the right; zero for a zero head.
    share : Tensor, (head,), float64
        ``Σσ⁴ / (Σσ²)²``.
    """
    shared = min(len(face), len(behind))
    faces, behinds = (weight.unflatten(0, (shared, -1)) for weight in (face, behind))

    def one(i: int) -> tuple[Tensor, Tensor]:
        product = Factors.of(faces[i], behinds[i].mT)
        back = triangle(product.right.mT)
        size, share = _sizes(product.left, back)
        # The face itself stays as it is in the model, so the power of two that was taken out of it goes into the tail.
        size = size * torch.exp2(product.exponents[0][..., None, None])
        return (back / size).to(dtype), share

    return _gathered(each(one, range(shared), face.device))


def pair_scores(writers: Tensor, face: Tensor, tails: Tensor | None, memory: int) -> Tensor:
    """Return the norm of ``writer · face · tailᵀ`` for every pair, (writer, head).

    Parameters
    ----------
    writers : Tensor, (writer, k, d_model)
        Of one or more layers.
    face : Tensor, (face, d_model, dim)
        Of one layer; a view of its weights.
    tails : Tensor, (head, k', dim), or None
        A whole number of heads for each face; None for the face alone.
    memory : int
        About how many bytes may be used meanwhile; at least what one face needs.
    """
    rows, dim = writers.shape[0] * writers.shape[1], face.shape[-1]
    flat = writers.flatten(0, 1)
    group = 1 if tails is None else len(tails) // len(face)
    numbers = rows * (dim if tails is None else dim + 2 * group * tails.shape[1])
    step = max(1, memory // (numbers * flat.element_size()))
    found = []
    for first in range(0, len(face), step):
        part, behind = face[first : first + step].to(flat), None
        if tails is not None:
            behind = tails[first * group : (first + len(part)) * group].to(flat)
            behind = behind.unflatten(0, (len(part), group)).flatten(1, 2)
        if behind is not None and group == 1:
            part, behind = part @ behind.mT, None
        # One large product with all of them, not many small ones.
        seen = (flat @ part.permute(1, 0, 2).flatten(1)).unflatten(1, (len(part), -1)).permute(1, 0, 2)
        if behind is not None:
            seen = seen @ behind.mT
        squares = seen.square().unflatten(1, writers.shape[:2]).unflatten(3, (group, -1)).sum((2, 4))
        found.append(squares.permute(1, 0, 2).flatten(1))
    return torch.cat(found, 1).sqrt()


def _gathered(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join what was found for each key or value head: one of them at a time is in float64."""
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _sizes(face: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """Return the norm of each ``face · backᵀ``, (…, 1, 1), 1 for a zero one, and the share of its directions, (…)."""
    # The trace of this small matrix is Σσ², and that of its square Σσ⁴: nothing cancels, as all σ² are positive.
    small = (face.mT @ face) @ (back.mT @ back)
    energy = small.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=0)
    fourth = (small * small.mT).sum((-2, -1))
    return torch.where(energy > 0, energy.sqrt(), 1.0)[..., None, None], ratio(fourth, energy.square())
