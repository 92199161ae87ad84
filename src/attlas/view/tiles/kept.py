"""What is kept of what was computed, within a number of bytes: what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

from torch import Tensor

Check = Callable[[], None]
"""Raises when nobody waits for the result any more."""

_TURN = 0.05  # seconds between looks at whether a result is still wanted, while someone else makes it


class Kept:
    """Tensors by key.

    Parameters
    ----------
    nbytes : int
        How many bytes of them are kept at most.
    """

    def __init__(self, nbytes: int) -> None:
        self._most = nbytes
        self._lock = Lock()
        self._tensors: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        self._making: dict[Hashable, Lock] = {}

    @property
    def nbytes(self) -> int:
        """How many bytes are kept."""
        with self._lock:
            return sum(map(_size, self._tensors.values()))

    def known(self, key: Hashable) -> tuple[Tensor, ...] | None:
        """Return what is kept under a key; None if nothing is."""
        with self._lock:
            found = self._tensors.get(key)
            if found is not None:
                self._tensors.move_to_end(key)
            return found

    def keep(self, key: Hashable, *tensors: Tensor) -> None:
        """Keep something; what has not been used for longest goes, where there is too much."""
        # A part of something larger would keep all of it.
        own = tuple(t if t.untyped_storage().nbytes() == t.nbytes else t.clone() for t in tensors)
        with self._lock:
            self._tensors[key] = own
            self._tensors.move_to_end(key)
            held = sum(map(_size, self._tensors.values()))
            while held > self._most and len(self._tensors) > 1:
                held -= _size(self._tensors.popitem(last=False)[1])

    def get(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]], check: Check) -> tuple[Tensor, ...]:
        """Return what is kept under a key, and make and keep it first if nothing is.

        Parameters
        ----------
        key : hashable
        make : callable
            Called by one thread at a time for each key. If it raises, the next one that waits makes it instead.
        check : callable
            Called while another thread makes it; what it raises ends the waiting.
        """
        found = self.known(key)
        if found is not None:
            return found
        with self._lock:
            turn = self._making.setdefault(key, Lock())
        while not turn.acquire(timeout=_TURN):
            check()
        try:
            found = self.known(key)
            if found is None:
                found = make()
                self.keep(key, *found)
            return found
        finally:
            turn.release()
            with self._lock:
                # Whoever has the lock in hand already still waits for it; others begin anew, and find what was made.
                self._making.pop(key, None)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._tensors.clear()


def _size(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
