"""Numbers of many matrices put aside in a file: at hand within milliseconds, and no part of the process's memory."""

from __future__ import annotations

import math
import tempfile
import weakref
from threading import Lock
from typing import IO

import torch
from torch import Tensor

MOST = 4 * 2**30
"""Bytes that are put aside at most."""


class Aside:
    """Tensors of float32 by name, in a file without one, in the system's folder for such; it goes with its owner.

    Parameters
    ----------
    most : int
        How many bytes of them are kept at most.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = Lock()
        self._file: IO[bytes] | None = None
        self._end = 0
        self._places: dict[str, tuple[int, tuple[torch.Size, ...]]] = {}

    def keep(self, name: str, *tensors: Tensor) -> bool:
        """Put tensors aside; tell whether there was room for them."""
        content = b"".join(tensor.cpu().float().contiguous().numpy().tobytes() for tensor in tensors)
        with self._lock:
            if name in self._places:
                return True
            if self._end + len(content) > self._most:
                return False
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="attlas-", buffering=0)
                    weakref.finalize(self, self._file.close)
                self._file.seek(self._end)
                if self._file.write(content) < len(content):
                    return False
            except OSError:
                # No room on the disk: what is not put aside is computed again when it is asked for.
                return False
            self._places[name] = (self._end, tuple(tensor.shape for tensor in tensors))
            self._end += len(content)
            return True

    def has(self, name: str) -> bool:
        """Tell whether something was put aside under a name."""
        with self._lock:
            return name in self._places

    def read(self, name: str) -> tuple[Tensor, ...] | None:
        """Return what was put aside under a name; None if nothing was."""
        with self._lock:
            found = self._places.get(name)
            if found is None or self._file is None:
                return None
            start, shapes = found
            counts = [math.prod(shape) for shape in shapes]
            self._file.seek(start)
            # A copy that can be written to, as tensors want it.
            content = bytearray(self._file.read(4 * sum(counts)))
        if len(content) < 4 * sum(counts):
            return None
        parts = torch.frombuffer(content, dtype=torch.float32).split(counts)
        return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))

    def clear(self) -> None:
        """Let go of everything; the file is gone with it."""
        with self._lock:
            self._places.clear()
            self._end = 0
            if self._file is not None:
                self._file.close()
                self._file = None
