"""A window, and some tokens that see everything and are seen by everyone."""

from __future__ import annotations

from dataclasses import dataclass

from attlas.errors import ArgumentError, complaint
from attlas.patterns.band import Band
from attlas.patterns.keep_set import ByPosition, whole_number


@dataclass(frozen=True)
class GlobalTokens(ByPosition):
    """Some tokens see all that they may, and every row keeps them; the other rows keep a window beside.

    Parameters
    ----------
    tokens : tuple of int
        Positions, from 0; kept in order. Those beyond a text's end do nothing.
    width : int
        The window of the other rows, as in `SlidingWindow`.

    Raises
    ------
    ArgumentError
        A token is no position, or `width` is less than 1.

    References
    ----------
    Beltagy, Peters, Cohan (2020), "Longformer: the long-document transformer", arXiv 2004.05150, section 3.1.
    """

    kind = "global_tokens"

    tokens: tuple[int, ...]
    width: int

    def __post_init__(self) -> None:
        whole_number("width", self.width, 1)
        if not isinstance(self.tokens, tuple | list | range):
            raise ArgumentError(complaint("tokens", wanted="a tuple of positions", got=self.tokens))
        for token in self.tokens:
            whole_number("tokens", token, 0)
        object.__setattr__(self, "tokens", tuple(sorted(set(self.tokens))))

    def at(self, n_key: int, *, causal: bool) -> Band:
        tokens = tuple(token for token in self.tokens if token < n_key)
        return Band(self.width, causal, tokens=tokens, whole=True)

    def keeps_all(self, length: int) -> bool:
        return self.width >= length
