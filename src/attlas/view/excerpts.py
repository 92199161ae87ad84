"""Answers of a desk kept for a page that has nobody to ask: which ones are wanted, and how they are packed.

Each answer lies under its path and is packed by itself, so that a page unpacks only what it shows.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from attlas.errors import ArgumentError, complaint
from attlas.view.desk import Answer
from attlas.view.tiles.matrices import UnknownMatrix

USUAL = 3_000_000
"""Bytes of a page up to which it is filled with deeper levels."""

MOST = 20_000_000
"""Bytes of a page beyond which it is refused."""

Span = tuple[int, int]
Ask = Callable[[str, Mapping[str, str]], Answer]

_HEADER = 16  # bytes of a tile or of vectors before their numbers
_FRAME = 12  # bytes that JSON puts around an answer and its path
_NEXT = re.compile(r",(?=[a-z]{1,3}\.[0-9]{1,5}\.(?:[0-9]{1,5}|mean)(?:[:~,]|$))")


@dataclass(frozen=True)
class Selection:
    """What a page is to hold.

    Parameters
    ----------
    matrices : tuple of str
        Names of matrices, the one that matters most first. None at all: the atlas of all heads.
    reduce : str
        What cells show.
    rows, cols : (int, int), optional
        The part whose exact entries are wanted, from and up to.
    view : str
        The page's address after its ``#``: what is selected there is kept, too.
    explanations : tuple of str
        Numbers of explanations.
    capture : str, optional
        Whose atlas it is, where no matrices are named; by default the first that there is.
    """

    matrices: tuple[str, ...]
    reduce: str
    rows: Span | None = None
    cols: Span | None = None
    view: str = ""
    explanations: tuple[str, ...] = ()
    capture: str | None = None

    def selected(self, name: str) -> int | None:
        """Return the selected ``row`` or ``col``, if one is."""
        text = dict(parse_qsl(self.view)).get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


@dataclass
class Excerpt:
    """Answers, packed.

    Parameters
    ----------
    size : int
        How many bytes of the page are spoken for.
    answers : dict
        Path -> bytes of a number, and the packed answer.
    """

    size: int = 0
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)

    def holds(self, paths: Collection[str]) -> bool:
        """Tell whether all of these are kept."""
        return all(path in self.answers for path in paths)

    def keep(self, path: str, content: bytes, width: int = 1, *, most: int | None = None) -> bool:
        """Keep an answer if the page stays small enough; tell whether it does.

        Parameters
        ----------
        path : str
        content : bytes
        width : int
            Bytes of each number that follows the sixteen of the header; 1 for what is no numbers.
        most : int, optional
            How many bytes the page may have; by default the usual size.
        """
        packed = base64.b64encode(gzip.compress(planes(content, width), 6, mtime=0)).decode("ascii")
        size = len(packed) + len(path) + _FRAME
        if self.size + size > (USUAL if most is None else most):
            return False
        self.answers[path] = (width, packed)
        self.size += size
        return True

    def keep_all(self, contents: Iterable[tuple[str, bytes]], width: int = 1) -> bool:
        """Keep all of these answers if the page stays small enough with them, and else none; tell whether it does."""
        size, before = self.size, dict(self.answers)
        if all(self.keep(path, content, width) for path, content in contents):
            return True
        self.size, self.answers = size, before
        return False

    def need(self, path: str, content: bytes, width: int = 1) -> None:
        """Keep an answer that the page cannot do without.

        Raises
        ------
        ArgumentError
            The page would be too large.
        """
        if not self.keep(path, content, width, most=MOST):
            wanted = f"one whose page has at most {MOST // 10**6} MB"
            way_out = "choose fewer matrices, or zoom in until fewer entries are in sight"
            raise ArgumentError(complaint("selection", wanted=wanted, got="a larger one", way_out=way_out))


def answered(ask: Ask, path: str, query: Mapping[str, str] | None = None) -> bytes:
    """Return an answer that has to be there.

    Raises
    ------
    UnknownMatrix
        It is a refusal.
    """
    answer = ask(path, query or {})
    if answer.status != 200:
        reason = str(json.loads(answer.body).get("error", "nothing"))
        raise UnknownMatrix(complaint("selection", wanted="what can be shown", got=reason))
    return answer.body


def json_bytes(content: Any) -> bytes:
    """Return plain types as a page reads them."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def planes(content: bytes, width: int) -> bytes:
    """Return bytes so that they pack well: all first bytes of the numbers, then all second ones and so on.

    Those that say how large numbers are resemble each other; the others resemble nothing.
    """
    if width == 1:
        return content
    numbers = np.frombuffer(content, np.uint8, offset=_HEADER).reshape(-1, width)
    return content[:_HEADER] + numbers.T.tobytes()


def split_names(text: str) -> tuple[str, ...]:
    """Return the names of matrices that stand in one text, with commas between; patterns have commas of their own."""
    return tuple(_NEXT.split(text)) if text else ()
