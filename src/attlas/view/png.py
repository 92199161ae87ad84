"""Small pictures as PNG files, written directly: a map of some hundred cells needs no library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file.

    Parameters
    ----------
    pixels : array, (rows, cols, 4)
        Red, green, blue and opacity.
    """
    rows, cols, _ = pixels.shape
    # Eight bits a channel, with opacity; every row begins with the number of its filter, 0 for none.
    header = struct.pack(">IIBBBBB", cols, rows, 8, 6, 0, 0, 0)
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.reshape(rows, cols * 4)], axis=1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in parts)


def data_address(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
