"""Rotary position encoding as what it is: pairs of dimensions, each turned by an angle that grows with the position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint


@dataclass(frozen=True, eq=False)
class Rotation:
    """How a head's queries and keys are turned by their positions.

    Su et al. 2021, "RoFormer": at position p the pair (x₁, x₂) becomes amplitude · (x₁ cos pθ − x₂ sin pθ,
    x₂ cos pθ + x₁ sin pθ), so that the score of two positions depends on their offset alone.

    Parameters
    ----------
    frequencies : Tensor, (pair,), float64
        θ of each pair, in radians per position, every scaling of the frequencies included.
    first, second : Tensor, (pair,), int64
        The two dimensions of each pair: half-split (Llama), interleaved (GPT-J, Cohere) and partial encodings alike.
        Dimensions that are in no pair stay as they are.
    amplitude : float
        What a rotated pair is multiplied with besides (YaRN's attention factor); 1 for most models.
    dim : int, optional
        The head's width; up to the last dimension that turns by default.
    """

    frequencies: Tensor
    first: Tensor
    second: Tensor
    amplitude: float = 1.0
    dim: int | None = None

    def __post_init__(self) -> None:
        pairs = self.frequencies.shape
        for name, dims in (("first", self.first), ("second", self.second)):
            if self.frequencies.dim() != 1 or dims.shape != pairs or dims.dtype != torch.int64:
                wanted = f"one int64 dimension for each of {tuple(pairs)} frequencies"
                raise ArgumentError(complaint(name, wanted=wanted, got=f"{dims.dtype} of shape {tuple(dims.shape)}"))

    @property
    def pairs(self) -> int:
        """How many pairs turn."""
        return self.frequencies.shape[0]

    @property
    def dims(self) -> int:
        """How many dimensions turn."""
        return 2 * self.pairs

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn vectors by their positions, as the model does.

        Parameters
        ----------
        x : Tensor, (…, n, dim)
            Queries or keys before the encoding.
        positions : Tensor, (n,) or (…, n)
            The position of each; the leading axes broadcast with those of `x`.

        Returns
        -------
        Tensor, (…, n, dim)
            In the dtype of `x`. Angles are rounded to float32, because that is what models do: at position 8,000 this
            moves an angle by up to 2e-4, and without it recorded queries would not be reproduced. `matrix` and
            `relative` are exact.
        """
        frequencies = self.frequencies.to(x.device)
        turns = positions.to(x.device).unsqueeze(-1)
        angles = (turns.to(torch.float32) * frequencies.to(torch.float32)).to(torch.float64)
        return self._turned(x, angles)

    def relative(self, x: Tensor, offset: float | Tensor) -> Tensor:
        """Return ``x @ matrix(offset)`` without making the matrix.

        Parameters
        ----------
        x : Tensor, (…, dim)
            Row vectors, queries before the encoding.
        offset : float, or Tensor that broadcasts with the leading axes of `x`
            Position of the query minus position of the key.
        """
        offsets = torch.as_tensor(offset, dtype=torch.float64, device=x.device)
        angles = offsets.unsqueeze(-1) * self.frequencies.to(x.device)
        turned = self._turned(x, angles)
        if self.amplitude == 1:
            return turned
        return self._times(turned, self.amplitude)

    def matrix(self, offset: float | Tensor) -> Tensor:
        """Return R, with ``q @ R @ k`` the product of a query and a key after the encoding, for row vectors before it.

        Parameters
        ----------
        offset : float or Tensor
            i − j, the position of the query minus that of the key.

        Returns
        -------
        Tensor, (…, dim, dim), float64
            Block-diagonal, with the squared amplitude in it; ones on the diagonal where nothing turns.
        """
        width = self.dim if self.dim is not None else int(max(self.first.max(), self.second.max())) + 1
        eye = torch.eye(width, dtype=torch.float64, device=self.frequencies.device)
        return self.relative(eye, torch.as_tensor(offset, dtype=torch.float64).unsqueeze(-1))

    def _times(self, x: Tensor, factor: float) -> Tensor:
        scaled = x.clone()
        for dims in (self.first, self.second):
            scaled[..., dims.to(x.device)] *= factor
        return scaled

    def _turned(self, x: Tensor, angles: Tensor) -> Tensor:
        first, second = self.first.to(x.device), self.second.to(x.device)
        cos = (angles.cos() * self.amplitude).to(x.dtype)
        sin = (angles.sin() * self.amplitude).to(x.dtype)
        a, b = x[..., first], x[..., second]
        shape = torch.broadcast_shapes(x.shape[:-1], angles.shape[:-1])
        turned = x.expand(*shape, x.shape[-1]).clone()
        turned[..., first] = a * cos - b * sin
        turned[..., second] = b * cos + a * sin
        return turned

    def __repr__(self) -> str:
        low, high = (float(f) for f in (self.frequencies.abs().min(), self.frequencies.abs().max()))
        return (
            f"Rotation({self.pairs} pairs, {low:.3g} to {high:.3g} radians per position, amplitude {self.amplitude:g})"
        )


def pairings(dims: int, dim: int) -> list[tuple[Tensor, Tensor]]:
    """Return the ways in which models pair the rotated dimensions of a head: half-split, interleaved; first or last.

    Parameters
    ----------
    dims : int
        How many dimensions turn; even.
    dim : int
        How many the head has.
    """
    found = []
    for start in dict.fromkeys((0, dim - dims)):
        every = torch.arange(start, start + dims)
        found.append((every[: dims // 2], every[dims // 2 :]))
        found.append((every[0::2], every[1::2]))
    return found
