"""A guard against n × n memory: any tensor that large, made anywhere under it, is an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attlas.matrix.threads import inline


class DenseAllocationError(AssertionError):
    """Something made a tensor as large as the matrix that was to stay lazy."""


class _Guard(TorchDispatchMode):
    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries = entries

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            # A view or an expanded tensor is as large as the memory behind it, not as its shape says.
            if isinstance(tensor, torch.Tensor):
                held = tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1)
                if held >= self.entries:
                    raise DenseAllocationError(f"{func} made {held:,} entries, shape {tuple(tensor.shape)}")
        return result


@contextmanager
def no_dense(entries: int) -> Iterator[None]:
    """Fail on any tensor of `entries` numbers or more, usually ``n_query * n_key``.

    Parameters
    ----------
    entries : int
        The smallest number of entries that counts as dense. Query, key and values must be smaller.

    Notes
    -----
    Work runs on the calling thread meanwhile, where PyTorch's dispatch can be watched.
    """
    with inline(), _Guard(entries):
        yield
