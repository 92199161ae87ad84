"""Explanations, by path.

``/api/explanations`` lists the methods. ``/api/explanations/start?capture=a&method=rollout&target=-1&budget=160``
begins one, whose faithfulness is measured with so many forward passes, and gives its number;
``/api/explanations/{number}`` tells how far it is, and what was found; ``/api/explanations/{number}/cancel`` ends it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from attlas.errors import ArgumentError
from attlas.explain.methods import METHODS
from attlas.view.desk import Answer, NoSuchPath, Request, Service
from attlas.view.desk_captures import Exhibit, exhibit_of
from attlas.view.explanations import Explanations, TakeTurn, methods_record, unexplained

MOST = 1024
"""Forward passes that may be asked for to measure one explanation: more say little more."""


class ExplanationAnswers:
    """Answers what is asked about explanations.

    Parameters
    ----------
    exhibits : dict
        Name -> Exhibit.
    turn : callable
        As in `Explanations`.
    """

    def __init__(self, exhibits: dict[str, Exhibit], turn: TakeTurn = nullcontext) -> None:
        self._exhibits = exhibits
        self._explanations = Explanations(turn=turn)

    def service(self) -> Service:
        """Return the service of ``/api/explanations``."""
        return Service({"explanations": self._answer}, self._atlas, self._explanations.close)

    def _atlas(self) -> dict[str, Any]:
        explained = any(exhibit.model is not None for exhibit in self._exhibits.values())
        return {"methods": list(METHODS) if explained else []}

    def _answer(self, request: Request) -> Answer:
        match request.words:
            case ():
                reasons = {name: self._reason(exhibit) for name, exhibit in self._exhibits.items()}
                return Answer.of({"methods": methods_record(), "reasons": reasons})
            case ("start",):
                return self._start(request)
            case (number,):
                return _told(self._explanations.state(number))
            case (number, "cancel"):
                return _told(self._explanations.cancel(number))
        raise NoSuchPath("explanations: wanted start, a number, or a number and cancel, got another path")

    def _reason(self, exhibit: Exhibit) -> str | None:
        return unexplained(exhibit.capture, exhibit.model) or None

    def _start(self, request: Request) -> Answer:
        query = request.query
        for name in ("capture", "method", "target"):
            if len(query.get(name, "")) > 200:
                raise ArgumentError(f"{name}: wanted at most 200 characters, got {len(query[name])}")
        name = query.get("capture", next(iter(self._exhibits)))
        exhibit = exhibit_of(self._exhibits, name)
        found = self._explanations.start(
            name,
            exhibit.capture,
            exhibit.model,
            query.get("method", "rollout"),
            query.get("target", "-1"),
            budget=_budget(request),
        )
        return Answer.of(found)


def _budget(request: Request) -> int:
    """Return the forward passes that may be taken: none unless they are asked for."""
    text = request.query.get("budget", "0")
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MOST)) or int(text) > MOST:
        raise ArgumentError(f"budget: wanted 0 to {MOST} forward passes, got {text[:40]!a}")
    return int(text)


def _told(found: dict[str, Any] | None) -> Answer:
    if found is None:
        raise NoSuchPath("explanations: wanted the number of one that was started, got another, or one long forgotten")
    return Answer.of(found)
