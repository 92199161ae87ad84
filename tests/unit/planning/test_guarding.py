from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attlas.errors import ArgumentError
from attlas.matrix import AttentionMatrix
from attlas.matrix.reference import dense_attention
from attlas.patterns import Linear, Pattern, SlidingWindow
from attlas.planning.guarding import exceeds, variations
from attlas.testing.guards import no_dense

N, DIM = 70, 8


def heads(n_query: int = N, seed: int = 0, sharp: float = 2.0, **rules: Any) -> AttentionMatrix:
    random = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 4, n_query, DIM, generator=random) * sharp
    key = torch.randn(2, 2, N, DIM, generator=random)
    return AttentionMatrix(query, key, causal=True, **rules)


def dense(matrix: AttentionMatrix) -> Tensor:
    seen = matrix.visibility
    return dense_attention(
        matrix.query, matrix.key, matrix.scale, seen.causal, seen.window, seen.mask, matrix.bias, matrix.softcap,
        matrix.sinks,
    )  # fmt: skip


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Total variation distance of rows; what a learned sink has is what is missing to one, in rows that see a key."""
    one, other = one.double(), other.double()
    sink = (one.sum(-1) - other.sum(-1)).abs()
    return ((one - other).abs().sum(-1) + sink) / 2


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])},
        {"softcap": 3.0},
        {"mask": torch.arange(N).view(1, 1, 1, N) >= torch.tensor([0, 60]).view(2, 1, 1, 1)},
    ],
    ids=["plain", "sinks", "softcap", "padding"],
)
@pytest.mark.parametrize("n_query", [N, 9, 1])
def test_what_is_dropped_is_the_total_variation_distance(rules: dict[str, Any], n_query: int) -> None:
    exact = heads(n_query, **rules)
    rows = torch.arange(n_query)
    kept = SlidingWindow(12, sinks=2).matrix(exact)
    assert torch.allclose(variations(exact, kept, rows), apart(dense(exact), kept.to_dense()), atol=1e-6)


@pytest.mark.parametrize("rules", [{}, {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])}], ids=["plain", "sinks"])
@pytest.mark.parametrize("n_query", [N, 5])
def test_a_pattern_of_another_kind_is_measured_by_its_entries(n_query: int, rules: dict[str, Any]) -> None:
    exact = heads(n_query, **rules)
    other = Linear("elu").matrix(exact)
    rows = torch.arange(0, n_query, 2)
    truth = apart(dense(exact), other.to_dense())[..., rows]
    assert torch.allclose(variations(exact, other, rows), truth, atol=1e-5)


def test_heads_are_told_apart() -> None:
    random = torch.Generator().manual_seed(1)
    query, key = torch.randn(1, 2, N, DIM, generator=random), torch.randn(1, 2, N, DIM, generator=random)
    # The second head looks at the token before, whatever that is: its keys are its own queries, one step on.
    key[:, 1] = 9 * torch.nn.functional.normalize(key[:, 1], dim=-1)
    query[:, 1, 1:] = 9 * torch.nn.functional.normalize(key[:, 1, :-1], dim=-1)
    exact = AttentionMatrix(query, key, causal=True)
    found = exceeds(exact, SlidingWindow(4), 0.05, generator=torch.Generator().manual_seed(0))
    assert found.tolist() == [True, False]
    assert found.dtype == torch.bool


def test_one_element_of_a_batch_is_enough() -> None:
    exact = heads(sharp=0.0)
    # Even attention: a window of all but the first ten drops little of the last row, and nothing of early ones.
    assert exceeds(exact, SlidingWindow(N - 10), 0.5).tolist() == [False] * 4
    assert exceeds(exact, SlidingWindow(2), 0.5).tolist() == [True] * 4


def test_a_window_that_keeps_everything_passes_any_bound() -> None:
    assert not exceeds(heads(), SlidingWindow(10 * N), 0).any()


def test_no_more_than_some_rows_are_made() -> None:
    random = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, count, 600, DIM, generator=random) for count in (4, 2))
    exact = AttentionMatrix(query, key, causal=True)
    with no_dense(600 * 600):
        exceeds(exact, SlidingWindow(12), 0.05)
    assert not exact.sums_known


@pytest.mark.parametrize("bound", [-0.1, 1.5, True, "much"])
def test_a_bound_that_is_none_is_refused(bound: object) -> None:
    with pytest.raises(ArgumentError, match="guard: wanted a number from 0 to 1"):
        exceeds(heads(), SlidingWindow(12), bound)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("rows", [0, True, 2.5])
def test_rows_that_are_none_are_refused(rows: object) -> None:
    pattern: Pattern = SlidingWindow(12)
    with pytest.raises(ArgumentError, match="rows: wanted a whole number from 1"):
        exceeds(heads(), pattern, 0.1, rows)  # pyright: ignore[reportArgumentType]
