"""Cards of heads, by path: ``/api/heads/{capture}/{layer}/{head}``, with ``?parts=statistics,roles`` for some parts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attlas.errors import ArgumentError
from attlas.projections import projections
from attlas.view.desk import Answer, NoSuchPath, Request, Service, whole
from attlas.view.desk_captures import Exhibit, exhibit_of
from attlas.view.desk_roles import Roles
from attlas.view.head_card import PARTS, HeadSources, head_card
from attlas.view.turns import Turns

if TYPE_CHECKING:
    from attlas.capture import LanguageModel
    from attlas.projections import Projections

REMEMBERED = 1024
"""Parts of cards that are kept: each is a few kilobytes at most, and what it was made from does not change."""


Measured = Callable[[str, int, int], list[dict[str, Any]] | None]


class HeadAnswers:
    """Answers what is asked about single heads.

    Parameters
    ----------
    exhibits : dict
        Name -> Exhibit.
    roles : Roles, optional
        What is known of the roles of the heads.
    turns : Turns, optional
        Whose turn it is to run a model.
    measured : callable, optional
        Takes a capture's name, a layer and a head, and gives its statistics if they are measured already.
    """

    def __init__(
        self,
        exhibits: dict[str, Exhibit],
        roles: Roles | None = None,
        turns: Turns | None = None,
        measured: Measured = lambda *_: None,
    ) -> None:
        self._exhibits = exhibits
        self._measured = measured
        self._sources = HeadSources(roles=(Roles({}) if roles is None else roles).table)
        self._turns = Turns() if turns is None else turns
        self._lock = threading.Lock()
        self._parts: dict[tuple[str, int, int, str], tuple[Any, str | None]] = {}
        self._projections: dict[int, Projections] = {}

    def service(self) -> Service:
        """Return the service of ``/api/heads``."""
        return Service({"heads": self._answer}, close=self._close)

    def _answer(self, request: Request) -> Answer:
        name, number, which = request.expect("capture", "layer", "head")
        exhibit = exhibit_of(self._exhibits, name)
        layer, head = whole("layer", number), whole("head", which)
        if layer not in exhibit.capture.layers or head not in exhibit.capture.heads(layer):
            raise NoSuchPath(f"head: wanted a captured one, got {layer}.{head}")
        named = request.query.get("parts")
        parts = PARTS if named is None else tuple(dict.fromkeys(named.split(",")))
        if not set(parts) <= set(PARTS):
            raise ArgumentError(f"parts: wanted some of {', '.join(PARTS)}, got {ascii(named or '')[:60]}")
        with self._lock:
            known = {part: found for part in parts if (found := self._parts.get((name, layer, head, part))) is not None}
        if "statistics" in parts and (measured := self._measured(name, layer, head)) is not None:
            known["statistics"] = measured, None
        missing = [part for part in parts if part not in known]
        sources = self._sources_of(exhibit, request.check)
        card = head_card(exhibit.capture, layer, head, sources, parts=missing, check=request.check)
        known |= {part: (card[part], card["reasons"].get(part)) for part in missing}
        with self._lock:
            # Roles that are not there yet may come.
            lasting = {part: found for part, found in known.items() if part != "roles" or found[0] is not None}
            self._parts |= {(name, layer, head, part): found for part, found in lasting.items()}
            while len(self._parts) > REMEMBERED:
                self._parts.pop(next(iter(self._parts)))
        reasons = {part: reason for part, (_, reason) in known.items() if reason is not None}
        left_out = {part: card["reasons"][part] for part in PARTS if part not in parts}
        content = {**dict.fromkeys(PARTS), **{part: found for part, (found, _) in known.items()}}
        return Answer.of({**content, "reasons": {**reasons, **left_out}})

    def _sources_of(self, exhibit: Exhibit, check: Callable[[], None]) -> HeadSources:
        lm = exhibit.model
        # Weights belong to what was read only if it was this very model that read it.
        if lm is None or lm.facts.fingerprint != exhibit.capture.provenance.fingerprint:
            return self._sources
        return replace(self._sources, projections=partial(self._projected, lm, check))

    def _projected(self, lm: LanguageModel, check: Callable[[], None]) -> Projections:
        with self._lock:
            known = self._projections.get(id(lm))
        if known is not None:
            return known
        # They are found in a short run of the model.
        with self._turns.one(check):
            if id(lm) not in self._projections:
                found = projections(lm)
                with self._lock:
                    self._projections[id(lm)] = found
            return self._projections[id(lm)]

    def _close(self) -> None:
        with self._lock:
            self._parts.clear()
            self._projections.clear()
