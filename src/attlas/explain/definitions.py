"""The definitions of a source text and the sections of a document, found by plain rules.

Nothing is parsed: a text may be cut off anywhere, or be of any language that looks like one of these. Python's
definitions are found by their indentation, those of languages with braces by these, sections by their headings. A
function inside of another belongs to it, and so does what stands between the methods of a class to the class. What is
written with macros, or in a string that the rules do not know, can be missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from attlas.errors import ArgumentError, complaint

_FENCED = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1[^\n]*$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(\S[^\n]*)$|^(\S[^\n]*)\n={3,}[ \t]*$", re.MULTILINE)

_PYTHON = re.compile(r"^(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|^class[ \t]+\w+[ \t]*[:(]", re.MULTILINE)
_PYTHON_STRINGS = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)|\'\'\'(?:\\.|[^\\])*?(?:\'\'\'|\Z)'
    r'|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n])*\'?|#[^\n]*',
    re.DOTALL,
)
_OPENS_DEFINITION = re.compile(r"(?:async[ \t]+)?(def|class)[ \t]+(\w+)")

_COMMENTS = r"//[^\n]*|/\*.*?(?:\*/|\Z)|^[ \t]*#(?:\\\n|[^\n])*"
_QUOTED = r'"(?:\\.|[^"\\\n])*"?|`(?:\\.|[^`\\])*(?:`|\Z)'
_BRACE_STRINGS = re.compile(rf"{_COMMENTS}|{_QUOTED}|'(?:\\.|[^'\\\n])*'", re.DOTALL | re.MULTILINE)
_RUST_STRINGS = re.compile(rf"{_COMMENTS}|{_QUOTED}|'(?:\\[^'\n]*|[^'\\\n])'", re.DOTALL | re.MULTILINE)
_RUST = re.compile(r"\bfn\s+\w+\s*[<(]")
_EMPTY_LINE = re.compile(r"^[ \t]*\n", re.MULTILINE)
_SOLID = re.compile(r"\S")
_DEEPEST = 16  # classes within classes; what lies deeper belongs to the last of them
_HEADER = 2000  # characters in front of a brace that are looked at: a regular expression must not run away

_FUNCTION_WORD = re.compile(r"\b(?:func|fn|fun|function)\b\s*\*?\s*(?:\([^()]*\)\s*)?([\w$]+)\s*[<(\[]")
_ASSIGNED = re.compile(r"([\w$.]+)\s*[:=]\s*(?:async\b\s*)?(?:function\b[^;{}=]*|[^;{}=]*=>)\s*$")
_CALLED = re.compile(r"([~\w$][~\w$:.]*)\s*\([^;{}]*\)[^;{}()=]*$")
_CONTAINER = re.compile(
    r"\b(?:class|struct|interface|enum|union|trait|impl|namespace|module|mod|object|extension)\b\s*(?:<[^>]*>)?\s*"
    r"([\w$:.]*)|\btype\s+(\w+)\s+(?:struct|interface)\b"
)
_RETURNED = re.compile(r"[\s*&]+")  # between a C struct's name and the function that returns it
_NO_NAMES = frozenset(
    "if for while switch catch return sizeof with synchronized else do try match loop unsafe function func fn fun "
    "foreach using lock when until elif new throw await defer select go".split()
)


@dataclass(frozen=True)
class Definition:
    """A stretch of text that belongs to one definition or section.

    Parameters
    ----------
    start, stop : int
        Its characters, from and up to.
    name : str
        What it is called, with its classes in front, ``"Parser.parse"``; empty for what belongs to none.
    """

    start: int
    stop: int
    name: str


def definitions_of(text: str) -> tuple[Definition, ...]:
    """Cut a text into its definitions, or its sections, and what lies between.

    Parameters
    ----------
    text : str
        A source in Python, or in a language with braces, or a document with headings as in Markdown.

    Returns
    -------
    tuple of Definition
        Ascending, together the whole text.

    Raises
    ------
    ArgumentError
        No definition and no heading is found.
    """
    plain = _blanked(text, _FENCED)
    changes: list[tuple[int, str]] = []
    if _PYTHON.search(_blanked(plain, _PYTHON_STRINGS)):
        changes = list(_python(text))
    else:
        titles = [(match.start(), (match[1] or match[2]).rstrip("# \t")) for match in _HEADING.finditer(plain)]
        braced = list(_braced(plain))
        changes = braced if len({at for at, name in braced if name}) >= max(len(titles), 1) else titles
    found = tuple(_between(changes, len(text)))
    if not any(one.name for one in found):
        raise ArgumentError(
            complaint(
                "spans",
                wanted='a source with definitions, or a text with headings, for "function"',
                got="a text in which none is found",
            )
        )
    return found


def _between(changes: Iterable[tuple[int, str]], size: int) -> Iterator[Definition]:
    """Yield the stretches between places where what the text belongs to changes."""
    start, name = 0, ""
    for at, following in changes:
        if at > start:
            yield Definition(start, at, name)
        start, name = at, following
    if size > start:
        yield Definition(start, size, name)


def _blanked(text: str, what: re.Pattern[str]) -> str:
    """Return a text of the same length, in which only spaces and line ends are left of some parts."""
    return what.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


# ---- by indentation


@dataclass(frozen=True)
class _Open:
    indent: int
    name: str
    holds: bool
    """Whether its own definitions count: a class's do, a function's belong to it."""


def _python(text: str) -> Iterator[tuple[int, str]]:
    """Yield where what a line belongs to changes, and what that is."""
    plain = _blanked(text, _PYTHON_STRINGS)
    stack: list[_Open] = []
    decorated: int | None = None
    depth, at = 0, 0
    for line in plain.splitlines(keepends=True):
        code = line.strip()
        start, at = at, at + len(line)
        opens = _OPENS_DEFINITION.match(code)
        # A definition never stands in brackets: those before it were not closed.
        depth = 0 if opens else depth
        if code and depth == 0:
            indent = len(line.expandtabs()) - len(line.expandtabs().lstrip())
            closed = False
            while stack and indent <= stack[-1].indent:
                stack.pop()
                closed = True
            inside = bool(stack) and (not stack[-1].holds or len(stack) >= _DEEPEST)
            if opens and not inside:
                stack.append(_Open(indent, opens[2], opens[1] == "class"))
                yield (start if decorated is None else decorated), _qualified(stack)
            elif code.startswith("@") and not inside:
                decorated = start if decorated is None else decorated
            elif closed:
                yield start, _qualified(stack)
            if not code.startswith("@"):
                decorated = None
        depth = max(0, depth + sum(map(code.count, "([{")) - sum(map(code.count, ")]}")))


# ---- by braces


def _braced(text: str) -> Iterator[tuple[int, str]]:
    """Yield where a definition or a container begins and where it ends, and what the text belongs to from there on."""
    plain = _blanked(text, _RUST_STRINGS if _RUST.search(text) else _BRACE_STRINGS)
    braces: list[bool] = []  # of each open one, whether it has a name
    named: list[_Open] = []
    behind = 0  # the last brace or semicolon
    for match in re.finditer(r"[{};]", plain):
        at, sign = match.start(), match[0]
        if sign == "{":
            inside = bool(named) and (not named[-1].holds or len(named) >= _DEEPEST)
            made = None if inside else _header(plain[max(behind, at - _HEADER) : at])
            braces.append(made is not None)
            if made is not None:
                named.append(made)
                yield _beginning(text, plain, behind, at), _qualified(named)
        elif sign == "}" and braces and braces.pop():
            named.pop()
            yield _line_end(plain, match.end()), _qualified(named)
        behind = match.end()


def _qualified(stack: Iterable[_Open]) -> str:
    return ".".join(one.name for one in stack)


def _header(header: str) -> _Open | None:
    """Return what the text in front of a brace opens; None for what has no name of its own."""
    if header.count("(") != header.count(")"):
        return None
    if match := _FUNCTION_WORD.search(header) or _ASSIGNED.search(header):
        return _Open(0, match[1], holds=False)
    container, called = _CONTAINER.search(header), _CALLED.search(header)
    returned = (
        container and called and _RETURNED.fullmatch(header, container.end(), max(called.start(), container.end()))
    )
    if container and not returned:
        return _Open(0, container[1] or container[2] or container[0].split()[0], holds=True)
    if called and called[1] not in _NO_NAMES and "=" not in header[: called.start()]:
        return _Open(0, called[1], holds=False)
    return None


def _line_end(plain: str, at: int) -> int:
    """Return the end of a line if nothing more stands on it, else the place itself."""
    end = plain.find("\n", at)
    end = len(plain) if end < 0 else end + 1
    return at if plain[at:end].strip(" \t\r\n;,") else end


def _beginning(text: str, plain: str, behind: int, brace: int) -> int:
    """Return where a definition begins: behind an empty line, with the comments above it, not with the line before."""
    at = _line_end(plain, behind) if behind else 0
    for match in _EMPTY_LINE.finditer(text, at, brace):
        at = match.end()
    solid = _SOLID.search(text, at)
    first = solid.start() if solid else at
    return max(at, text.rfind("\n", at, first) + 1)
