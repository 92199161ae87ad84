"""Parts of a text that people read: tokens, words, sentences, lines, turns, definitions, or stretches of their own.

Every token lies in at most one span. A token belongs where most of its characters are, spaces not counted; a special
token is a span of its own. Sentences and words are found by plain rules, the same for every language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.explain.attribution import Span
from attlas.explain.definitions import definitions_of
from attlas.explain.turns import between, turns_of
from attlas.models import Document

Spans = Literal["token", "word", "sentence", "line", "turn", "function"] | Sequence[tuple[int, int]]
"""A name, or characters of the text, from and up to."""

_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts that put no spaces between words
_LETTERS = rf"[^\W{_UNSPACED}]+"
_WORDS = re.compile(rf"[{_UNSPACED}]|{_LETTERS}(?:['\u2019\-]{_LETTERS})*|\s+|[^\w\s]+")

# A mark that ends a sentence, what closes behind it, and then a capital or a digit; or an empty line.
_OPENS, _CLOSES = r"\"'(\[\u2018\u201c", r"\"')\]\u2019\u201d\u300d\u300f"
_SENTENCE_END = re.compile(
    rf"[.!?\u2026]+[{_CLOSES}]*\s+(?=[{_OPENS}]*[A-Z0-9À-ÖØ-Þ])|[\u3002\uff01\uff1f]+[{_CLOSES}]*\s*|\n\s*\n\s*"
)
_NO_END = re.compile(r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|No|Fig|e\.g|i\.e|cf))\.\s+$")


def spans_of(spans: Any, document: Document, tokenizer: Any = None) -> tuple[Span, ...]:
    """Cut a text into spans.

    Parameters
    ----------
    spans : str or sequence of (int, int)
        ``"token"``, ``"word"``, ``"sentence"``, ``"line"``, ``"turn"`` (of a chat, by the marks that the tokenizer's
        template puts around a message), ``"function"`` (definitions of a source, or sections under headings; see
        `attlas.explain.definitions`), or characters of the text, from and up to, which must not overlap.
    document : Document
        The text and its tokens.
    tokenizer : PreTrainedTokenizerBase, optional
        Whose special tokens and chat template are meant.

    Returns
    -------
    tuple of Span
        Ascending. Of stretches of the caller's own, only these; otherwise every token lies in one.

    Raises
    ------
    ArgumentError
        There are no such spans, they overlap or hold no token, or the tokenizer cannot tell where tokens lie.
    """
    if spans == "token":
        return tuple(Span(i, i + 1, token) for i, token in enumerate(document.tokens))
    if isinstance(spans, str) and spans not in _CUTS and spans != "turn":
        raise ArgumentError(complaint("spans", wanted=_WANTED, got=repr(spans)))
    if document.offsets is None:
        raise ArgumentError(
            complaint("spans", wanted='"token", since this tokenizer cannot tell where tokens lie', got=repr(spans))
        )
    if not isinstance(spans, str):
        return _own(spans, document)
    cuts = list(turns_of(document.text, tokenizer) if spans == "turn" else _CUTS[spans](document.text))
    special = _special(document, tokenizer)
    homes = _homes(document, cuts)
    # A special token is at home nowhere else; what belongs nowhere is a span of its own, too.
    keys = [-1 - i if i in special or homes[i] is None else homes[i] for i in range(len(document))]
    return tuple(_span(document, start, stop) for start, stop in _runs(keys))


def span_scores(spans: Sequence[Span], scores: Tensor) -> Tensor:
    """Return the sum of each span's token scores, (span,), of scores (n,)."""
    sizes = torch.tensor([span.stop - span.start for span in spans])
    tokens = torch.cat([torch.arange(span.start, span.stop) for span in spans])
    return scores.new_zeros(len(spans)).index_add_(0, torch.arange(len(spans)).repeat_interleave(sizes), scores[tokens])


