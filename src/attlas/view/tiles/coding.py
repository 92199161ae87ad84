"""Numbers as bytes: tiles and vectors as the page reads them.

Sixteen bytes come first, little-endian: four letters, the kind of the numbers, how many there are, and a scale. A tile
("ATL1") says its rows and columns, vectors ("ATLV") how many they are and how long. Numbers of kind 1 are float32,
those of kind 2 are float16, to be multiplied by the scale, the largest size among them. So a number of kind 2 is off by
at most 2⁻¹¹ of itself, or 2⁻²⁵ of the largest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attlas.errors import ArgumentError, complaint

KINDS = {"f32": 1, "f16": 2}
_TILE = struct.Struct("<4sBBHHHf")
_VECTORS = struct.Struct("<4sBBHIf")


def tile_bytes(values: Tensor, kind: str = "f32") -> bytes:
    """Return a tile as bytes.

    Parameters
    ----------
    values : Tensor, (rows, cols)
        Finite numbers.
    kind : {"f32", "f16"}
        How they travel.
    """
    rows, cols = values.shape
    scale = 1.0
    # NumPy stays on this thread: for so few numbers PyTorch's own threads cost more than they give.
    numbers = values.detach().to("cpu", torch.float32).numpy()
    if kind == "f16":
        scale = float(np.abs(numbers).max(initial=0.0)) or 1.0
        # Divided in double precision, so that the largest number is not rounded.
        numbers = (numbers.astype(np.float64) / scale).astype(np.float16)
    return _TILE.pack(b"ATL1", KINDS[kind], 0, rows, cols, 0, scale) + _raw(numbers)


def vectors_bytes(vectors: Sequence[Tensor]) -> bytes:
    """Return vectors as bytes; shorter ones are padded with NaN to the length of the longest."""
    length = max((len(vector) for vector in vectors), default=0)
    numbers = np.full((len(vectors), length), np.nan, dtype=np.float32)
    for row, vector in zip(numbers, vectors, strict=True):
        row[: len(vector)] = vector.detach().to("cpu", torch.float32).numpy()
    return _VECTORS.pack(b"ATLV", KINDS["f32"], 0, len(vectors), length, 1.0) + _raw(numbers)


def tile_of(content: bytes) -> Tensor:
    """Return the numbers of a tile's bytes; (rows, cols), float32.

    Raises
    ------
    ArgumentError
        They are not the bytes of a tile.
    """
    magic, kind, _, rows, cols, _, scale = _unpacked(_TILE, content)
    return _numbers(content, magic == b"ATL1", kind, scale, (rows, cols))


def vectors_of(content: bytes) -> Tensor:
    """Return the numbers of vectors' bytes; (vectors, length), float32.

    Raises
    ------
    ArgumentError
        They are not the bytes of vectors.
    """
    magic, kind, _, count, length, scale = _unpacked(_VECTORS, content)
    return _numbers(content, magic == b"ATLV", kind, scale, (count, length))


def _raw(numbers: NDArray[np.floating]) -> bytes:
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()


def _unpacked(header: struct.Struct, content: bytes) -> tuple[Any, ...]:
    if len(content) < header.size:
        raise ArgumentError(complaint("content", wanted=f"at least {header.size} bytes", got=len(content)))
    return header.unpack_from(content)


def _numbers(content: bytes, known: bool, kind: int, scale: float, shape: tuple[int, int]) -> Tensor:
    dtype = {1: np.dtype("<f4"), 2: np.dtype("<f2")}.get(kind)
    if not known or dtype is None or len(content) != _TILE.size + shape[0] * shape[1] * dtype.itemsize:
        raise ArgumentError(complaint("content", wanted="a tile or vectors", got=f"{len(content)} other bytes"))
    numbers = np.frombuffer(content, dtype, offset=_TILE.size).reshape(shape)
    return torch.from_numpy((numbers.astype(np.float64) * scale).astype(np.float32))
