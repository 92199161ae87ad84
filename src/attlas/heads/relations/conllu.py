"""Reads CoNLL-U, the format of treebanks: which word hangs on which, and by what relation.

https://universaldependencies.org/format.html. A word is here what is *written*: a multiword token ("3-4", German
"zum" for "zu dem") is one word, which has the relations of its parts, because that is what a model reads. Relations
inside of it are dropped; empty nodes are no words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from attlas.errors import DocumentError

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_ID, _FORM, _HEAD, _DEPREL, _MISC = 0, 1, 6, 7, 9
_NUMBER = re.compile(r"[1-9][0-9]*")
_RANGE = re.compile(r"([1-9][0-9]*)-([1-9][0-9]*)")
_EMPTY = re.compile(r"(0|[1-9][0-9]*)\.[1-9][0-9]*")


@dataclass(frozen=True)
class Parsed:
    """A sentence of a CoNLL-U file.

    Parameters
    ----------
    words : tuple of str
        As they are written.
    spaces : tuple of bool
        Whether a space follows each of them.
    links : tuple of (dependent, head, relation)
        Numbers of words, from 0. What hangs on nothing, the root, has no link.
    """

    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    links: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class _Row:
    """A word's line."""

    line: int
    unit: int
    head: int
    relation: str


@dataclass
class _Sentence:
    """What is known of the sentence that is being read."""

    words: list[str] = field(default_factory=list)
    spaces: list[bool] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)
    joined_until: int = 0
    joined_line: int = 0


def parse_conllu(text: str, source: str = "text") -> Iterator[Parsed]:
    """Yield the sentences of a CoNLL-U text.

    Parameters
    ----------
    text : str
        The file's content.
    source : str
        What an error calls it.

    Raises
    ------
    DocumentError
        With the line and the column, counted from 1, of the first thing that is wrong.
    """
    sentence, where = _Sentence(), _Place(source, 1)
    for number, line in enumerate(text.split("\n"), start=1):
        where = _Place(source, number)
        content = line.removesuffix("\r")
        if not content:
            yield from _finished(sentence, where)
            sentence = _Sentence()
        elif not content.startswith("#"):
            _take(sentence, content.split("\t"), where)
    yield from _finished(sentence, where)


@dataclass(frozen=True)
class _Place:
    source: str
    line: int

    def refuse(self, column: int, wanted: str, got: str) -> NoReturn:
        """Raise the error about one of the line's columns."""
        raise DocumentError(
            f"{self.source}: line {self.line:,}, column {column + 1} ({COLUMNS[column]}): wanted {wanted}, got {got}"
        )


def _take(sentence: _Sentence, columns: list[str], where: _Place) -> None:
    if len(columns) != len(COLUMNS):
        where.refuse(
            min(len(columns), len(COLUMNS) - 1), f"{len(COLUMNS)} columns between tabs", f"{len(columns)} of them"
        )
    name = columns[_ID]
    following = len(sentence.rows) + 1
    if _EMPTY.fullmatch(name):
        return
    if not columns[_FORM].strip():
        where.refuse(_FORM, "a word", "nothing")
    space = "SpaceAfter=No" not in columns[_MISC].split("|")
    if joined := _RANGE.fullmatch(name):
        first, last = int(joined[1]), int(joined[2])
        if first != following or last <= first or first <= sentence.joined_until:
            where.refuse(_ID, f"the words from {following} to a later one", repr(name))
        sentence.joined_until, sentence.joined_line = last, where.line
        sentence.words.append(columns[_FORM])
        sentence.spaces.append(space)
        return
    if not _NUMBER.fullmatch(name) or int(name) != following:
        where.refuse(_ID, f"{following}, as the next word", repr(name))
    if following > sentence.joined_until:
        sentence.words.append(columns[_FORM])
        sentence.spaces.append(space)
    if not (columns[_HEAD] == "0" or _NUMBER.fullmatch(columns[_HEAD])):
        where.refuse(_HEAD, "the number of a word, or 0 for the root", repr(columns[_HEAD]))
    head = int(columns[_HEAD])
    if head == following:
        where.refuse(_HEAD, "another word", f"the word itself ({head})")
    if not columns[_DEPREL].strip() or columns[_DEPREL] == "_":
        where.refuse(_DEPREL, "the name of a relation", repr(columns[_DEPREL]))
    sentence.rows.append(_Row(where.line, len(sentence.words) - 1, head, columns[_DEPREL]))


def _finished(sentence: _Sentence, where: _Place) -> Iterator[Parsed]:
    rows = sentence.rows
    if sentence.joined_until > len(rows):
        _Place(where.source, sentence.joined_line).refuse(
            _ID, f"words that the sentence has, up to {len(rows)}", str(sentence.joined_until)
        )
    if not rows:
        return
    for row in rows:
        if row.head > len(rows):
            _Place(where.source, row.line).refuse(_HEAD, f"a word from 0 to {len(rows)}", str(row.head))
    _check_tree(rows, where.source)
    links = tuple(
        (row.unit, rows[row.head - 1].unit, row.relation)
        for row in rows
        if row.head and rows[row.head - 1].unit != row.unit
    )
    yield Parsed(tuple(sentence.words), tuple(sentence.spaces), links)


def _check_tree(rows: list[_Row], source: str) -> None:
    """Refuse words that hang on one another in a circle."""
    settled = {0}
    for start in range(1, len(rows) + 1):
        path, at = [], start
        while at not in settled:
            if at in path:
                _Place(source, rows[at - 1].line).refuse(
                    _HEAD, "a way to the root", f"{rows[at - 1].head}, which leads back to the word itself"
                )
            path.append(at)
            at = rows[at - 1].head
        settled.update(path)
