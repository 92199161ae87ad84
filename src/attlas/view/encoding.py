"""Numbers as a page carries them: logarithms in 64 steps an octave, packed, and never worse than 0.6 % off.

A code of 0 is an exact 0 (or hidden); code c > 0 stands for ``2 ** ((c - 1) / STEPS + FLOOR)``. The largest entry of
a cell is kept as how many steps it lies above the mean, which packs better.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEPS = 64
"""Codes per octave: neighbours are 1.09 % apart."""

FLOOR = -40
"""The smallest number's logarithm to base 2; smaller ones, about 1e-12, become 0."""

AGAINST = 0x8000
"""Added to the code of a number's size when the number is below zero."""

Codes = NDArray[np.uint16]


def to_codes(values: Tensor) -> Codes:
    """Return the codes of numbers from 0 to 1, in the same shape."""
    logs = values.double().clamp(min=2.0 ** (FLOOR - 1), max=1.0).log2()
    codes = ((logs - FLOOR) * STEPS).round() + 1
    return codes.clamp(min=0).to(torch.int32).numpy().astype(np.uint16)


def from_codes(codes: Codes) -> NDArray[np.float64]:
    """Return the numbers that codes stand for, as the page computes them."""
    return np.where(codes > 0, np.exp2((codes.astype(np.float64) - 1) / STEPS + FLOOR), 0.0)


def map_codes(mean: Tensor, peak: Tensor) -> list[Codes]:
    """Return the codes of pooled maps: those of the means, and how far the largest entries lie above them."""
    low, high = to_codes(mean), to_codes(peak)
    # A mean is never above the largest entry, but rounding may say so by a hair.
    return [low, np.maximum(high, low) - low]


def signed_codes(values: Tensor) -> tuple[Codes, float]:
    """Return the codes of numbers of either sign, as shares of the largest size; and that size."""
    values = values.double().nan_to_num(0.0)
    most = float(values.abs().max()) if values.numel() else 0.0
    sizes = to_codes(values.abs() / most) if most > 0 else np.zeros(tuple(values.shape), dtype=np.uint16)
    return np.where((values < 0).numpy() & (sizes > 0), sizes + AGAINST, sizes).astype(np.uint16), most


def share_codes(values: Tensor, largest: float) -> Codes:
    """Return numbers as whole 255ths of `largest`."""
    return (values.double() / largest * 255).round().clamp(0, 255).to(torch.int32).numpy().astype(np.uint16)


def binned(track: Tensor, bins: int) -> Tensor:
    """Return the means of a track's bins, cut as `Pool` cuts its own; (head, bins)."""
    length = track.shape[-1]
    edges = torch.arange(bins + 1) * length // bins
    sums = torch.nn.functional.pad(track.double().cumsum(-1), (1, 0))[..., edges]
    return sums.diff(dim=-1) / edges.diff()


def rounded(value: float) -> float | None:
    """Return a number to five digits; None if it is not finite, because JSON has no word for that."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def packed(parts: Sequence[Codes]) -> str:
    """Return codes as base64 of zlib of all their low bytes, then all their high bytes."""
    codes = np.concatenate([part.reshape(-1) for part in parts])
    planes = (codes & 255).astype(np.uint8).tobytes() + (codes >> 8).astype(np.uint8).tobytes()
    return base64.b64encode(zlib.compress(planes, 6)).decode("ascii")
