"""Spans of a capture's tokens for the page: sentences, lines, turns, words, definitions; or why there are none."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from attlas.errors import ArgumentError, AttlasError, complaint
from attlas.explain.definitions import definitions_of
from attlas.explain.spans import spans_of
from attlas.models import Document
from attlas.models.aligning import aligned

if TYPE_CHECKING:
    from attlas.capture import Capture, LanguageModel
    from attlas.explain.attribution import Span

KINDS = ("sentence", "line", "turn", "word", "function")
"""What a text can be cut into."""

_LABEL = 80  # characters that a label shows


def span_record(capture: Capture, kind: str, lm: LanguageModel | None = None) -> dict[str, Any]:
    """Return the spans of a capture's tokens.

    Parameters
    ----------
    capture : Capture
        Its text and tokens have to be known.
    kind : str
        One of `KINDS`.
    lm : LanguageModel, optional
        The model that read the text, if it is open: its tokenizer knows where tokens lie, and what a turn is.

    Returns
    -------
    dict
        ``spans``: start, stop (tokens, from and up to) and label of each, ascending; ``reason``: why there are none,
        else None.

    Raises
    ------
    ArgumentError
        There is no such kind.
    """
    if kind not in KINDS:
        raise ArgumentError(complaint("spans", wanted=f"one of {', '.join(KINDS)}", got=repr(kind)))
    try:
        spans = _spans(capture, kind, lm)
    except AttlasError as error:
        return {"spans": [], "reason": str(error)}
    return {"spans": [{"start": s.start, "stop": s.stop, "label": label} for s, label in spans], "reason": None}


def _spans(capture: Capture, kind: str, lm: LanguageModel | None) -> list[tuple[Span, str]]:
    if kind == "turn" and lm is None:
        raise ArgumentError("turn: the marks of a chat are known from the model's tokenizer; open its model too")
    document = document_of(capture, lm)
    spans = spans_of(kind, document, None if lm is None else lm.tokenizer)
    if kind != "function":
        return [(span, _short(span.text)) for span in spans]
    definitions = definitions_of(document.text)
    starts = [one.start for one in definitions]
    offsets = document.offsets or []
    found = []
    for span in spans:
        # The last character of a span's first token is its own: spaces in front may belong to what is before.
        stop = offsets[span.start][1]
        name = definitions[bisect_right(starts, max(stop - 1, 0)) - 1].name if stop else ""
        found.append((span, _short(name)))
    return found


def document_of(capture: Capture, lm: LanguageModel | None = None) -> Document:
    """Return what was read: from the model's own tokenizer if it is open, else from the capture's text and tokens.

    Raises
    ------
    ArgumentError
        The capture does not know its text, or the tokens are not spelt as the text is.
    """
    if capture.text is None or capture.tokens is None:
        raise ArgumentError("text: this capture does not know the text that was read")
    if lm is not None and lm.tokenizer is not None:
        document = lm.tokenize(capture.text)
        if document.tokens == capture.tokens:
            return document
    return aligned(capture.text, capture.tokens)


def _short(text: str) -> str:
    """Return the first words of a text, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= _LABEL else f"{words[: _LABEL - 1]}…"
