"""A check while a plan runs: how much of a few rows' attention a pattern drops, on the text that is being read now.

What a head needs depends on what it reads, so a pattern that was right for the texts of a plan can be wrong for this
one. For a few rows of each call the distance between the exact row and the pattern's is measured: where that is above a
bound, the head runs exactly in this call.

For a pattern that leaves keys out, and spreads a row over the others in proportion, the total variation distance is
the mass that the row has on the keys that are left out: ``1 - exp(lse_kept - lse)``. For any other it is half the sum
of absolute differences. A learned sink counts as one more key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import AttentionOperator
from attlas.matrix.scores import HIDDEN, Scores
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.streaming import TILE
from attlas.patterns import Pattern

ROWS = 8
"""Rows of each call that are looked at."""

STEPS = 16
"""Of so many steps of cached decoding that follow one another, one is looked at."""


class Guard:
    """Tells which heads' patterns change a text's rows too much, call by call.

    Parameters
    ----------
    bound : float
        The largest mean total variation distance of a row that is let pass; from 0 to 1.

    Notes
    -----
    What it warrants: of a call with several queries, the mean over `ROWS` of its rows, the last among them, is at most
    `bound` for every head that runs by its pattern. Of calls with one query, a layer's first after a call with several
    is looked at, and then every `STEPS`-th; what was found holds until the next look. So between two looks a head may
    run by a pattern that drops more than `bound`, for at most ``STEPS - 1`` tokens, and may stay exact for as many
    although it need not. Texts that are decoded in turns in one block share a layer's looks.

    A look costs O(n_key · dim) a head, in float64; a step that is not looked at costs nothing.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound
        # Of its own, so that what else is drawn is drawn as without a plan.
        self._generator = torch.Generator().manual_seed(0)
        self._found: dict[tuple[str, Pattern], tuple[list[bool], int]] = {}

    def over(
        self,
        layer: str,
        pattern: Pattern,
        heads: Sequence[int],
        parts: Callable[[], Iterable[tuple[AttentionMatrix, Pattern]]],
        *,
        step: bool,
    ) -> list[bool]:
        """Tell which of some heads are to run exactly in a call.

        Parameters
        ----------
        layer : str
        pattern : Pattern
            What the heads have in the plan.
        heads : sequence of int
        parts : callable
            Gives their exact matrices in this call, each for some of its texts, and what is to stand in for them; only
            called where the call is looked at.
        step : bool
            Whether the call has one query.
        """
        place = layer, pattern
        found, age = self._found.get(place, ([], STEPS))
        if step and age < STEPS - 1:
            self._found[place] = found, age + 1
            return found
        looks = [exceeds(exact.detached(), like, self._bound, generator=self._generator) for exact, like in parts()]
        # A call may hold nothing but padding.
        found = torch.stack(looks).any(0).tolist() if looks else [False] * len(heads)
        self._found[place] = found, 0 if step else STEPS
        return found


def exceeds(
    exact: AttentionMatrix,
    pattern: Pattern,
    bound: float,
    rows: int = ROWS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Tell which heads' rows a pattern changes by more than a bound, judged by a few rows.

    Parameters
    ----------
    exact : AttentionMatrix, (batch, head, n_query, n_key)
        The heads as they are; their row sums need not be known, and are not computed.
    pattern : Pattern
        What is to stand in for them.
    bound : float
        The largest mean total variation distance of a row that is let pass; from 0 to 1.
    rows : int
        How many rows are looked at; from 1.
    generator : torch.Generator, optional
        What the rows are drawn from; one of its own by default. The last row is always among them: the next token
        depends on it most.

    Returns
    -------
    Tensor, (head,), bool
        True where the mean over rows is above the bound in any element of the batch.

    Raises
    ------
    ArgumentError
        `bound` is no number from 0 to 1, or `rows` none from 1.

    Notes
    -----
    Costs O(rows · n_key · dim) a head, and what the pattern needs to choose its keys.
    """
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 <= bound <= 1:
        raise ArgumentError(complaint("guard", wanted="a number from 0 to 1", got=repr(bound)))
    # Others' random numbers stay as they are: without a generator, the same rows are drawn at the same length.
    drawn = torch.Generator().manual_seed(exact.shape[3]) if generator is None else generator
    chosen = _drawn(exact.shape[2], rows, drawn)
    return (variations(exact, pattern.matrix(exact), chosen).mean(-1) > bound).any(0)


def variations(exact: AttentionMatrix, other: AttentionOperator, rows: Tensor) -> Tensor:
    """Return how far some rows of two matrices of one shape are apart, by total variation distance.

    Parameters
    ----------
    exact, other : AttentionMatrix, AttentionOperator
        `other` is best an `AttentionMatrix` of the same scores in which fewer keys can be seen: then two sums suffice.
    rows : Tensor, (rows,), int64
        Which rows.

    Returns
    -------
    Tensor, (batch, head, rows), float64
        From 0 to 1.
    """
    whole = _log_sums(exact, rows)
    if narrows(other, exact):
        return -torch.expm1((_log_sums(other, rows) - whole).clamp(max=0))
    other.prepare()
    reader, scores = other.reader(), Scores(exact, torch.float64)
    sums = torch.zeros(whole.shape, dtype=torch.float64, device=exact.device)
    passed_on = sums.clone()
    for cols in _tiles(exact.shape[3]):
        entries = torch.exp2(scores.tile(rows, cols) - whole.unsqueeze(-1) / math.log(2))
        moved = entries - reader.tile(rows, cols).values
        sums += moved.abs().sum(-1)
        passed_on += moved.sum(-1)
    if exact.sinks is not None:
        # What the keys of a row give up goes to its sink.
        sums += passed_on.abs()
    # A row that sees nothing is all zeros under every pattern.
    return torch.where(whole > HIDDEN / 2, (sums / 2).clamp(max=1), 0.0)


def narrows(other: AttentionOperator, exact: AttentionMatrix) -> TypeGuard[AttentionMatrix]:
    """Tell whether a stand-in is the same scores with fewer keys."""
    return isinstance(other, AttentionMatrix) and other.query is exact.query and other.key is exact.key


def _log_sums(matrix: AttentionMatrix, rows: Tensor) -> Tensor:
    """Return the natural log of some rows' sums, the sink's share included, (batch, head, rows), float64."""
    scores = Scores(matrix, torch.float64)
    sums = torch.full((*matrix.shape[:2], len(rows)), -math.inf, dtype=torch.float64, device=matrix.device)
    for cols in _tiles(matrix.shape[3]):
        sums = torch.logaddexp(sums, scores.tile(rows, cols).mul_(math.log(2)).logsumexp(-1))
    if matrix.sinks is not None:
        sums = torch.logaddexp(sums, matrix.sinks.double().view(1, -1, 1))
    return sums


def _tiles(length: int) -> list[slice]:
    return [slice(start, min(start + TILE, length)) for start in range(0, length, TILE)]


def _drawn(length: int, rows: int, generator: torch.Generator) -> Tensor:
    """Draw rows, ascending, the last one among them."""
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ArgumentError(complaint("rows", wanted="a whole number from 1", got=repr(rows)))
    if rows >= length:
        return torch.arange(length)
    others = torch.randperm(length - 1, generator=generator)[: rows - 1]
    return torch.cat([others.sort().values, torch.tensor([length - 1])])
