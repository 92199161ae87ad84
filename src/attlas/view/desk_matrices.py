"""The numbers of matrices: tiles, small maps, rows, columns, single entries, the largest of a part, and tracks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from attlas.errors import ArgumentError
from attlas.matrix import AttentionMatrix, Distance, Entropy, Received
from attlas.matrix.questions import Question
from attlas.matrix.scores import LOG2E, Scores
from attlas.view.desk import BYTES, Answer, NoSuchPath, Request, Route, Service, span_in, whole
from attlas.view.tiles.coding import KINDS, maps_bytes, tile_bytes, vectors_bytes
from attlas.view.tiles.kept import Kept
from attlas.view.tiles.maps import SIDES, Maps
from attlas.view.tiles.matrices import Matrices, Shown
from attlas.view.tiles.peaks import peak
from attlas.view.tiles.preparing import prepare
from attlas.view.tiles.pyramid import REDUCERS, Pyramid, ask_while_wanted

LARGEST_PART = 4096**2
TRACKS_BYTES = 64 * 2**20


class MatrixAnswers:
    """Answers what is asked about the entries of a matrix.

    Parameters
    ----------
    matrices : Matrices
        Gives them by name.
    """

    def __init__(self, matrices: Matrices) -> None:
        self.matrices = matrices
        self.pyramid = Pyramid()
        self.maps = Maps(matrices, self.pyramid)
        self.tracks = Kept(TRACKS_BYTES)

    def routes(self) -> dict[str, Route]:
        """Return who answers which paths."""
        return {
            "tiles": self._tile,
            "maps": self._maps,
            "rows": partial(self._line, 2),
            "columns": partial(self._line, 3),
            "cells": self._cell,
            "peaks": self._peak,
            "tracks": self._tracks,
        }

    def service(self) -> Service:
        """Return the service of all of them."""
        return Service(self.routes(), close=self.close)

    def close(self) -> None:
        """Let go of everything."""
        self.pyramid.clear()
        self.maps.clear()
        self.tracks.clear()
        self.matrices.close()

    def _tile(self, request: Request) -> Answer:
        name, *numbers = request.expect("matrix", "level", "row", "col")
        level, row, col = (whole(what, text) for what, text in zip(("level", "row", "col"), numbers, strict=True))
        reduce, kind = request.chosen("reduce", REDUCERS), request.chosen("as", list(KINDS))
        matrix = self.matrices.named(name)
        if level == matrix.grid.levels:
            kind = "f32"  # single entries are exact
        tile = self.pyramid.tile(matrix, level, row, col, reduce, request.check)
        return Answer(200, BYTES, tile_bytes(tile, kind))

    def _maps(self, request: Request) -> Answer:
        capture, number = request.expect("capture", "layer")
        reduce, side = request.chosen("reduce", REDUCERS), int(request.chosen("side", [str(side) for side in SIDES]))
        maps = self.maps.of_layer(capture, whole("layer", number), reduce, request.check, side=side)
        request.check()
        return Answer(200, BYTES, maps_bytes(maps))

    def _line(self, axis: int, request: Request) -> Answer:
        name, text = request.expect("matrix", "row" if axis == 2 else "col")
        matrix = self.matrices.named(name)
        index = _position(matrix, axis, whole("row" if axis == 2 else "col", text))
        request.check()
        prepare(matrix.operator, request.check)
        line = matrix.operator[0, 0, index, :] if axis == 2 else matrix.operator[0, 0, :, index]
        return Answer(200, BYTES, vectors_bytes([line]))

    def _cell(self, request: Request) -> Answer:
        name, *numbers = request.expect("matrix", "row", "col")
        matrix = self.matrices.named(name)
        row, col = (
            _position(matrix, axis, whole("row or col", text)) for axis, text in zip((2, 3), numbers, strict=True)
        )
        request.check()
        # Asked for alone, as `A[b, h, i, j]` asks: in a tile, rounding may differ in the last digit.
        value = float(matrix.operator[0, 0, row, col])
        whole_row = matrix.operator[0, 0, row, :]
        visible = _visible(self.matrices, matrix, row, col)
        return Answer.of(
            {
                "value": value,
                "exact": repr(value),
                "score": _score(matrix.exact, row, col) if visible and matrix.exact is not None else None,
                "rank": 1 + int((whole_row > whole_row[col]).sum()) if visible else None,
                "visible": visible,
                "lift": None if matrix.spread is None else value * float(matrix.spread.counts[row]),
                "row_sum": float(whole_row.double().sum()),
            }
        )

    def _peak(self, request: Request) -> Answer:
        (name,) = request.expect("matrix")
        matrix = self.matrices.named(name)
        lengths = matrix.operator.shape[2:]
        rows, cols = (_span(request, what, length) for what, length in zip(("rows", "cols"), lengths, strict=True))
        if (rows.stop - rows.start) * (cols.stop - cols.start) > LARGEST_PART:
            raise ArgumentError(f"rows and cols: wanted at most {LARGEST_PART:,} entries, got more")
        row, col, value = peak(matrix.operator, rows, cols, request.check)
        return Answer.of({"row": row, "col": col, "value": value})

    def _tracks(self, request: Request) -> Answer:
        (name,) = request.expect("matrix")
        self.matrices.named(name)  # a name that is none is refused before its parts are
        first, *second = [self._tracks_of(term, request) for term in self.matrices.terms(name)]
        found = [a - b for a, b in zip(first, second[0], strict=True)] if second else first
        return Answer(200, BYTES, vectors_bytes(found))

    def _tracks_of(self, term: str, request: Request) -> tuple[Tensor, ...]:
        operator = self.matrices.named(term).operator
        questions: list[Question] = [Received()]
        if not operator.signed:
            questions += [Entropy(), Distance()]

        def measured() -> tuple[Tensor, ...]:
            found = [answer[0, 0].cpu().float() for answer in ask_while_wanted(operator, questions, request.check)]
            # Rows that may hold negative entries have no shares, hence no entropy.
            missing = [torch.full((operator.shape[2],), float("nan"))] * (3 - len(found))
            return tuple(found + missing)

        return self.tracks.get(term, measured, request.check)


def _position(matrix: Shown, axis: int, index: int) -> int:
    length = matrix.operator.shape[axis]
    if index >= length:
        raise NoSuchPath(f"{'row' if axis == 2 else 'col'}: wanted 0 to {length - 1}, got {index}")
    return index


def _span(request: Request, name: str, length: int) -> slice:
    """Return rows or columns from the query, from and up to; all of them if none were named."""
    text = request.query.get(name, f"0-{length}")
    start, stop = span_in(text)
    if not 0 <= start < stop <= length:
        raise ArgumentError(f"{name}: wanted a span such as 0-{length}, from and up to, got {text[:40]!a}")
    return slice(start, stop)


def _visible(matrices: Matrices, matrix: Shown, row: int, col: int) -> bool:
    """Tell whether a query may see a key; in a difference, in either of the two."""
    spreads = [matrices.named(term).spread for term in matrices.terms(matrix.name)]
    return any(spread is not None and spread.sees(row, col) for spread in spreads)


def _score(exact: AttentionMatrix, row: int, col: int) -> float:
    """Return what the softmax is applied to: the scaled score, with soft cap and bias, in natural units."""
    with torch.no_grad():
        return float(Scores(exact, torch.float64).tile(slice(row, row + 1), slice(col, col + 1))) / LOG2E
