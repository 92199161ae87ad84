"""Collects the atlas of all heads ahead of time: their statistics, their small maps, and the tokens.

Of the small maps those of the reducer that is shown come first, as fine as a page of a usual size allows; then those
of the others, while there is room. Nothing of a single head is kept, so no head of such a page can be opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from attlas.errors import ArgumentError, complaint
from attlas.view.excerpts import Ask, Excerpt, Selection, answered, json_bytes
from attlas.view.tiles.maps import SIDES
from attlas.view.tiles.matrices import UnknownMatrix


class AtlasCollector:
    """Collects what a page of all heads is to hold.

    Parameters
    ----------
    ask : callable
        Answers a path and a query.
    selection : Selection
    taken : int
        How many bytes of the page are spoken for by something else.

    Raises
    ------
    UnknownMatrix
        There is no such capture.
    ArgumentError
        No layer of it is measured yet.
    """

    def __init__(self, ask: Ask, selection: Selection, taken: int = 0) -> None:
        self._ask = ask
        self._selection = selection
        self._excerpt = Excerpt(taken)
        self._atlas: dict[str, Any] = json.loads(answered(ask, "/api/atlas"))
        captures = {capture["id"]: capture for capture in self._atlas["captures"]}
        self._name = next(iter(captures)) if selection.capture is None else selection.capture
        if self._name not in captures:
            raise UnknownMatrix(complaint("capture", wanted=" or ".join(captures), got=ascii(self._name[:40])))
        self._capture: dict[str, Any] = captures[self._name]
        self._measured: dict[str, Any] = json.loads(answered(ask, f"/api/statistics/{self._name}"))
        # A layer that is not measured yet would cost a pass over all of its heads.
        self._layers = [layer for layer in self._capture["layers"] if str(layer["layer"]) in self._measured["layers"]]
        if not self._layers:
            wanted, way_out = "one of which a layer is measured", "wait until the page shows some maps"
            raise ArgumentError(complaint("capture", wanted=wanted, got="one that is not yet", way_out=way_out))

    @property
    def title(self) -> str:
        """The name of the document."""
        return str(self._capture["title"])

    def collect(self) -> Excerpt:
        """Return the answers.

        Raises
        ------
        ArgumentError
            The page would be too large.
        """
        tokens = self._ask(f"/api/tokens/{self._name}", {})
        if tokens.status == 200:
            self._excerpt.need(f"/api/tokens/{self._name}", tokens.body)
        count = len(self._layers)
        self._excerpt.need(
            f"/api/statistics/{self._name}",
            json_bytes({**self._measured, "done": count, "of": count, "complete": True}),
        )
        sides = self._maps()
        self._excerpt.need("/api/atlas", json_bytes(self._described(sides)))
        return self._excerpt

    def _maps(self) -> dict[str, int]:
        """Keep the small maps; return how many cells a side they have at most, by reducer."""
        first = self._selection.reduce
        sides = {}
        for reduce in (first, *(other for other in self._atlas["reducers"] if other != first)):
            fitting = (side for side in SIDES if self._excerpt.keep_all(self._of_all_layers(reduce, side), 2))
            found = next(fitting, None)
            if found is None and reduce == first:
                found = SIDES[-1]
                for path, content in self._of_all_layers(reduce, found):
                    self._excerpt.need(path, content, 2)
            if found is not None:
                sides[reduce] = found
        return sides

    def _of_all_layers(self, reduce: str, side: int) -> Iterator[tuple[str, bytes]]:
        for layer in self._layers:
            path = f"/api/maps/{self._name}/{layer['layer']}"
            yield f"{path}?reduce={reduce}", answered(self._ask, path, {"reduce": reduce, "side": str(side)})

    def _described(self, sides: Mapping[str, int]) -> dict[str, Any]:
        """Return what there is on the page."""
        return {
            **self._atlas,
            "captures": [{**self._capture, "layers": self._layers}],
            "reducers": [reduce for reduce in self._atlas["reducers"] if reduce in sides],
            "spans": [],
            "patterns": [],
            "methods": [],
            "excerpt": [],
            "maps": {"sides": sides, "layers": len(self._layers), "of": len(self._capture["layers"])},
        }
