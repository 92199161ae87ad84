"""Rows' sums of exact matrices, computed so that it ends when nobody waits for them any more."""

from __future__ import annotations

from collections.abc import Iterator

from attlas.matrix import AttentionMatrix, AttentionOperator, Difference, HeadMean
from attlas.matrix.logsumexp import stream
from attlas.view.tiles.kept import Check


def prepare(operator: AttentionOperator, check: Check) -> None:
    """Let a matrix learn its rows' sums, where it does not know them yet.

    Parameters
    ----------
    operator : AttentionOperator
    check : callable
        Called now and then; what it raises ends the work. Of matrices of other kinds than exact ones, their means and
        differences, nothing is computed here: they do so themselves, and cannot be interrupted.
    """
    for exact in _exact(operator):
        if not exact.sums_known:
            exact.keep_sums(stream(exact, lambda done, total: check()))


def _exact(operator: AttentionOperator) -> Iterator[AttentionMatrix]:
    """Yield the exact matrices that a matrix is made of."""
    if isinstance(operator, AttentionMatrix):
        yield operator
    elif isinstance(operator, HeadMean):
        yield from _exact(operator.of)
    elif isinstance(operator, Difference):
        yield from _exact(operator.a)
        yield from _exact(operator.b)
