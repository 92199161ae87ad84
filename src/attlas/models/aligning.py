"""A document from its text and its readable tokens alone, as a capture in a file knows them: where each token lies.

A readable token is the text that it covers, so the tokens follow one another in the text. Only white space may lie
between two; the pieces of one character all show that character; and what a tokenizer has added covers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from attlas.errors import ArgumentError, complaint
from attlas.models.document import Document

UNKNOWN = -1
"""The id of a token whose id nobody kept."""

_ADDED = 4  # tokens that a tokenizer may put in front, and behind


def aligned(text: str, tokens: Sequence[str]) -> Document:
    """Return the document that these tokens are of.

    Parameters
    ----------
    text : str
        The document.
    tokens : sequence of str
        Its tokens, readable, in order.

    Returns
    -------
    Document
        Its ids are `UNKNOWN`.

    Raises
    ------
    ArgumentError
        The tokens are not those of the text, or are not spelt as it is.
    """
    # Where a tokenizer keeps every space, a piece that is not there is one more of the character before.
    for spaced in (True, False):
        offsets = _walk(text, tokens, spaced)
        covering = [i for i, (start, stop) in enumerate(offsets) if start < stop]
        if not covering:
            break
        front, behind = covering[0], len(tokens) - 1 - covering[-1]
        whole = len(covering) == len(tokens) - front - behind and max(front, behind) <= _ADDED
        if whole and not text[max(stop for _, stop in offsets) :].strip():
            return Document(text, [UNKNOWN] * len(tokens), list(tokens), offsets, (front, behind))
    raise ArgumentError(
        complaint("tokens", wanted="pieces of the text, in order", got="tokens that are spelt in another way")
    )


def _walk(text: str, tokens: Sequence[str], spaced: bool) -> list[tuple[int, int]]:
    """Return where each token lies, one after another; (0, 0) for one that is not there."""
    offsets: list[tuple[int, int]] = []
    at, last = 0, (0, 0)
    for token in tokens:
        found = _place(text, token, at, last, spaced)
        if found is not None:
            last, at = found, max(at, found[1])
        offsets.append(found or (0, 0))
    return offsets


def _place(text: str, token: str, at: int, last: tuple[int, int], spaced: bool) -> tuple[int, int] | None:
    """Return where a token lies that follows what ends at `at`; None if it is not there."""
    if not token:
        return None
    if text.startswith(token, at):
        return at, at + len(token)
    solid = at
    while not spaced and solid < len(text) and text[solid].isspace():
        solid += 1
    if solid > at and text.startswith(token, solid):
        return solid, solid + len(token)
    # Another piece of the character before, and perhaps of what follows it.
    for begin in (last[0], at - 1):
        if 0 <= begin < at and text.startswith(token, begin):
            return begin, begin + len(token)
    return None
