"""From tokens to words: which word each token is a piece of, and attention between words.

Attention to a word is the sum over its pieces, attention from a word the mean over them (Clark, Khandelwal, Levy and
Manning 2019, "What does BERT look at?", section 4.1), so that a row still sums to what it did.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.models import Document

NO_WORD = -1
"""What a token belongs to that is a piece of no word: a special one, or a space."""


@dataclass(frozen=True)
class Pieces:
    """A sentence as a model reads it.

    Parameters
    ----------
    ids : list of int
        Token ids, special ones included.
    words : list of int
        For each token the number of its word, or `NO_WORD`.
    problem : str
        Why the words cannot be told apart in the tokens; empty if they can.
    """

    ids: list[int]
    words: list[int]
    problem: str = ""


def pieces(lm: LanguageModel, text: str, spans: Sequence[tuple[int, int]]) -> Pieces:
    """Cut a sentence into tokens, and find each one's word.

    Parameters
    ----------
    lm : LanguageModel
    text : str
        The sentence.
    spans : sequence of (int, int)
        The characters of each word, in order.

    Raises
    ------
    ArgumentError
        The tokenizer cannot tell which characters a token covers.

    Notes
    -----
    A decoder whose tokenizer puts nothing in front of a text is given its beginning-of-text token, when it has one:
    such models put much of their attention on the first token, whatever it is, and it should not be a word.
    """
    try:
        document = lm.tokenize(text)
    except DocumentError as error:
        return Pieces([], [], f"not read by the tokenizer ({error})")
    if document.offsets is None:
        raise ArgumentError(
            complaint(
                "lm.tokenizer",
                wanted="one that knows which characters a token covers (a fast tokenizer)",
                got=type(lm.tokenizer).__name__,
            )
        )
    ids, words = list(document.ids), words_of_tokens(document, spans)
    unknown = getattr(lm.tokenizer, "unk_token_id", None)
    problem = _problem(ids, words, len(spans), unknown)
    first = getattr(lm.tokenizer, "bos_token_id", None)
    if lm.facts.kind == "decoder" and not document.added[0] and isinstance(first, int):
        ids, words = [first, *ids], [NO_WORD, *words]
    if lm.facts.positions is not None and len(ids) > lm.facts.positions:
        problem = problem or "longer than the model's positions"
    return Pieces(ids, [max(word, NO_WORD) for word in words], problem)


_SEVERAL = -2


def words_of_tokens(document: Document, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the number of each token's word, `NO_WORD`, or another negative number if it covers parts of several.

    Parameters
    ----------
    document : Document
        With offsets.
    spans : sequence of (int, int)
        The characters of each word, in order and apart.
    """
    begins, ends = [begin for begin, _ in spans], [end for _, end in spans]
    offsets = document.offsets or []
    front, behind = document.added
    words = []
    for index, (begin, end) in enumerate(offsets):
        if index < front or index >= len(offsets) - behind:
            words.append(NO_WORD)
            continue
        # Words that end behind the token's beginning, and begin before its end.
        first, last = bisect_right(ends, begin), bisect_left(begins, end) - 1
        if first > last:
            # Nothing but a space: it is the beginning of the word that follows at once (a lone "▁").
            follows = first < len(begins) and begin < end and begins[first] == end
            words.append(first if follows else NO_WORD)
        else:
            words.append(first if first == last else _SEVERAL)
    return words


def merged(attention: Tensor, words: Tensor, count: int) -> Tensor:
    """Return attention between words.

    Parameters
    ----------
    attention : Tensor, (batch, head, n, n)
        Attention between tokens.
    words : Tensor, (batch, n), int64
        Each token's word, or `NO_WORD`.
    count : int
        How many words the longest sentence has.

    Returns
    -------
    Tensor, (batch, head, count, count)
        Mean over the query word's pieces of the sum over the key word's. Rows and columns of words that a sentence does
        not have are 0.
    """
    member = (words.unsqueeze(1) == torch.arange(count, device=words.device).view(1, -1, 1)).to(attention.dtype)
    mean = member / member.sum(-1, keepdim=True).clamp(min=1)
    return mean.unsqueeze(1) @ attention @ member.mT.unsqueeze(1)


def _problem(ids: Sequence[int], words: Sequence[int], count: int, unknown: int | None) -> str:
    if _SEVERAL in words:
        return "a token covers parts of several words"
    known = {word for word, token in zip(words, ids, strict=True) if token != unknown}
    here = set(words)
    if any(word not in here for word in range(count)):
        return "a word has no token"
    if any(word not in known for word in range(count)):
        return "a word is unknown to the tokenizer"
    return ""
