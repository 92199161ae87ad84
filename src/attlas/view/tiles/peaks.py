"""The largest entry of a part of a matrix, and where it is."""

from __future__ import annotations

from attlas.matrix import AttentionOperator
from attlas.matrix.streaming import TILE
from attlas.matrix.threads import each
from attlas.view.tiles.kept import Check
from attlas.view.tiles.preparing import prepare


def peak(operator: AttentionOperator, rows: slice, cols: slice, check: Check) -> tuple[int, int, float]:
    """Return the row, the column and the value of the entry of largest size in a part of a matrix.

    Parameters
    ----------
    operator : AttentionOperator, (1, 1, n_query, n_key)
    rows, cols : slice
        The part, from and up to.
    check : callable
        Called now and then; what it raises ends the search.
    """
    prepare(operator, check)
    operator.prepare()
    strips = [slice(first, min(first + TILE, rows.stop)) for first in range(rows.start, rows.stop, TILE)]

    def largest(strip: slice) -> tuple[float, int, int, float]:
        check()
        best = (0.0, strip.start, cols.start, 0.0)
        reader = operator.reader()
        for first in range(cols.start, cols.stop, TILE):
            across = slice(first, min(first + TILE, cols.stop))
            if not operator.occupied(strip, across):
                continue
            values = reader.tile(strip, across).values[0, 0]
            at = int(values.abs().argmax())
            row, col = divmod(at, values.shape[1])
            value = float(values[row, col])
            if abs(value) > best[0]:
                best = (abs(value), strip.start + row, first + col, value)
        return best

    found = each(largest, strips, operator.device)
    # The first of several that are equally large.
    _, row, col, value = max(found, key=lambda one: one[0])
    return row, col, value
