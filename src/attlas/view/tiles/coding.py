"""Numbers as bytes: tiles, vectors and maps as the page reads them.

Sixteen bytes come first, little-endian: four letters, the kind of the numbers, how many there are, and a scale. A tile
("ATL1") says its rows and columns, vectors ("ATLV") how many they are and how long, maps ("ATLM") their rows, their
columns and how many they are. Numbers of kind 1 are float32, those of kind 2 are float16, to be multiplied by the
scale, the largest size among them. So a number of kind 2 is off by at most 2⁻¹¹ of itself, or 2⁻²⁵ of the largest; NaN,
where there is no number, stays NaN. Maps are of kind 2, and each has a scale of its own: these float32 stand between
the header, whose scale is 1, and the numbers.
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
        Finite numbers, and NaN where there is nothing.
    kind : {"f32", "f16"}
        How they travel.
    """
    rows, cols = values.shape
    scale = 1.0
    # NumPy stays on this thread: for so few numbers PyTorch's own threads cost more than they give.
    numbers = values.detach().to("cpu", torch.float32).numpy()
    if kind == "f16":
        numbers, scale = _halved(numbers)
    return _TILE.pack(b"ATL1", KINDS[kind], 0, rows, cols, 0, scale) + _raw(numbers)


def vectors_bytes(vectors: Sequence[Tensor]) -> bytes:
    """Return vectors as bytes; shorter ones are padded with NaN to the length of the longest."""
    length = max((len(vector) for vector in vectors), default=0)
    numbers = np.full((len(vectors), length), np.nan, dtype=np.float32)
    for row, vector in zip(numbers, vectors, strict=True):
        row[: len(vector)] = vector.detach().to("cpu", torch.float32).numpy()
    return _VECTORS.pack(b"ATLV", KINDS["f32"], 0, len(vectors), length, 1.0) + _raw(numbers)


def maps_bytes(values: Tensor) -> bytes:
    """Return maps as bytes, in half precision.

    Parameters
    ----------
    values : Tensor, (maps, rows, cols)
        Finite numbers, and NaN where there is nothing.
    """
    count, rows, cols = values.shape
    halved = [_halved(numbers) for numbers in values.detach().to("cpu", torch.float32).numpy()]
    scales = np.array([scale for _, scale in halved], np.float32)
    header = _TILE.pack(b"ATLM", KINDS["f16"], 0, rows, cols, count, 1.0)
    return b"".join((header, _raw(scales), *(_raw(numbers) for numbers, _ in halved)))


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


def maps_of(content: bytes) -> Tensor:
    """Return the numbers of maps' bytes; (maps, rows, cols), float32.

    Raises
    ------
    ArgumentError
        They are not the bytes of maps.
    """
    magic, kind, _, rows, cols, count, _ = _unpacked(_TILE, content)
    start = _TILE.size + 4 * count
    if magic != b"ATLM" or kind != KINDS["f16"] or len(content) != start + 2 * count * rows * cols:
        raise ArgumentError(complaint("content", wanted="maps", got=f"{len(content)} other bytes"))
    scales = np.frombuffer(content, "<f4", count, _TILE.size).astype(np.float64)
    numbers = np.frombuffer(content, "<f2", offset=start).reshape(count, rows, cols)
    return torch.from_numpy((numbers * scales[:, None, None]).astype(np.float32))


def _halved(numbers: NDArray[np.float32]) -> tuple[NDArray[np.float16], float]:
    """Return numbers in half precision, and what they are to be multiplied by."""
    scale = float(np.fmax.reduce(np.abs(numbers), axis=None, initial=0.0)) or 1.0
    # Divided in double precision, so that the largest number is not rounded.
    return (numbers.astype(np.float64) / scale).astype(np.float16), scale


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
