"""Heads on threads: a pool whose workers each use one core.

PyTorch parallelises inside an operation. For tiles of 512 × 512 that costs more than it gives, so on a CPU the
streaming code runs one head (or one span of rows) per thread instead, and each worker tells PyTorch to use a single
thread of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()
_pools: dict[tuple[int, bool], ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    # A forked child inherits the pools but not their threads.
    os.register_at_fork(after_in_child=_pools.clear)
_inline: ContextVar[bool] = ContextVar("attlas_inline", default=False)
_ahead: ContextVar[bool] = ContextVar("attlas_ahead", default=False)


@contextmanager
def inline() -> Iterator[None]:
    """Run all work on the calling thread, where its dispatch modes and profilers can see it."""
    token = _inline.set(True)
    try:
        yield
    finally:
        _inline.reset(token)


@contextmanager
def ahead() -> Iterator[None]:
    """Run work on workers of its own, so that it need not wait until longer work that is under way has ended."""
    token = _ahead.set(True)
    try:
        yield
    finally:
        _ahead.reset(token)


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Do `work` on every item and return the results in the items' order.

    Parameters
    ----------
    work : callable
        Called under ``torch.no_grad``; on a CPU from several threads at once.
    items : sequence
        What to work on; the result never depends on how many threads there are.
    device : torch.device
        Only a CPU needs threads: an accelerator is kept busy by one.
    progress : callable, optional
        Called on the calling thread as ``progress(done, total)`` after each item.
    """
    workers = min(torch.get_num_threads(), len(items))
    if device.type != "cpu" or workers <= 1 or _inline.get():
        return _in_turn(work, items, device, progress)
    return _in_parallel(work, items, device, _pool(torch.get_num_threads(), _ahead.get()), progress)


@contextmanager
def _exactly(device: torch.device) -> Iterator[None]:
    """Keep gradients, and a caller's automatic mixed precision, out of the work."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _in_turn(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> list[Result]:
    results = []
    for item in items:
        with _exactly(device):
            results.append(work(item))
        if progress is not None:
            progress(len(results), len(items))
    return results


def _in_parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    device: torch.device,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None] | None,
) -> list[Result]:
    stopped = threading.Event()

    def guarded(item: Item) -> Result:
        if stopped.is_set():
            raise CancelledError
        with _exactly(device):
            return work(item)

    futures: list[Future[Result]] = [pool.submit(guarded, item) for item in items]
    try:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()  # raises what the work has raised
            if progress is not None and done:
                progress(len(items) - len(pending), len(items))
    finally:
        # On an error or Ctrl-C the items that have not begun are dropped; those under way end within one item.
        stopped.set()
        for future in futures:
            future.cancel()
    return [future.result() for future in futures]


def _pool(size: int, ahead: bool) -> ThreadPoolExecutor:
    with _lock:
        if (size, ahead) not in _pools:
            ready = threading.Barrier(size + 1)

            def use_one_core() -> None:
                # Asking first settles the thread on PyTorch's default, which would overwrite the choice later.
                torch.get_num_threads()
                torch.set_num_threads(1)
                ready.wait()

            pool = ThreadPoolExecutor(size, thread_name_prefix="attlas", initializer=use_one_core)
            for _ in range(size):
                pool.submit(int)
            ready.wait()
            # The workers' choice is their own, but it also became the default of threads yet to come: put that back.
            torch.set_num_threads(size)
            _pools[size, ahead] = pool
        return _pools[size, ahead]
