"""What a question is, and how several are answered in one pass.

A question keeps a partial answer per block of rows, adds every tile to it, and at the end gathers the parts. None of
them knows which kind of matrix it is asked of. The questions themselves are in `rows`, `columns`, `pooling`,
`comparing` and `products`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from attlas.matrix.operator import AttentionOperator, Progress, Tile
from attlas.matrix.streaming import Block, each_block, tiling_of

State = TypeVar("State")
Answer = TypeVar("Answer")


class Question(ABC, Generic[State, Answer]):
    """Something asked of a matrix that can be answered from its tiles."""

    needs_logs: bool = False
    """Whether tiles' logarithms are used."""

    @abstractmethod
    def start(self, operator: AttentionOperator, block: Block) -> State:
        """Return an empty partial answer for a block; `operator` is narrowed to the block's heads."""

    @abstractmethod
    def add(self, state: State, rows: slice, cols: slice, tile: Tile) -> None:
        """Take a tile into account."""

    @abstractmethod
    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[State]) -> Answer:
        """Join the partial answers."""

    def check(self, operator: AttentionOperator) -> None:
        """Raise `ArgumentError` if the question does not fit the matrix."""
        del operator

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        """Tell whether a tile can matter to this question, by position alone."""
        del operator, rows, cols
        return True

    def counts_zeros(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        """Tell whether a tile matters in which the matrix is known to hold nothing but zeros."""
        del operator, rows, cols
        return False

    def rows(self, state: State, strip: slice) -> slice:
        """Return which rows of a strip can matter, given what the question holds of a block; an empty slice if none."""
        del state
        return strip

    def columns(self, operator: AttentionOperator, rows: slice, span: slice) -> slice:
        """Return which columns must be visited, given that the matrix has all its nonzero entries in `span`."""
        del operator, rows
        return span


def ask(operator: AttentionOperator, *questions: Question[Any, Any], progress: Progress | None = None) -> list[Any]:
    """Answer several questions about one matrix in one streaming pass.

    Parameters
    ----------
    operator : AttentionOperator
        The matrix.
    *questions : Question
        `Received`, `Entropy`, `Distance`, `TopK`, `Mass`, `Pool`, `Compare`, or your own.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    list
        The answers, in the order of the questions.

    Notes
    -----
    Time is that of computing each tile once, plus a pass over it per question; memory is that of the answers and
    one tile a thread. The log-sum-exp of an exact matrix, if not known yet, costs a pass of its own first.
    """
    for question in questions:
        question.check(operator)
    operator.prepare()
    logs = any(question.needs_logs for question in questions)
    tiling = tiling_of(operator)

    def work(block: Block) -> list[Any]:
        heads = operator.narrow(block.batch, block.head)
        states = [question.start(heads, block) for question in questions]
        strips = _strips(questions, states, tiling.strips(block.rows))
        if not strips:
            return states
        reader = heads.reader()
        for rows in strips:
            for cols in tiling.tiles(_columns(heads, questions, rows), operator.shape[3]):
                interested = _interested(heads, questions, rows, cols)
                if interested:
                    tile = reader.tile(rows, cols, logs=logs)
                    for i in interested:
                        questions[i].add(states[i], rows, cols, tile)
        return states

    blocks, parts = each_block(operator, work, progress)
    return [q.gather(operator, blocks, [states[i] for states in parts]) for i, q in enumerate(questions)]


def _interested(
    operator: AttentionOperator, questions: Sequence[Question[Any, Any]], rows: slice, cols: slice
) -> list[int]:
    """Return which questions a tile matters to."""
    empty = not operator.occupied(rows, cols)
    return [
        i
        for i, question in enumerate(questions)
        if question.wants(operator, rows, cols) and (not empty or question.counts_zeros(operator, rows, cols))
    ]


def _strips(questions: Sequence[Question[Any, Any]], states: Sequence[Any], strips: Iterable[slice]) -> list[slice]:
    """Leave out, at the ends of each strip, the rows that matter to no question."""
    kept = []
    for strip in strips:
        wanted = [question.rows(state, strip) for question, state in zip(questions, states, strict=True)]
        wanted = [rows for rows in wanted if rows.start < rows.stop]
        if wanted:
            kept.append(slice(min(rows.start for rows in wanted), max(rows.stop for rows in wanted)))
    return kept


def _columns(operator: AttentionOperator, questions: Sequence[Question[Any, Any]], rows: slice) -> slice:
    span = operator.columns(rows)
    for question in questions:
        span = question.columns(operator, rows, span)
    return span
