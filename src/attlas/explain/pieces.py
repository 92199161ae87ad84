"""A text cut into the pieces that its tokens cover, each fit to be shown in the place where it stands.

A character can take several tokens, and each of those is known by the whole character: they share one piece. What no
token covers, such as the spaces between the words of some tokenizers, is a piece without tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attlas._invisible import shown

_KEPT = {"\n", "\t", "\u200c", "\u200d"}  # the last two join letters, and the parts of an emoji
_REACH = 64
"""How many characters a tokenizer is taken to drop at most between two tokens."""


@dataclass(frozen=True)
class Piece:
    """A stretch of text and the tokens that cover it.

    Parameters
    ----------
    text : str
        What it says, as it stands in the document; for an added token, its name.
    start, stop : int
        Its tokens, from and up to; equal where no token covers it.
    begin, end : int
        Its characters in the document, from and up to; equal for an added token.
    """

    text: str
    start: int
    stop: int
    begin: int
    end: int


def pieces(tokens: Sequence[str], text: str) -> list[Piece]:
    """Return a document's pieces, in order; together they hold all of its text.

    Parameters
    ----------
    tokens : sequence of str
        The text that each token covers, or the name of one that was added.
    text : str
        The document.
    """
    found: list[Piece] = []
    at = 0
    for i, token in enumerate(tokens):
        begin = _next(token, text, at)
        if begin is None:
            found.append(Piece(token, i, i + 1, at, at))
        elif begin < at:
            last, at = found[-1], begin + len(token)
            found[-1] = replace(last, text=text[last.begin : at], stop=i + 1, end=at)
        else:
            if begin > at:
                found.append(Piece(text[at:begin], i, i, at, begin))
            at = begin + len(token)
            found.append(Piece(token, i, i + 1, begin, at))
    if at < len(text):
        found.append(Piece(text[at:], len(tokens), len(tokens), at, len(text)))
    return found


def _next(token: str, text: str, at: int) -> int | None:
    """Return where a token's text comes next: here, behind white space, within the last character, or soon."""
    if not token:
        return None
    if text.startswith(token, at):
        return at
    ahead = text[at : at + _REACH]
    behind = at + len(ahead) - len(ahead.lstrip())
    if text.startswith(token, behind):
        return behind
    if at and not text[at - 1].isascii():
        for shared in range(1, min(len(token), at) + 1):
            if text.startswith(token, at - shared):
                return at - shared
    soon = text.find(token, at, at + _REACH)
    return soon if soon >= 0 else None


def readable(text: str) -> str:
    r"""Return a text that reads as it is and can do nothing else.

    Line ends, tabs and joiners stay, Windows' line ends as ``\n``; a carriage return alone is ``␍``; another character
    without a form of its own, which could hide or reorder others, is its number, as in ``⟨U+202E⟩``; half a surrogate
    pair is U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text.replace("\r\n", "\n")))


def _shown(character: str) -> str:
    if character in _KEPT:
        return character
    return "␍" if character == "\r" else shown(character)
