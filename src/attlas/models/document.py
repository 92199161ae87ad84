"""A text as a model reads it: where it comes from, its tokens in readable form, and its parts when it is too long.

A token is shown as the text that it covers, taken from the document itself: spaces, line ends, capitals and accents are
the document's own, not the tokenizer's spelling of them. The pieces of a character that takes several tokens each show
that character.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attlas.errors import ArgumentError, DocumentError, complaint

_SPACE_MARKERS = ("Ġ", "▁")  # how byte-level and sentencepiece vocabularies spell a space in front


@dataclass(frozen=True)
class Document:
    """A text and its tokens.

    Parameters
    ----------
    text : str
        The text.
    ids : list of int
        Token ids, those that the tokenizer adds ([CLS] …) included.
    tokens : list of str
        What each token stands for, readable.
    offsets : list of (int, int) or None
        Characters of `text` that each token covers, from and up to; an added token covers none, (0, 0). None if the
        tokenizer cannot tell.
    added : (int, int)
        How many tokens the tokenizer put in front and behind.
    start : int
        Position of the first token of `text` in the whole document, when this is a part of one (see `chunks`).
    """

    text: str
    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]] | None
    added: tuple[int, int] = (0, 0)
    start: int = 0

    def __len__(self) -> int:
        return len(self.ids)


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file, or of standard input for ``"-"``.

    Raises
    ------
    DocumentError
        If it is missing, a folder, unreadable, binary, not UTF-8 (with the offset of the first bad byte), or empty.
    """
    source = "standard input" if str(path) == "-" else str(path)
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DocumentError(f"{source}: there is no such file; give a text file, or - for standard input") from error
    except IsADirectoryError as error:
        raise DocumentError(f"{source}: wanted a text file, got a folder; give one of its files") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DocumentError(f"{source}: cannot be read ({reason})") from error
    if (zero := content.find(b"\0")) >= 0:
        raise DocumentError(
            f"{source}: wanted UTF-8 text, got a binary file (byte {zero:,} is zero); extract its text first"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte-order mark.
        bad = error.start + len(content) - len(error.object)
        raise DocumentError(
            f"{source}: wanted UTF-8 text, got byte 0x{content[bad]:02x} at offset {bad:,}; "
            "convert it first, for example with: iconv -f LATIN1 -t UTF-8"
        ) from error
    check_text(text, source)
    return text


def check_text(text: str, source: str = "text") -> None:
    """Refuse a text that has nothing to read in it, or cannot be encoded.

    Raises
    ------
    ArgumentError
        If it is no str.
    DocumentError
        If it is empty or only white space, or holds a lone surrogate (half a character, which no encoding can carry).
    """
    if not isinstance(text, str):
        raise ArgumentError(complaint(source, wanted="a str", got=f"a {type(text).__name__}"))
    if not text.strip():
        raise DocumentError(f"{source}: wanted text, got {'nothing' if not text else 'only white space'}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{source}: wanted text, got a lone surrogate (U+{ord(text[error.start]):04X}) at index {error.start:,}; "
            "decode the original bytes as UTF-8, or replace it"
        ) from error


def tokenize(tokenizer: Any, text: str) -> Document:
    """Cut a text into tokens, never shortening it.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A transformers tokenizer.
    text : str
        Any text but an empty one.

    Raises
    ------
    ArgumentError
        If there is no tokenizer, or the text is no str.
    DocumentError
        If the text is empty, cannot be encoded, or has no tokens.
    """
    if tokenizer is None:
        raise ArgumentError(
            "tokenizer: this model has none, since it does not read text; call the model itself inside attlas.capture"
        )
    check_text(text)
    whole = {"truncation": False, "padding": False, "verbose": False}
    encoded = tokenizer(text, return_offsets_mapping=tokenizer.is_fast, **whole)
    ids = list(encoded["input_ids"])
    body = list(tokenizer(text, add_special_tokens=False, **whole)["input_ids"])
    if not body:
        raise DocumentError(
            "text: wanted something that the tokenizer has tokens for, got only characters that it drops"
        )
    added = _added(ids, body)
    if not tokenizer.is_fast:
        return Document(text, ids, [tokenizer.decode([index]) for index in ids], None, added)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    offsets = _with_spaces(text, pieces, [tuple(pair) for pair in encoded["offset_mapping"]])
    tokens = [text[begin:end] or piece for piece, (begin, end) in zip(pieces, offsets, strict=True)]
    return Document(text, ids, tokens, offsets, added)


def _added(ids: list[int], body: list[int]) -> tuple[int, int]:
    """Return how many tokens stand in front of the text's own tokens, and behind."""
    for front in range(len(ids) - len(body) + 1):
        if ids[front : front + len(body)] == body:
            return front, len(ids) - len(body) - front
    raise DocumentError(
        "text: its tokens change when the tokenizer adds its special ones, so they cannot be told apart"
    )


def _with_spaces(text: str, pieces: list[str], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give a token the space in front of it, where its spelling has one and the tokenizer's offsets leave it out."""
    widened, last = [], 0
    for piece, (begin, end) in zip(pieces, offsets, strict=True):
        covers = begin < end or last < begin
        starts = last if covers and piece.startswith(_SPACE_MARKERS) and text[last:begin].isspace() else begin
        widened.append((starts, end))
        last = max(last, end)
    return widened


def check_length(document: Document, positions: int | None) -> None:
    """Refuse a document with more tokens than a model has positions.

    Parameters
    ----------
    document : Document
        What is to be read at once.
    positions : int or None
        The model's limit; None if it has none.

    Raises
    ------
    DocumentError
        With both numbers, and the ways out.
    """
    if positions is not None and len(document) > positions:
        raise DocumentError(
            f"text: wanted at most {positions:,} tokens, as many as the model has positions, got {len(document):,}; "
            f"shorten it, or read it in parts of {positions} tokens with --window {positions}"
        )


def chunks(document: Document, window: int, stride: int | None = None) -> Iterator[Document]:
    """Yield a document in parts of at most `window` tokens, each with the added tokens that the whole one has.

    Parameters
    ----------
    document : Document
        Any document.
    window : int
        Tokens in a part, added ones included.
    stride : int, optional
        Tokens from one part's start to the next; the default leaves no overlap. The last part may be shorter.

    Raises
    ------
    ArgumentError
        If `window` has no room for text besides the added tokens, or `stride` is not in 1..room.
    """
    front, behind = document.added
    room = _whole_number("window", window, front + behind + 1, None) - front - behind
    step = room if stride is None else _whole_number("stride", stride, 1, room)
    body = len(document) - front - behind
    for begin in range(0, body, step):
        end = min(begin + room, body)
        yield _part(document, begin, end)
        if end == body:
            return


def _whole_number(name: str, value: int, least: int, most: int | None) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        wanted = f"a whole number from {least}" + ("" if most is None else f" to {most}")
        raise ArgumentError(complaint(name, wanted=wanted, got=repr(value)))
    return value


def _part(document: Document, begin: int, end: int) -> Document:
    front, behind = document.added
    size = len(document)
    keep = [*range(front), *range(front + begin, front + end), *range(size - behind, size)]
    text, offsets = "".join(document.tokens[front + begin : front + end]), None
    if document.offsets is not None:
        own = document.offsets[front + begin : front + end]
        first, last = min(low for low, _ in own), max(high for _, high in own)
        text = document.text[first:last]
        moved = [(low - first, high - first) for low, high in own]
        offsets = [*[(0, 0)] * front, *moved, *[(0, 0)] * behind]
    return Document(
        text,
        [document.ids[index] for index in keep],
        [document.tokens[index] for index in keep],
        offsets,
        document.added,
        document.start + begin,
    )
