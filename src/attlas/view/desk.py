"""The desk: a path comes in, bytes go out.

Everything that a page knows it asks by a path, whether the question travels over HTTP, over a notebook's comm, or is
answered ahead of time in an exported file. What can be asked is a table of `Service` records, each of which knows some
first words of a path; whoever adds another kind of question adds a service.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from attlas._tables import finite
from attlas.errors import ArgumentError, AttlasError
from attlas.view.tiles.matrices import UnknownMatrix

JSON = "application/json"
BYTES = "application/octet-stream"
ROOT = "/api/"
LONGEST_PATH = 2048

_SPAN = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


class Overtaken(Exception):  # noqa: N818 - no error: the one who asked has gone
    """Nobody waits for the answer any more."""


class NoSuchPath(ArgumentError, LookupError):  # noqa: N818 - named for what it says
    """A path leads nowhere."""


@dataclass(frozen=True)
class Answer:
    """What a path is answered with.

    Parameters
    ----------
    status : int
        As in HTTP: 200, 404 for what is not there, 422 for what does not fit, 499 when nobody waits any more.
    media_type : str
        What the body is.
    body : bytes
    name : str, optional
        What a file is called that the body is to be saved as; None for what is not meant to be a file.
    """

    status: int
    media_type: str
    body: bytes
    name: str | None = None

    @staticmethod
    def of(content: Any, status: int = 200) -> Answer:
        """Return plain types as JSON; numbers that are not finite become null, and all text is plain ASCII."""
        # Half a surrogate pair cannot be UTF-8, but can be escaped.
        return Answer(status, JSON, json.dumps(finite(content), allow_nan=False, separators=(",", ":")).encode("ascii"))


@dataclass(frozen=True)
class Request:
    """What is asked.

    Parameters
    ----------
    words : tuple of str
        What follows the first word of the path, decoded: anything may stand in them.
    query : mapping
        What follows the question mark.
    check : callable
        To be called before and between expensive steps: raises `Overtaken` when nobody waits for the answer any more.
    """

    words: tuple[str, ...]
    query: Mapping[str, str]
    check: Callable[[], None]

    def expect(self, *names: str) -> tuple[str, ...]:
        """Return the words, as many as there are names for them.

        Raises
        ------
        NoSuchPath
            There are more, or fewer.
        """
        if len(self.words) != len(names):
            raise NoSuchPath(f"path: wanted {len(names)} parts ({', '.join(names)}), got {len(self.words)}")
        return self.words

    def chosen(self, name: str, known: Sequence[str]) -> str:
        """Return a choice from the query; the first one that is known if none was made.

        Raises
        ------
        ArgumentError
            It is none that is known.
        """
        value = self.query.get(name, known[0])
        if value not in known:
            raise ArgumentError(f"{name}: wanted {' or '.join(known)}, got {value[:40]!a}")
        return value


Route = Callable[[Request], Answer]
Event = Mapping[str, Any]
Listen = Callable[[Callable[[Event], None]], Callable[[], None]]


def _told_nothing(listener: Callable[[Event], None]) -> Callable[[], None]:
    """Take a listener to whom nothing will be told."""
    del listener
    return lambda: None


@dataclass(frozen=True)
class Service:
    """Some kinds of questions, and who answers them.

    Parameters
    ----------
    routes : mapping
        First word of a path, such as ``"tiles"`` -> who answers; called from several threads at once. What it raises as
        an `ArgumentError` becomes a refusal in one sentence.
    atlas : callable, optional
        Returns what the service adds to ``/api/atlas``, as plain types.
    close : callable, optional
        Called once, when the desk closes.
    """

    routes: Mapping[str, Route]
    atlas: Callable[[], Mapping[str, Any]] = dict
    close: Callable[[], None] = field(default=lambda: None)


class Desk:
    """Answers paths; safe to ask from several threads at once.

    Parameters
    ----------
    services : sequence of Service
        What can be asked. No two know the same first word.
    listen : callable, optional
        Takes a listener, which is told of what happens unasked, and returns what ends that; see `Background.listen`.
    under_way : callable, optional
        Returns a context in which each question is answered.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        listen: Listen = _told_nothing,
        under_way: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.listen = listen
        self._services = tuple(services)
        self._under_way = under_way
        self._routes: dict[str, Route] = {"atlas": self._atlas}
        for service in services:
            twice = self._routes.keys() & service.routes.keys()
            if twice:
                raise ArgumentError(f"services: wanted one for each path, got two for {', '.join(sorted(twice))}")
            self._routes |= service.routes
        self._closed = False

    @property
    def words(self) -> list[str]:
        """The first words of the paths that are known."""
        return sorted(self._routes)

    def answer(self, path: str, query: Mapping[str, str], *, wanted: Callable[[], bool] = lambda: True) -> Answer:
        """Answer a path.

        Parameters
        ----------
        path : str
            As it stands in an address, percent-encoded: ``/api/tiles/a.0.0/0/0/0``.
        query : mapping
            What follows the question mark, decoded.
        wanted : callable
            Whether anyone still waits for the answer; asked before and between expensive steps.

        Returns
        -------
        Answer
            A refusal is ``{"error": one sentence}``; it holds nothing of where files lie, or of how the code runs.
        """

        def check() -> None:
            if self._closed or not wanted():
                raise Overtaken

        try:
            check()
            word, words = _split(path)
            route = self._route(word)
            with self._under_way():
                return route(Request(words, query, check))
        except Overtaken:
            return Answer.of({"error": "nobody waits for this any more"}, 499)
        except (NoSuchPath, UnknownMatrix) as error:
            return Answer.of({"error": str(error)}, 404)
        except AttlasError as error:
            return Answer.of({"error": str(error)}, 422)

    def close(self) -> None:
        """End what is under way and let go of everything; no question is answered afterwards."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as stack:
            for service in self._services:
                stack.callback(service.close)

    def _route(self, word: str) -> Route:
        if word not in self._routes:
            raise NoSuchPath(f"path: wanted {ROOT} and one of {', '.join(self.words)}, got another")
        return self._routes[word]

    def _atlas(self, request: Request) -> Answer:
        request.expect()
        content: dict[str, Any] = {"spans": [], "methods": [], "patterns": []}
        for service in self._services:
            content |= service.atlas()
        return Answer.of(content)


def whole(name: str, text: str) -> int:
    """Return the whole number that a word of a path is.

    Raises
    ------
    NoSuchPath
        It is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise NoSuchPath(f"{name}: wanted a whole number, got {text[:40]!a}")
    return int(text)


def span_in(text: str) -> tuple[int, int]:
    """Return the two numbers of a span such as ``100-400``; (0, 0), which is none, for any other text."""
    found = _SPAN.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _split(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the first word of a path, and those that follow it, each decoded once."""
    if not path.startswith(ROOT) or len(path) > LONGEST_PATH:
        raise NoSuchPath(f"path: wanted one that begins with {ROOT}, of at most {LONGEST_PATH} characters")
    # Decoded after it is cut, so that an encoded slash stays inside of its word.
    word, *words = (unquote(part, errors="replace") for part in path[len(ROOT) :].split("/"))
    return word, tuple(words)
