"""A window with gaps, and the first keys beside it."""

from __future__ import annotations

from dataclasses import dataclass

from attlas.patterns.band import Band
from attlas.patterns.keep_set import ByPosition, whole_number


@dataclass(frozen=True)
class Dilated(ByPosition):
    """Each row keeps every `step`-th key back from itself, `width` of them, and the first ones.

    Parameters
    ----------
    width : int
        How many keys: those ``0, step, ..., (width - 1) * step`` before the row's position; where the matrix is not
        causal, as many after it.
    step : int
        How far they are apart; 1 is a `SlidingWindow`.
    sinks : int
        How many first keys every row keeps too.

    Raises
    ------
    ArgumentError
        `width` or `step` is less than 1, or `sinks` less than 0.

    References
    ----------
    Beltagy, Peters, Cohan (2020), "Longformer: the long-document transformer", arXiv 2004.05150, section 3.1.
    """

    kind = "dilated"

    width: int
    step: int
    sinks: int = 0

    def __post_init__(self) -> None:
        whole_number("width", self.width, 1)
        whole_number("step", self.step, 1)
        whole_number("sinks", self.sinks, 0)

    def at(self, n_key: int, *, causal: bool) -> Band:
        return Band(self.width, causal, step=self.step, sinks=self.sinks)

    def held(self, n_key: int) -> int:
        # Rows of every remainder come, so the keys between are needed again.
        return min(n_key, (self.width - 1) * self.step + 1 + self.sinks)
