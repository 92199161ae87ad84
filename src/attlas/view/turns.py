"""Whose turn it is to run a model: one at a time, for what is put into a model to hear one run would hear another's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK = 0.02  # seconds between looks at whether the turn is still wanted


class Turns:
    """Lets one thread at a time run the models."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def one(self, check: Callable[[], None]) -> Iterator[Turn]:
        """Wait for a turn, and have it for the time of a block.

        Parameters
        ----------
        check : callable
            Called while waiting; it may raise, when the turn is not wanted any more.
        """
        turn = Turn(self._lock)
        turn.take(check)
        try:
            yield turn
        finally:
            turn.leave()


class Turn:
    """A turn that can be left to others for a while.

    Parameters
    ----------
    lock : threading.Lock
        Held by whoever has the turn.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._held = False

    def take(self, check: Callable[[], None]) -> None:
        """Wait for it; `check` is called while waiting, and may raise."""
        check()
        while not self._lock.acquire(timeout=_LOOK):
            check()
        self._held = True

    def leave(self) -> None:
        """Give it back, if it is held."""
        if self._held:
            self._held = False
            self._lock.release()
