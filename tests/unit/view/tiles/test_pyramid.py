from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attlas.errors import ArgumentError
from attlas.matrix import AttentionMatrix, ask
from attlas.matrix.even import even_spread
from attlas.testing.guards import no_dense
from attlas.view.tiles import pyramid as pyramids
from attlas.view.tiles.grid import TILE
from attlas.view.tiles.matrices import Matrices, Shown
from attlas.view.tiles.pyramid import REDUCERS, Pyramid
from reducing import PROBLEMS, by_hand, nothing, random
from serving import capture_of
from viewing import captured


def whole_level(pyramid: Pyramid, matrix: Shown, level: int, reduce: str) -> Tensor:
    """Put the tiles of a level side by side."""
    down, across = matrix.grid.tiles(level)
    return torch.cat(
        [
            torch.cat([pyramid.tile(matrix, level, row, col, reduce, nothing) for col in range(across)], 1)
            for row in range(down)
        ]
    )


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
@pytest.mark.parametrize("what", PROBLEMS)
def test_every_level_is_what_the_entries_say(what: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if kept:
        # As if the matrix were so large that its upper levels come from one pass.
        monkeypatch.setattr(pyramids, "DEEP", TILE**2)
    exact = PROBLEMS[what]
    matrix, pyramid = Matrices({"a": capture_of(exact)}).named("a.0.1"), Pyramid()
    dense = exact.to_dense()[0, 1].double()
    spread = even_spread(exact).to_dense()[0].double()
    even = spread[min(1, len(spread) - 1)]
    for level in range(matrix.grid.levels + 1):
        for reduce in REDUCERS:
            expected = by_hand(dense, even, matrix.grid.cell(level), reduce)
            found = whole_level(pyramid, matrix, level, reduce)
            told = f"{level} {reduce}"
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6, equal_nan=True, msg=told)


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
def test_every_level_of_a_difference_keeps_the_sign(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if kept:
        monkeypatch.setattr(pyramids, "DEEP", TILE**2)
    exact = random(600, 600, causal=True)
    matrix, pyramid = Matrices({"a": capture_of(exact)}).named("a.0.1~a.0.0"), Pyramid()
    dense = (exact.to_dense()[0, 1] - exact.to_dense()[0, 0]).double()
    for level in range(matrix.grid.levels + 1):
        cell = matrix.grid.cell(level)
        high, low = by_hand(dense, dense, cell, "max"), -by_hand(-dense, dense, cell, "max")
        expected = torch.where(high.abs() >= low.abs(), high, low)
        torch.testing.assert_close(whole_level(pyramid, matrix, level, "max").double(), expected, rtol=1e-4, atol=1e-6)
        for reduce in ("mean", "mass"):
            expected = by_hand(dense, dense, cell, reduce)
            found = whole_level(pyramid, matrix, level, reduce).double()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="reduce: wanted max or mean or mass, got 'lift'"):
        pyramid.tile(matrix, 0, 0, 0, "lift", nothing)


def test_the_mean_over_heads_has_all_levels() -> None:
    exact = random(600, 600, causal=True)
    matrix, pyramid = Matrices({"a": capture_of(exact)}).named("a.0.mean"), Pyramid()
    dense = exact.to_dense()[0].mean(0).double()
    even = even_spread(exact).to_dense()[0, 0].double()
    for level in range(matrix.grid.levels + 1):
        for reduce in REDUCERS:
            expected = by_hand(dense, even, matrix.grid.cell(level), reduce)
            found = whole_level(pyramid, matrix, level, reduce).double()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_the_deepest_level_is_exact_to_the_last_bit() -> None:
    cap = captured(600, layers=1)
    matrix, pyramid = Matrices({"a": cap}).named("a.0.2"), Pyramid()
    for row, col in ((0, 0), (1, 0), (2, 1), (2, 2)):
        place = matrix.grid.place(matrix.grid.levels, row, col)
        for reduce in ("max", "mean", "mass"):
            tile = pyramid.tile(matrix, matrix.grid.levels, row, col, reduce, nothing)
            assert torch.equal(tile, cap[0][0, 2, place.rows, place.cols])
        lift = pyramid.tile(matrix, matrix.grid.levels, row, col, "lift", nothing)
        expected = cap[0][0, 2, place.rows, place.cols] * torch.arange(1.0, 601)[place.rows].unsqueeze(-1)
        seen = torch.ones(600, 600, dtype=torch.bool).tril()[place.rows, place.cols]
        assert torch.equal(lift.isnan(), ~seen)
        assert torch.equal(lift[seen], expected[seen])