def _own(spans: Any, document: Document) -> tuple[Span, ...]:
    if not isinstance(spans, Sequence) or not len(spans):
        raise ArgumentError(complaint("spans", wanted=_WANTED, got=repr(spans)))
    size = len(document.text)
    cuts = []
    for one in spans:
        if not (isinstance(one, Sequence) and len(one) == 2 and all(type(end) is int for end in one)):
            raise ArgumentError(complaint("spans", wanted="pairs (start, stop) of characters", got=repr(one)))
        start, stop = one
        if not 0 <= start < stop <= size:
            wanted = f"characters of the text, 0 <= start < stop <= {size}"
            raise ArgumentError(complaint("spans", wanted=wanted, got=repr(tuple(one))))
        cuts.append((start, stop))
    cuts.sort()
    for before, after in pairwise(cuts):
        if after[0] < before[1]:
            raise ArgumentError(complaint("spans", wanted="spans that do not overlap", got=f"{before} and {after}"))
    homes = _homes(document, cuts)
    found = []
    for i, (start, stop) in enumerate(cuts):
        tokens = [token for token, home in enumerate(homes) if home == i]
        if not tokens:
            wanted = "spans that hold most of some token"
            got = f"({start}, {stop}), {document.text[start:stop]!r}, which holds none"
            raise ArgumentError(complaint("spans", wanted=wanted, got=got))
        found.append(Span(tokens[0], tokens[-1] + 1, document.text[start:stop]))
    return tuple(found)


def _homes(document: Document, cuts: Sequence[tuple[int, int]]) -> list[int | None]:
    """Return for each token the stretch that holds most of it, ascending; None for a token that lies in none."""
    homes: list[int | None] = []
    first = 0
    for begin, end in document.offsets or ():
        body = document.text[begin:end]
        solid = body.strip()
        if solid:
            begin, end = begin + body.index(solid), begin + body.index(solid) + len(solid)
        while first < len(cuts) and cuts[first][1] <= begin:
            first += 1
        best, most, i = None, 0, first
        while i < len(cuts) and cuts[i][0] < end:
            shared = min(end, cuts[i][1]) - max(begin, cuts[i][0])
            if shared > most:
                best, most = i, shared
            i += 1
        homes.append(best)
    return homes


def _runs(keys: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Yield stretches of equal neighbours, from and up to."""
    start = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[start]:
            yield start, i
            start = i


def _span(document: Document, start: int, stop: int) -> Span:
    """Return a span with what its tokens say; an added token covers no text, and shows its name."""
    covered = [pair for pair in (document.offsets or ())[start:stop] if pair[0] < pair[1]]
    text = document.text[covered[0][0] : covered[-1][1]] if covered else "".join(document.tokens[start:stop])
    return Span(start, stop, text)


def _special(document: Document, tokenizer: Any) -> set[int]:
    front, behind = document.added
    size = len(document)
    ids = set(getattr(tokenizer, "all_special_ids", ()))
    return {*range(front), *range(size - behind, size), *(i for i, one in enumerate(document.ids) if one in ids)}


def _words(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _WORDS.finditer(text))


def _lines(text: str) -> Iterator[tuple[int, int]]:
    return between(text, (match.end() for match in re.finditer(r"\r\n|[\n\r\v\f\x85\u2028\u2029]", text)))


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    ends = (
        match.end()
        for match in _SENTENCE_END.finditer(text)
        if not _NO_END.search(text[max(0, match.end() - 12) : match.end()])
    )
    return between(text, ends)


def _functions(text: str) -> Iterator[tuple[int, int]]:
    return ((one.start, one.stop) for one in definitions_of(text))


_CUTS: Mapping[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "word": _words,
    "sentence": _sentences,
    "line": _lines,
    "function": _functions,
}
_WANTED = f"{', '.join(map(repr, ('token', *_CUTS, 'turn')))}, or pairs (start, stop) of characters"
