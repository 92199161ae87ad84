"""Cells of one width, whole or in part, and the even spread's, equal what dense entries say, on odd sizes and rules."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from attlas.errors import ArgumentError
from attlas.matrix import AttentionMatrix, AttentionOperator, Difference, HeadMean, PoolCells, ask, streaming
from attlas.matrix.even import even_cells, even_spread, seen_keys

TILE = 16
AROUND_TILES = st.sampled_from([1, 2, TILE - 1, TILE, TILE + 1, 2 * TILE + 1, 50, 3 * TILE])
RELAXED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "TILE", TILE)


@st.composite
def matrices(draw: st.DrawFn) -> AttentionMatrix:
    n_query, n_key = draw(AROUND_TILES), draw(AROUND_TILES)
    heads = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    mask = None
    if draw(st.integers(0, 3)) == 0:
        mask = torch.rand(1, draw(st.sampled_from([1, heads])), n_query, n_key, generator=generator) > 0.4
    return AttentionMatrix(
        torch.randn(1, heads, n_query, 4, generator=generator) * 3,
        torch.randn(1, 1, n_key, 4, generator=generator),
        causal=draw(st.booleans()),
        window=draw(st.sampled_from([None, 1, 5, 40])),
        mask=mask,
    )


def dense_cells(dense: Tensor, width: int, reduce: str) -> Tensor:
    """Reduce each cell of dense entries, one by one."""
    n_query, n_key = dense.shape[2:]
    rows = []
    for i in range(0, n_query, width):
        row = []
        for j in range(0, n_key, width):
            cell = dense[:, :, i : i + width, j : j + width].flatten(2)
            row.append({"max": cell.amax, "min": cell.amin, "sum": cell.sum, "mean": cell.mean}[reduce](2))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, 2)


def kinds(matrix: AttentionMatrix) -> list[AttentionOperator]:
    other = AttentionMatrix(matrix.query * 0.5, matrix.key, causal=not matrix.visibility.causal)
    return [matrix, HeadMean(matrix), Difference(matrix, other), Difference(other, matrix)]


@RELAXED
@given(matrices(), st.sampled_from([1, 2, 4, 8, 16, 32, 64, 5]), st.data())
def test_cells_of_every_kind_and_reducer(matrix: AttentionMatrix, width: int, data: st.DataObject) -> None:
    operator = data.draw(st.sampled_from(kinds(matrix)))
    dense = operator.to_dense().double()
    for reduce in ("max", "sum", "mean", "extreme"):
        (found,) = ask(operator, PoolCells(width, reduce))
        if reduce == "extreme":
            high, low = dense_cells(dense, width, "max"), dense_cells(dense, width, "min")
            torch.testing.assert_close(found.double().abs(), torch.maximum(high, -low), rtol=1e-5, atol=1e-6)
            # Which of two that are equally large but for rounding it is does not matter.
            clear = (high + low).abs() > 1e-6
            assert torch.equal((found > 0)[clear], (high + low > 0)[clear])
            continue
        # Each row of a cell adds entries of at most 1 in all, twice for a difference, rounded wherever they stand.
        rounding = 4 * torch.finfo(torch.float32).eps * (width if reduce == "sum" else 1)
        expected = dense_cells(dense, width, reduce)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=max(rounding, 1e-6))


@RELAXED
@given(matrices(), st.sampled_from([1, 2, 4, 8, 16]), st.data())
def test_a_part_is_what_the_whole_says(matrix: AttentionMatrix, width: int, data: st.DataObject) -> None:
    operator = data.draw(st.sampled_from(kinds(matrix)))
    spans, bins = [], []
    for length in operator.shape[2:]:
        count = -(-length // width)
        first = data.draw(st.integers(0, count - 1))
        last = data.draw(st.integers(first + 1, count))
        spans.append(slice(first * width, min(last * width, length)))
        bins.append(slice(first, last))
    for reduce in ("max", "sum", "extreme"):
        within = PoolCells(width, reduce, rows=spans[0], cols=spans[1])
        whole, part = ask(operator, PoolCells(width, reduce), within)
        rounding = 4 * torch.finfo(torch.float32).eps * (width if reduce == "sum" else 1)
        torch.testing.assert_close(part, whole[:, :, bins[0], bins[1]], rtol=1e-5, atol=max(rounding, 1e-6))
        # Alone it computes narrower tiles, whose entries round otherwise.
        (alone,) = ask(operator, within)
        torch.testing.assert_close(alone.abs(), part.abs(), rtol=1e-5, atol=max(2 * rounding, 2e-6))


@RELAXED
@given(matrices(), st.sampled_from([1, 2, 8, 64]))
def test_the_even_spread_counts_as_its_entries_do(matrix: AttentionMatrix, width: int) -> None:
    even = even_spread(matrix)
    dense = even.to_dense()
    assert torch.equal(seen_keys(even), (dense > 0).sum(-1).to(dense.dtype))
    n_query, n_key = even.shape[2:]
    found = even_cells(even, width, slice(0, n_query), slice(0, n_key))
    torch.testing.assert_close(found, dense_cells(dense, width, "sum"))


@RELAXED
@given(matrices())
def test_a_difference_is_one_minus_the_other(matrix: AttentionMatrix) -> None:
    other = AttentionMatrix(matrix.query.double() * 0.5, matrix.key.double())
    for a, b in ((matrix, other), (other, matrix)):
        found = Difference(a, b)
        assert found.signed
        assert found.dtype == torch.float64
        torch.testing.assert_close(found.to_dense(), a.to_dense().double() - b.to_dense().double())
        torch.testing.assert_close(found.received(), found.to_dense().sum(2))


@pytest.mark.parametrize(
    "span", [slice(1, 8), slice(0, 3), slice(4, 4), slice(-4, 4), slice(0, 40), slice(0, 8, 2), slice(8, 4)]
)
def test_a_part_that_is_not_of_whole_cells_is_refused(span: slice) -> None:
    matrix = AttentionMatrix(torch.randn(1, 1, 19, 4), torch.randn(1, 1, 19, 4))
    with pytest.raises(ArgumentError, match="rows: wanted a span of cells of 4 within 0 to 19"):
        ask(matrix, PoolCells(4, rows=span))


@pytest.mark.parametrize("width", [0, -1, 1.5, True])
def test_a_width_that_is_none_is_refused(width: int) -> None:
    with pytest.raises(ArgumentError, match="width: wanted a whole number"):
        PoolCells(width)
