"""Cards of heads, by path: ``/api/heads/{capture}/{layer}/{head}``, with ``?parts=statistics,roles`` for some parts."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attlas.errors import ArgumentError
from attlas.projections import projections
from attlas.view.desk import Answer, NoSuchPath, Request, Service, whole
from attlas.view.desk_captures import Exhibit, exhibit_of
from attlas.view.head_card import PARTS, HeadSources, head_card

if TYPE_CHECKING:
    from attlas.capture import LanguageModel
    from attlas.heads.role_table import HeadTable
    from attlas.projections import Projections

REMEMBERED = 1024
"""Parts of cards that are kept: each is a few kilobytes at most, and what it was made from does not change."""


class HeadAnswers:
    """Answers what is asked about single heads.

    Parameters
    ----------
    exhibits : dict
        Name -> Exhibit.
    roles : HeadTable, optional
        What `attlas.heads` measured of the model.
    """

    def __init__(self, exhibits: dict[str, Exhibit], roles: HeadTable | None = None) -> None:
        self._exhibits = exhibits
        self._sources = HeadSources(roles=roles)
        self._lock = threading.Lock()
        self._projecting = threading.Lock()
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
        missing = [part for part in parts if part not in known]
        card = head_card(exhibit.capture, layer, head, self._sources_of(exhibit), parts=missing, check=request.check)
        known |= {part: (card[part], card["reasons"].get(part)) for part in missing}
        with self._lock:
            self._parts |= {(name, layer, head, part): found for part, found in known.items()}
            while len(self._parts) > REMEMBERED:
                self._parts.pop(next(iter(self._parts)))
        reasons = {part: reason for part, (_, reason) in known.items() if reason is not None}
        left_out = {part: card["reasons"][part] for part in PARTS if part not in parts}
        content = {**dict.fromkeys(PARTS), **{part: found for part, (found, _) in known.items()}}
        return Answer.of({**content, "reasons": {**reasons, **left_out}})

    def _sources_of(self, exhibit: Exhibit) -> HeadSources:
        lm = exhibit.model
        # Weights belong to what was read only if it was this very model that read it.
        if lm is None or lm.facts.fingerprint != exhibit.capture.provenance.fingerprint:
            return self._sources
        return replace(self._sources, projections=partial(self._projected, lm))

    def _projected(self, lm: LanguageModel) -> Projections:
        with self._projecting:
            if id(lm) not in self._projections:
                self._projections[id(lm)] = projections(lm)
            return self._projections[id(lm)]

    def _close(self) -> None:
        with self._lock:
            self._parts.clear()
        with self._projecting:
            self._projections.clear()