def test_a_needle_is_seen_from_above_by_its_maximum_alone() -> None:
    n, row, col = 2000, 1777, 404
    query, key = torch.zeros(1, 1, n, 8), torch.zeros(1, 1, n, 8)
    query[0, 0, row, 0], key[0, 0, col, 0] = 60.0, 60.0
    matrix, pyramid = Matrices({"a": capture_of(AttentionMatrix(query, key, causal=True))}).named("a.0.0"), Pyramid()
    cell = matrix.grid.cell(0)
    top = pyramid.tile(matrix, 0, 0, 0, "max", nothing)
    assert top[row // cell, col // cell] > 0.999
    assert (top[100:] > 0.5).sum() == 1
    mean = pyramid.tile(matrix, 0, 0, 0, "mean", nothing)
    assert mean[row // cell, col // cell] < 0.02


def test_nothing_is_as_large_as_the_matrix() -> None:
    n = 1600
    cap = capture_of(random(n, n, heads=3, causal=True))
    matrices, pyramid = Matrices({"a": cap}), Pyramid()
    with no_dense(n * n):
        for name in ("a.0.1", "a.0.mean", "a.0.0~a.0.2", "a.0.0:sliding_window:width=64"):
            matrix = matrices.named(name)
            for reduce in REDUCERS[: 4 - (matrix.spread is None)]:
                for level in range(matrix.grid.levels + 1):
                    pyramid.tile(matrix, level, 0, 0, reduce, nothing)


def test_levels_above_come_from_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramids, "DEEP", (2 * TILE) ** 2)
    passes = []
    monkeypatch.setattr(pyramids, "ask", lambda *given, **options: passes.append(1) or ask(*given, **options))
    matrix, pyramid = Matrices({"a": capture_of(random(2100, 2100, causal=True))}).named("a.0.0"), Pyramid()
    assert matrix.grid.levels == 4
    for level in (0, 1, 2):
        for reduce in REDUCERS:
            whole_level(pyramid, matrix, level, reduce)
    assert len(passes) == 1
    pyramid.tile(matrix, 3, 1, 0, "max", nothing)
    assert len(passes) == 2


def test_what_was_kept_beforehand_is_used() -> None:
    matrix, pyramid = Matrices({"a": capture_of(random(600, 600, causal=True))}).named("a.0.0"), Pyramid()
    peak, mass = torch.full((150, 150), 7.0), torch.full((150, 150), 32.0)
    pyramid.keep("a.0.0", peak, mass)
    assert torch.equal(pyramid.tile(matrix, 0, 0, 0, "max", nothing), peak)
    assert torch.equal(pyramid.tile(matrix, 0, 0, 0, "mean", nothing), mass / 16)
    assert pyramid.nbytes == 2 * 150 * 150 * 4
    pyramid.clear()
    assert pyramid.nbytes == 0


@pytest.mark.parametrize("room", [True, False])
def test_what_measuring_has_found_needs_no_other_pass(monkeypatch: pytest.MonkeyPatch, room: bool) -> None:
    monkeypatch.setattr(pyramids, "DEEP", (2 * TILE) ** 2)
    matrix = Matrices({"a": capture_of(random(2100, 2100, causal=True))}).named("a.0.0")
    wanted = {
        (level, reduce): whole_level(Pyramid(), matrix, level, reduce) for level in (0, 1, 2) for reduce in REDUCERS
    }
    cell = pyramids.kept_cell((2100, 2100))
    assert cell == matrix.grid.cell(2)
    peak, mass = (found[0, 0] for found in ask(matrix.operator, *pyramids.cells_of(cell)))
    pyramid, passes = Pyramid(), []
    if not room:
        monkeypatch.setattr(pyramid._aside, "_most", 0)
    monkeypatch.setattr(pyramids, "ask", lambda *given, **options: passes.append(1) or ask(*given, **options))
    pyramid.keep("a.0.0", peak, mass)
    for (level, reduce), whole in wanted.items():
        torch.testing.assert_close(whole_level(pyramid, matrix, level, reduce), whole, equal_nan=True)
    assert len(passes) == (0 if room else 1)
    pyramid.clear()


def test_a_tile_that_nobody_waits_for_is_not_made() -> None:
    class Left(Exception):  # noqa: N818 - no error here
        pass

    def left() -> None:
        raise Left

    matrix = Matrices({"a": capture_of(random(600, 600, causal=True))}).named("a.0.0")
    with pytest.raises(Left):
        Pyramid().tile(matrix, 0, 0, 0, "max", left)
