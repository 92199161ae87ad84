from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attlas.errors import ArgumentError
from attlas.view.tiles.grid import TILE, Grid

LENGTHS = st.one_of(st.integers(1, 2000), st.sampled_from([256, 257, 512, 513, 7510, 8192, 8193, 32768, 131072]))


@pytest.mark.parametrize(
    ("n_query", "n_key", "levels"),
    [(1, 1, 0), (256, 256, 0), (257, 3, 1), (3, 512, 1), (513, 513, 2), (7510, 7510, 5), (32768, 32768, 7)],
)
def test_the_deepest_level_is_the_first_that_shows_entries(n_query: int, n_key: int, levels: int) -> None:
    grid = Grid(n_query, n_key)
    assert grid.levels == levels
    assert grid.cell(levels) == 1
    assert grid.tiles(0) == (1, 1)


@given(LENGTHS, LENGTHS, st.data())
def test_tiles_of_a_level_cover_every_entry_once(n_query: int, n_key: int, data: st.DataObject) -> None:
    grid = Grid(n_query, n_key)
    level = data.draw(st.integers(0, grid.levels))
    down, across = grid.tiles(level)
    for length, spans in (
        (n_query, [grid.place(level, row, 0).rows for row in range(down)]),
        (n_key, [grid.place(level, 0, col).cols for col in range(across)]),
    ):
        assert spans[0].start == 0
        assert spans[-1].stop == length
        assert all(a.stop == b.start for a, b in pairwise(spans))
    place = grid.place(level, down - 1, across - 1)
    assert all(1 <= size <= TILE for size in place.shape)
    assert place.cell == 2 ** (grid.levels - level)


@pytest.mark.parametrize(("level", "row", "col"), [(-1, 0, 0), (3, 0, 0), (0, 1, 0), (0, 0, 1), (2, 3, 0), (2, -1, 0)])
def test_what_lies_outside_is_refused(level: int, row: int, col: int) -> None:
    with pytest.raises(ArgumentError, match="wanted 0 to"):
        Grid(700, 600).place(level, row, col)
