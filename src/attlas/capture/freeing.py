"""Gives memory that is free back to the system, where the C library would keep it.

Large tensors that come and go between small ones that stay leave holes that glibc neither reuses well nor returns: on
the way through a model they can amount to as much as what is really held.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Give free memory back, on Linux with glibc; elsewhere, do nothing. Takes milliseconds."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
