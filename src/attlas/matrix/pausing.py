"""A question that has no answer: it lets long work wait for other work, or end early."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attlas.matrix.operator import AttentionOperator, Tile
from attlas.matrix.questions import Question
from attlas.matrix.streaming import Block


class Pause(Question[None, None]):
    """Calls back whenever a tile has been made; asked beside other questions, whose pass it can hold up or stop.

    Parameters
    ----------
    at_each_tile : callable
        Called without arguments, on a CPU from several threads at once. It may wait; what it raises ends the pass.
    """

    def __init__(self, at_each_tile: Callable[[], None]) -> None:
        self._at_each_tile = at_each_tile

    def start(self, operator: AttentionOperator, block: Block) -> None:
        del operator, block

    def add(self, state: None, rows: slice, cols: slice, tile: Tile) -> None:
        del state, rows, cols, tile
        self._at_each_tile()

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[None]) -> None:
        del operator, blocks, states
