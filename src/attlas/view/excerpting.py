"""Collects a part of what a desk can answer, ahead of time.

What must be there comes first: what there is, tokens, statistics, the uppermost tiles, the tracks, the selected row and
column, and the exact entries of the part that is in sight, with the tiles that one passes on the way down to it. Then
come deeper levels, tile by tile, for as long as the page stays of a usual size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.view.excerpts import Ask, Excerpt, Selection, answered, json_bytes
from attlas.view.tiles.coding import maps_bytes, maps_of, tile_of, vectors_bytes
from attlas.view.tiles.grid import TILE, Grid, Place
from attlas.view.tiles.matrices import Term, UnknownMatrix

MOST_MATRICES = 8

At = tuple[int, int]

_NEAR_WHOLE = 1e-5


class Collector:
    """Collects what a page is to hold.

    Parameters
    ----------
    ask : callable
        Answers a path and a query.
    selection : Selection
    taken : int
        How many bytes of the page are spoken for by something else.
    """

    def __init__(self, ask: Ask, selection: Selection, taken: int = 0) -> None:
        if not 1 <= len(selection.matrices) <= MOST_MATRICES:
            wanted = f"1 to {MOST_MATRICES} names"
            raise ArgumentError(complaint("matrices", wanted=wanted, got=len(selection.matrices)))
        self._ask = ask
        self._selection = selection
        self._excerpt = Excerpt(taken)
        self._atlas: dict[str, Any] = json.loads(self._asked("/api/atlas"))
        self._captures = {capture["id"]: capture for capture in self._atlas["captures"]}
        self._matrices = [_Matrix.of(name, self._captures, selection) for name in dict.fromkeys(selection.matrices)]
        self._shown = self._heads()
        self._explained: list[dict[str, Any]] = []

    @property
    def title(self) -> str:
        """The name of the document that matters most."""
        return str(self._captures[self._matrices[0].terms[0].capture]["title"])

    def collect(self) -> Excerpt:
        """Return the answers.

        Raises
        ------
        ArgumentError
            The page would be too large.
        """
        self._known()
        for matrix in self._matrices:
            self._top(matrix)
            self._lines(matrix)
            self._part(matrix)
        self._deeper()
        self._excerpt.need("/api/atlas", json_bytes(self._described()))
        return self._excerpt

    def _asked(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        return answered(self._ask, path, query)

    def _take(self, path: str) -> None:
        """Keep an answer if there is one."""
        answer = self._ask(path, {})
        if answer.status == 200:
            self._excerpt.need(path, answer.body)

    # ---- what there is -----------------------------------------------------------------------------------------------

    def _heads(self) -> dict[str, dict[int, list[int]]]:
        """Return the heads that are shown: capture -> layer -> heads, none for a mean over all of them."""
        found: dict[str, dict[int, set[int]]] = {}
        for term in (term for matrix in self._matrices for term in matrix.terms):
            heads = found.setdefault(term.capture, {}).setdefault(term.layer, set())
            heads.update([] if term.head is None else [term.head])
        return {name: {layer: sorted(layers[layer]) for layer in sorted(layers)} for name, layers in found.items()}

    def _known(self) -> None:
        """Keep what is known of the captures, and of those heads that are shown."""
        for name, layers in self._shown.items():
            self._take(f"/api/tokens/{name}")
            for kind in self._atlas["spans"]:
                self._take(_spans(name, kind))
            measured = json.loads(self._asked(f"/api/statistics/{name}"))
            self._excerpt.need(f"/api/statistics/{name}", json_bytes(self._statistics(name, layers, measured)))
            for layer, heads in layers.items():
                # Maps of a layer that nobody has measured yet would cost a pass over all of its heads.
                if heads and str(layer) in measured["layers"]:
                    self._maps(name, layer, heads)
                for head in heads:
                    self._take(f"/api/heads/{name}/{layer}/{head}")
        for number in self._selection.explanations:
            self._explanation(number)

    def _explanation(self, number: str) -> None:
        """Keep what was found, as the answer to who asks for it; one that is not done, or forgotten, is left out."""
        answer = self._ask(f"/api/explanations/{_word(number)}", {})
        found = json.loads(answer.body) if answer.status == 200 else {}
        if found.get("state") != "done" or found["capture"] not in self._shown:
            return
        asked = {name: found[name] for name in ("capture", "method", "target", "budget")}
        query = "&".join(f"{name}={_word(str(value))}" for name, value in asked.items())
        self._excerpt.need(f"/api/explanations/start?{query}", answer.body)
        self._explained.append(asked)

    def _maps(self, name: str, layer: int, heads: Sequence[int]) -> None:
        """Keep the small maps of some heads of a layer."""
        at = self._indices(name, layer, heads)
        for reduce in self._atlas["reducers"]:
            path = f"/api/maps/{name}/{layer}"
            some = maps_of(self._asked(path, {"reduce": reduce}))[at]
            self._excerpt.need(f"{path}?reduce={reduce}", maps_bytes(some), 2)

    def _indices(self, name: str, layer: int, heads: Sequence[int]) -> list[int]:
        """Return where heads stand among those of their layer."""
        every = {known["layer"]: known["heads"] for known in self._captures[name]["layers"]}
        return [every[layer].index(head) for head in heads]

    def _statistics(self, name: str, layers: Mapping[int, Sequence[int]], measured: dict[str, Any]) -> dict[str, Any]:
        """Return the statistics and roles of the heads that are shown; nobody will measure more, so that is all."""
        kept = {}
        for layer, heads in layers.items():
            known = measured["layers"].get(str(layer))
            if known is not None:
                at = self._indices(name, layer, heads)
                kept[str(layer)] = {what: [values[i] for i in at] for what, values in known.items()}
        heads = {f"{layer}.{head}" for layer, heads in layers.items() for head in heads}
        roles = {head: having for head, having in measured["roles"].items() if head in heads}
        return {**measured, "layers": kept, "done": len(layers), "of": len(layers), "roles": roles, "complete": True}

    def _described(self) -> dict[str, Any]:
        """Return what there is on the page: those parts of the atlas that are kept, and what is held of each matrix."""
        captures = []
        for name, heads in self._shown.items():
            known = [layer for layer in self._captures[name]["layers"] if layer["layer"] in heads]
            layers = [{**layer, "heads": heads[layer["layer"]]} for layer in known]
            captures.append({**self._captures[name], "layers": layers})
        kinds = [
            kind for kind in self._atlas["spans"] if self._excerpt.holds([_spans(name, kind) for name in self._shown])
        ]
        return {
            **self._atlas,
            "captures": captures,
            "spans": kinds,
            "patterns": [],
            "methods": self._atlas["methods"] if self._explained else [],
            "explained": self._explained,
            "excerpt": [self._held(matrix) for matrix in self._matrices],
        }

    def _held(self, matrix: _Matrix) -> dict[str, Any]:
        """Return the side of the cells of the deepest level that is there as a whole, and where all entries are."""
        whole = 0
        for level in range(1, matrix.grid.levels + 1):
            if not self._excerpt.holds([matrix.path(level, at) for at in matrix.visible(level)]):
                break
            whole = level
        exact = matrix.part
        if whole == matrix.grid.levels:
            exact = Place(slice(0, matrix.grid.n_query), slice(0, matrix.grid.n_key), 1)
        spans = None if exact is None else [[span.start, span.stop] for span in (exact.rows, exact.cols)]
        return {"matrix": matrix.name, "cell": matrix.grid.cell(whole), "exact": spans}

    # ---- matrices ----------------------------------------------------------------------------------------------------

    def _top(self, matrix: _Matrix) -> None:
        """Keep the uppermost tile as every reducer has it, and the tracks."""
        if matrix.grid.levels == 0:
            self._exact(matrix, (0, 0), self._excerpt.need)
        else:
            for reduce in matrix.reducers(self._atlas["reducers"]):
                path = matrix.path(0, (0, 0), reduce)
                self._excerpt.need(path, self._tile(path, "f16"), 2)
        if not matrix.signed:
            path = f"/api/tracks/{matrix.word}"
            self._excerpt.need(path, self._asked(path), 4)

    def _lines(self, matrix: _Matrix) -> None:
        """Keep the first column, which may be set aside, and what is selected."""
        row, col = self._selection.selected("row"), self._selection.selected("col")
        has_row = row is not None and row < matrix.grid.n_query
        has_col = col is not None and col < matrix.grid.n_key
        paths = [f"/api/columns/{matrix.word}/0"]
        paths += [f"/api/columns/{matrix.word}/{col}"] if has_col and col else []
        paths += [f"/api/rows/{matrix.word}/{row}"] if has_row else []
        for path in paths:
            self._excerpt.need(path, self._asked(path), 4)
        if has_row and has_col:
            self._take(f"/api/cells/{matrix.word}/{row}/{col}")

    def _part(self, matrix: _Matrix) -> None:
        """Keep the exact entries of the part in sight, and the tiles above it."""
        if matrix.part is None:
            return
        deepest = matrix.grid.levels
        for at in matrix.visible(deepest, matrix.part):
            self._exact(matrix, at, self._excerpt.need)
        for level in range(1, deepest):
            for at in matrix.visible(level, matrix.part):
                path = matrix.path(level, at)
                self._excerpt.need(path, self._tile(path, "f16"), 2)

    def _deeper(self) -> None:
        """Keep deeper and deeper levels while there is room, of each the tiles first that are nearest to the part."""
        for level in range(1, 1 + max(matrix.grid.levels for matrix in self._matrices)):
            for matrix in self._matrices:
                for at in matrix.nearest(level):
                    path = matrix.path(level, at)
                    if path in self._excerpt.answers:
                        continue
                    if level == matrix.grid.levels:
                        found = self._exact(matrix, at, self._excerpt.keep)
                    else:
                        found = self._excerpt.keep(path, self._tile(path, "f16"), 2)
                    if not found:
                        return

    def _tile(self, path: str, kind: str) -> bytes:
        place, reduce = path.split("?reduce=")
        return self._asked(place, {"reduce": reduce, "as": kind})

    def _exact(self, matrix: _Matrix, at: At, keep: Callable[[str, bytes, int], bool | None]) -> bool | None:
        """Keep the entries of a tile, and what they are multiplied by for their lift; return what the last `keep` did.

        All reducers show the same at the deepest level, so it is kept once, as that of ``max``.
        """
        deepest = matrix.grid.levels
        path = matrix.path(deepest, at)
        entries = self._tile(path, "f32")
        if not matrix.signed:
            lift = matrix.path(deepest, at, "lift")
            keep(lift, vectors_bytes([_factors(tile_of(entries), tile_of(self._tile(lift, "f32")))]), 4)
        return keep(path, entries, 4)


@dataclass(frozen=True)
class _Matrix:
    """A matrix that is shown.

    Parameters
    ----------
    name : str
    terms : sequence of Term
    layer : dict
        What there is to know of its layer.
    reduce : str
        What its cells show.
    part : Place, optional
        Whose exact entries are wanted: whole tiles.
    """

    name: str
    terms: Sequence[Term]
    layer: Mapping[str, Any]
    reduce: str
    part: Place | None

    @staticmethod
    def of(name: str, captures: Mapping[str, Any], selection: Selection) -> _Matrix:
        terms = [Term.parsed(part) for part in name.split("~", 2)]
        layers = [_layer(captures, term) for term in terms]
        signed = len(terms) > 1
        reduce = "max" if signed and selection.reduce == "lift" else selection.reduce
        plain = _Matrix(name, terms, layers[0], reduce, None)
        return _Matrix(name, terms, layers[0], reduce, plain._around(selection))

    @property
    def word(self) -> str:
        """The name as it stands in a path, encoded as a browser does it."""
        return _word(self.name)

    @property
    def signed(self) -> bool:
        """Whether it is a difference."""
        return len(self.terms) > 1

    @property
    def grid(self) -> Grid:
        """Its tiles."""
        return Grid(self.layer["queries"], self.layer["keys"])

    def reducers(self, known: Sequence[str]) -> list[str]:
        """Return those reducers that it has."""
        return [reduce for reduce in known if not (self.signed and reduce == "lift")]

    def path(self, level: int, at: At, reduce: str | None = None) -> str:
        """Return the path of a tile; of the deepest level there is one kind, its entries."""
        reduce = reduce or ("max" if level == self.grid.levels else self.reduce)
        return f"/api/tiles/{self.word}/{level}/{at[0]}/{at[1]}?reduce={reduce}"

    def visible(self, level: int, part: Place | None = None) -> Iterator[At]:
        """Yield the tiles of a level, or those that show a part, in which some query may see some key."""
        down, across = self.grid.tiles(level)
        for row in range(down):
            for col in range(across):
                place = self.grid.place(level, row, col)
                if (part is None or _meet(place, part)) and self._seen(place):
                    yield row, col

    def nearest(self, level: int) -> list[At]:
        """Return the tiles of a level in which something may be seen, the nearest to the part first."""
        if level > self.grid.levels:
            return []
        if self.part is None:
            return list(self.visible(level))
        middle = [(span.start + span.stop) / 2 for span in (self.part.rows, self.part.cols)]

        def far(at: At) -> float:
            place = self.grid.place(level, *at)
            spans = (place.rows, place.cols)
            return max(abs((s.start + s.stop) / 2 - m) for s, m in zip(spans, middle, strict=True))

        return sorted(self.visible(level), key=far)

    def _seen(self, place: Place) -> bool:
        """Tell whether some query of a place may see some key of it, as far as positions say so."""
        shift = self.grid.n_key - self.grid.n_query
        reach = self.layer["window"] or self.grid.n_key + self.grid.n_query
        first = place.rows.start + shift - reach + 1
        last = place.rows.stop - 1 + shift + (0 if self.layer["causal"] else reach - 1)
        return place.cols.start <= last and place.cols.stop > first

    def _around(self, selection: Selection) -> Place | None:
        """Return whole tiles around the part that is wanted; around the selected entry if no part is named."""
        spans = []
        for name, wanted, length in (
            ("row", selection.rows, self.grid.n_query),
            ("col", selection.cols, self.grid.n_key),
        ):
            index = selection.selected(name)
            if wanted is None and index is not None:
                wanted = (index, index + 1)
            if wanted is None or wanted[0] >= min(length, wanted[1]):
                return None
            spans.append(slice(wanted[0] // TILE * TILE, min(-(-wanted[1] // TILE) * TILE, length)))
        return Place(spans[0], spans[1], 1)


def _layer(captures: Mapping[str, Any], term: Term) -> Mapping[str, Any]:
    capture = captures.get(term.capture)
    layers = [layer for layer in (capture["layers"] if capture else ()) if layer["layer"] == term.layer]
    if not layers or (term.head is not None and term.head not in layers[0]["heads"]):
        raise UnknownMatrix(complaint("matrices", wanted="names of matrices that are here", got="another"))
    return layers[0]


def _factors(entries: Tensor, lift: Tensor) -> Tensor:
    """Return what a row's entries were multiplied by: the number of keys that it sees, on average over heads.

    NaN for a row that sees none; 0 for one whose entries are all 0 here.
    """
    at = entries.argmax(1, keepdim=True)
    largest, lifted = entries.gather(1, at).double(), lift.gather(1, at).double()
    factors = torch.where(largest > 0, lifted / largest.clamp(min=1e-300), lifted).squeeze(1)
    whole = factors.round()
    return torch.where((factors - whole).abs() <= _NEAR_WHOLE * whole, whole, factors)


def _meet(one: Place, other: Place) -> bool:
    pairs = ((one.rows, other.rows), (one.cols, other.cols))
    return all(a.start < b.stop and b.start < a.stop for a, b in pairs)


def _spans(name: str, kind: str) -> str:
    return f"/api/spans/{name}/{_word(kind)}"


def _word(text: str) -> str:
    """Return a word of a path as `encodeURIComponent` writes it."""
    return quote(text, safe="!~*'()", errors="replace")
