"""Rows times a matrix, of more than one tile, against dense products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from attlas.explain.passing import FEW_ROWS, LimitedTopK, Passed, PassedUpTo, passed, row_sums
from attlas.matrix import AttentionMatrix, AttentionOperator, HeadMean, Reader, Tile, ask
from attlas.matrix.derived import Derived
from attlas.matrix.visibility import Indices
from attlas.testing import no_dense

N = 1100
"""Three tiles wide, the last one cut off."""


@pytest.fixture(scope="module")
def matrix() -> AttentionMatrix:
    random = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, heads, N, 4, generator=random, dtype=torch.float64) for heads in (2, 1))
    return AttentionMatrix(query, key, causal=True)


@pytest.fixture(scope="module")
def dense(matrix: AttentionMatrix) -> Tensor:
    return matrix.to_dense()[0]


WEIGHTS = {
    "one row": [700],
    "few rows": [3, 5, 600, 1099],
    "as many as few are": list(range(40, 40 + FEW_ROWS)),
    "more than few": list(range(700, 700 + FEW_ROWS + 1)),
    "a strip and a bit": list(range(500, 1030)),
    "all": list(range(N)),
    "none": [],
}


def weights_of(rows: list[int], *shape: int) -> Tensor:
    weights = torch.zeros(*shape, N, dtype=torch.float64)
    weights[..., rows] = torch.randn(*shape, len(rows), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return weights


@pytest.mark.parametrize("rows", WEIGHTS)
def test_weights_of_all_heads_and_of_each(matrix: AttentionMatrix, dense: Tensor, rows: str) -> None:
    for shape in ((3,), (3, 1), (3, 2)):
        weights = weights_of(WEIGHTS[rows], *shape)
        each = (weights[:, None] if len(shape) == 1 else weights).expand(3, 2, N)
        with no_dense(N * N):
            answer = passed(matrix, weights)
        assert_close(answer, torch.einsum("thr,hrk->thk", each, dense))
        assert answer.dtype == torch.float64


@pytest.mark.parametrize("rows", WEIGHTS)
def test_sums_of_some_rows(matrix: AttentionMatrix, dense: Tensor, rows: str) -> None:
    wanted = torch.zeros(N, dtype=torch.bool)
    wanted[WEIGHTS[rows]] = True
    assert_close(row_sums(matrix, wanted), dense.sum(-1).where(wanted, 0.0))


def test_the_least_of_an_entry_and_a_level(matrix: AttentionMatrix, dense: Tensor) -> None:
    levels = torch.rand(3, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 100
    levels[1, 600:] = 0
    (answer,) = ask(HeadMean(matrix), PassedUpTo(levels))
    assert_close(answer, torch.minimum(dense.mean(0), levels[:, :, None]).sum(1))


def test_the_largest_entries_of_some_rows(matrix: AttentionMatrix, dense: Tensor) -> None:
    wanted = torch.zeros(N, dtype=torch.bool)
    wanted[520:530] = True
    values, indices = ask(HeadMean(matrix), LimitedTopK(3, wanted))[0]
    assert_close(values[0, 0, wanted], dense.mean(0)[wanted].topk(3).values)
    assert_close(dense.mean(0)[wanted].gather(1, indices[0, 0, wanted]), values[0, 0, wanted])


class _Counting(Derived):
    """Counts the tiles that are read of another matrix."""

    def __init__(self, of: AttentionOperator, tiles: list[tuple[Indices, Indices]]) -> None:
        super().__init__(of)
        self.tiles = tiles

    def narrow(self, batch: Indices, head: Indices) -> AttentionOperator:
        return _Counting(self.of.narrow(batch, head), self.tiles)

    def reader(self) -> Reader:
        return _CountingReader(self.of.reader(), self.tiles)


class _CountingReader(Reader):
    def __init__(self, of: Reader, tiles: list[tuple[Indices, Indices]]) -> None:
        self.of, self.tiles = of, tiles

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        self.tiles.append((rows, cols))
        return self.of.tile(rows, cols, logs=logs)


def test_rows_without_weight_cost_nothing(matrix: AttentionMatrix) -> None:
    tiles: list[tuple[Indices, Indices]] = []
    counting = _Counting(matrix, tiles)
    passed(counting, weights_of(WEIGHTS["none"], 1))
    assert tiles == []
    # One row is one row, and no further than it sees.
    passed(counting, weights_of([300], 1))
    ((rows, cols),) = tiles
    assert isinstance(rows, torch.Tensor)
    assert rows.tolist() == [300]
    assert cols == slice(0, 301)
    # A target in the first strip leaves the others alone: one tile for each of two heads, whatever the targets.
    tiles.clear()
    passed(counting, weights_of(list(range(400)), 5))
    assert tiles == [(slice(0, 512), slice(0, 512))] * 2
    whole: list[tuple[Indices, Indices]] = []
    ask(_Counting(matrix, whole), Passed(torch.ones(1, 1, N)))
    assert len(whole) == 2 * (1 + 2 + 3)
