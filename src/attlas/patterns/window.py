"""A sliding window, and the first keys beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attlas.matrix import AttentionMatrix
from attlas.patterns.band import Band
from attlas.patterns.keep_set import ByPosition, whole_number


@dataclass(frozen=True)
class SlidingWindow(ByPosition):
    """Each row keeps the nearest keys, and the first ones.

    Parameters
    ----------
    width : int
        ``0 <= position - key < width`` where the matrix is causal, ``|position - key| < width`` otherwise. A window as
        wide as the matrix is exact.
    sinks : int
        How many first keys every row keeps too.

    Raises
    ------
    ArgumentError
        `width` is less than 1, or `sinks` less than 0.

    References
    ----------
    Xiao et al. (2024), "Efficient streaming language models with attention sinks", arXiv 2309.17453. Positions stay as
    they are here: nothing is renumbered in a cache.
    """

    kind = "sliding_window"

    width: int
    sinks: int = 0

    def __post_init__(self) -> None:
        whole_number("width", self.width, 1)
        whole_number("sinks", self.sinks, 0)

    def at(self, n_key: int, *, causal: bool) -> Band:
        return Band(self.width, causal, sinks=self.sinks)

    def matrix(self, exact: AttentionMatrix) -> AttentionMatrix:
        if self.sinks:
            return super().matrix(exact)
        self.check(exact)
        seen = exact.visibility
        width = self.width if seen.window is None else min(self.width, seen.window)
        return exact.with_visibility(replace(seen, window=width))

    def keeps_all(self, length: int) -> bool:
        return self.width >= length

    def held(self, n_key: int) -> int:
        return min(n_key, self.width + self.sinks)
