"""Ends a model's run between two of its blocks, where nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from attlas.capture.blocks import blocks_of


@contextmanager
def interruptible(model: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """Call something in front of every block of a model, for the time of a `with` block.

    Parameters
    ----------
    model : torch.nn.Module
    check : callable
        May raise, which ends the run there: as an error of the model's own would.

    Notes
    -----
    A backward pass is not interrupted, unless it computes blocks again.
    """

    def before(*_: object) -> None:
        check()

    with ExitStack() as stack:
        for block in blocks_of(model, ()):
            stack.callback(block.register_forward_pre_hook(before).remove)
        yield
