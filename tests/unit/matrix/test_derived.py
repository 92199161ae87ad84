"""Matrices made of others say what does not fit, stay lazy, and read no tile that they need not."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attlas import ArgumentError, AttentionMatrix
from attlas.matrix import (
    AttentionGradient,
    Chain,
    HeadMean,
    Pool,
    Positive,
    Product,
    Received,
    ReceivedOfProducts,
    RowNormalised,
    Scaled,
    TopK,
    WithIdentity,
    ask,
    streaming,
    without_keys,
)
from attlas.matrix.derived import ChangingReader, Derived
from attlas.matrix.logsumexp import LARGE
from attlas.matrix.threads import inline
from attlas.matrix.visibility import index_tensor
from attlas.testing import assert_as_exact_as, no_dense
from derived import KINDS, Problem


def problem(n_query: int, n_key: int | None = None, heads: int = 4, dim: int = 8, **rules: object) -> Problem:
    generator = torch.Generator().manual_seed(n_query)
    n_key = n_query if n_key is None else n_key

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Problem(
        normal(1, heads, n_query, dim),
        normal(1, heads // 2, n_key, dim),
        normal(1, heads, n_query, dim),
        normal(1, heads // 2, n_key, dim),
        rules,
    )


# ---- memory


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_as_large_as_the_matrix(kind):
    n = 1500
    long = problem(n, dim=16, causal=True)
    with no_dense(n * n):
        operator = KINDS[kind].lazy(long)
        ask(operator, Received(), Received(torch.ones(n)), Pool((40, 40), "max"), TopK(4))
        _ = operator @ torch.ones(n, 2)
        _ = operator.T @ torch.ones(n, 2)


def test_withheld_keys_and_chains_stay_lazy():
    n = 1500
    long = problem(n, dim=16, mask=torch.ones(1, 1, 1, n, dtype=torch.bool))
    with no_dense(n * n):
        matrix = long.matrix
        matrix.prepare()
        less = without_keys(matrix, [0, 700])
        Chain([WithIdentity(HeadMean(less)), WithIdentity(HeadMean(matrix))]).rows(torch.ones(3, n))


class Fresh(TorchDispatchMode):
    """Counts the tensors of a size that are made anew."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries = entries
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        before = {
            tensor.untyped_storage().data_ptr() for tensor in (*args, *kwargs.values()) if isinstance(tensor, Tensor)
        }
        result = func(*args, **kwargs)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in before:
                self.count += tensor.untyped_storage().nbytes() >= self.entries * tensor.element_size()
        return result


@pytest.mark.parametrize(
    "kind", ["attention times gradient", "positive part", "a step of rollout", "a step of gradient-weighted attention"]
)
def test_tiles_are_made_in_the_same_memory(kind, monkeypatch):
    tile = 64
    monkeypatch.setattr(streaming, "TILE", tile)
    monkeypatch.setattr(streaming, "MANY_BLOCKS", 1)
    counts = []
    for strips in (3, 6):
        operator = KINDS[kind].lazy(problem(strips * tile, causal=True))
        operator.prepare()
        with inline(), Fresh(tile * tile) as fresh:
            operator.received(torch.ones(strips * tile))
        counts.append(fresh.count)
    # Three strips have 6 tiles a head and six have 21.
    assert counts[0] == counts[1]


# ---- large tiles' edges, with the true tile size


@pytest.mark.parametrize("n_query", [511, 512, 513])
@pytest.mark.parametrize("n_key", [512, 513, 1025])
def test_around_the_edges_of_true_tiles(n_query, n_key):
    edge = problem(n_query, n_key, causal=True)
    weights = torch.linspace(0, 1, n_query)
    for name in ("positive part", "a step of gradient-weighted attention"):
        exact, plain = (KINDS[name].dense(edge, dtype) for dtype in (torch.float64, torch.float32))
        got = KINDS[name].lazy(edge).received(weights)
        assert_as_exact_as(got, weights @ plain, weights.double() @ exact, magnitude=edge.magnitude, what=name)


# ---- what is not read


class Watched(Derived):
    """Counts the rows of the tiles that are read of it."""

    def __init__(self, of, rows: list[int]) -> None:
        super().__init__(of)
        self.rows = rows

    def narrow(self, batch, head):
        return Watched(self.of.narrow(batch, head), self.rows)

    def reader(self):
        return WatchedReader(self.of.reader(), self.rows)


class WatchedReader(ChangingReader):
    def __init__(self, of, rows: list[int]) -> None:
        super().__init__(of)
        self.rows = rows

    def change(self, values, rows, cols):
        self.rows += index_tensor(rows, values.device).tolist()


@pytest.mark.parametrize(
    ("weighted", "read"),
    [([], set()), ([37], {37}), ([17, 30], set(range(17, 31))), ([3, 40], {3, 40}), (range(48), set(range(48)))],
)
def test_rows_without_weight_are_not_read(weighted, read, monkeypatch):
    monkeypatch.setattr(streaming, "TILE", 16)
    rows: list[int] = []
    operator = Watched(problem(48, causal=True).matrix, rows)
    weights = torch.zeros(48)
    weights[list(weighted)] = 1.0
    answer = operator.received(weights)
    assert set(rows) == read
    rows.clear()
    product = operator.T @ torch.stack([weights, torch.zeros(48)], -1)
    assert set(rows) == read
    torch.testing.assert_close(product[..., 0], answer)
    # Another question in the same pass still gets all of its rows.
    ask(operator, Received(weights), Received())
    assert set(rows) == set(range(48))


def test_a_weight_that_is_not_a_number_shows():
    weights = torch.zeros(20)
    weights[7] = float("nan")
    assert bool(problem(20).matrix.received(weights).isnan().any())


def test_columns_go_through():
    windowed = problem(100, causal=True, window=10).matrix
    causal = problem(100, causal=True).matrix
    rows = slice(40, 50)
    assert Product(windowed, causal).columns(rows) == slice(31, 50)
    assert Product(windowed, causal.T).columns(rows) == slice(31, 50)
    assert WithIdentity(HeadMean(windowed)).columns(rows) == slice(31, 50)
    assert Positive(RowNormalised(Scaled(windowed))).columns(rows) == slice(31, 50)


# ---- signs


def test_who_has_a_sign():
    some = problem(9)
    attention, gradient = some.matrix, AttentionGradient(some.matrix, some.gradient, some.value)
    signed = [
        gradient,
        gradient.T,
        Product(attention, gradient),
        HeadMean(gradient),
        HeadMean(attention, torch.tensor([1.0, 1.0, -1.0, 1.0])),
        WithIdentity(gradient),
        WithIdentity(attention, 1.5),
        Scaled(attention, rows=torch.linspace(-1, 1, 9)),
        Scaled(gradient),
        Chain([attention, gradient]),
    ]
    unsigned = [
        attention,
        attention.T,
        Positive(gradient),
        Product(attention, Positive(gradient)),
        HeadMean(attention),
        WithIdentity(attention),
        Scaled(attention, columns=torch.ones(9)),
        RowNormalised(Positive(gradient)),
        Chain([attention, attention]),
    ]
    assert all(kind.signed for kind in signed)
    assert not any(kind.signed for kind in unsigned)


@pytest.mark.parametrize("question", ["entropy", "distance", "mass"])
def test_shares_of_rows_with_a_sign_are_refused(question):
    some = problem(9)
    gradient = AttentionGradient(some.matrix, some.gradient, some.value)
    message = (
        rf"{question}: wanted a matrix without negative entries, got AttentionGradient\(.*; ask Positive\(matrix\)"
    )
    with pytest.raises(ArgumentError, match=message):
        getattr(gradient, question)(*([1] if question == "mass" else []))


def test_a_hidden_zero_is_larger_than_what_is_seen(monkeypatch):
    # Strips end where tiles end, so no tile that a row's visible keys touch holds a hidden one.
    monkeypatch.setattr(streaming, "TILE", 16)
    some = problem(32, causal=True)
    gradient = AttentionGradient(some.matrix, -some.gradient.abs(), some.value.abs())
    values, keys = gradient.topk(1)
    assert not bool(values[:, :, :31].any())
    assert bool((keys[:, :, :31, 0] > torch.arange(31)).all())
    torch.testing.assert_close(values[:, :, 31], gradient.to_dense()[:, :, 31].amax(-1, keepdim=True))
    largest = gradient.pool((2, 2), "max")
    assert torch.equal(largest[..., 0, :], torch.zeros_like(largest[..., 0, :]))
    assert bool((largest[..., 1, 0] < 0).all())


# ---- errors


SQUARE = AttentionMatrix(torch.randn(1, 4, 6, 8), torch.randn(1, 4, 6, 8))
WIDE = AttentionMatrix(torch.randn(1, 4, 6, 8), torch.randn(1, 4, 9, 8))
WRONG: Any = [1.0]
TALL = AttentionMatrix(torch.randn(1, 4, 9, 8), torch.randn(1, 4, 6, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Product(SQUARE, WIDE), r"b: wanted the shape of a, \(1, 4, 6, 6\), got \(1, 4, 6, 9\)"),
        (lambda: Product(SQUARE, WRONG), "b: wanted an attention matrix of any kind, got list"),
        (lambda: Positive(WRONG), "of: wanted an attention matrix of any kind, got list"),
        (lambda: HeadMean(SQUARE, torch.ones(3)), r"weights: wanted shape \(head,\) = \(4,\) or .*got shape \(3,\)"),
        (lambda: HeadMean(SQUARE, torch.full((4,), torch.inf)), "weights: wanted finite numbers"),
        (lambda: WithIdentity(TALL), "of: wanted at most as many queries as keys"),
        (lambda: WithIdentity(SQUARE, float("nan")), "share: wanted a finite number, got nan"),
        (lambda: RowNormalised(Scaled(SQUARE, rows=-torch.ones(6))), r"of: wanted .*negative.*; take Positive\(of\)"),
        (lambda: Scaled(WIDE, rows=torch.ones(9)), r"rows: wanted .*\(1, 4, 6\), got shape \(9,\)"),
        (lambda: Scaled(WIDE, columns=torch.ones(6)), r"columns: wanted .*\(1, 4, 9\), got shape \(6,\)"),
        (lambda: Scaled(WIDE, columns=WRONG), "columns: wanted .*got list"),
        (lambda: ReceivedOfProducts([], torch.ones(0, 6)), "others: wanted at least one matrix, got none"),
        (
            lambda: ask(SQUARE, ReceivedOfProducts([WIDE], torch.ones(1, 6))),
            r"others\[0\]: wanted shape \(1, 4, 6, 6\)",
        ),
        (
            lambda: ask(SQUARE, ReceivedOfProducts([SQUARE], torch.ones(2, 6))),
            r"weights: wanted \(others, n_query\) = \(1, 6\), .*got shape \(2, 1, 1, 6\)",
        ),
        (lambda: Chain([]), "operators: wanted at least one matrix, got none"),
        (lambda: Chain([SQUARE, WIDE]), r"operators\[1\]: wanted .*a key for each of the 6 rows below"),
        (lambda: Chain([SQUARE, HeadMean(SQUARE)]), r"operators\[1\]: wanted batch and head \(1, 4\)"),
        (lambda: Chain([SQUARE]).rows(torch.ones(7)), r"weights: wanted \(batch, head, 6\) or .*got shape \(7,\)"),
        (lambda: without_keys(SQUARE, [6]), "keys: wanted whole numbers from -6 to 5, got 6"),
        (lambda: without_keys(SQUARE, WRONG), "keys: wanted whole numbers, got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


# ---- what is special to one kind


@pytest.mark.parametrize(
    "look", [lambda c: c.pool((2, 2)), lambda c: c.to_dense(), lambda c: c[0, 0, :2, :2], lambda c: c.topk(1)]
)
def test_a_chain_has_no_entries(look):
    with pytest.raises(ArgumentError, match=r"a product over layers: .*; use chain.rows\(weights\)"):
        look(Chain([SQUARE, SQUARE]))


def test_a_chain_of_matrices_that_are_not_square():
    chain = Chain([WIDE, SQUARE, TALL])
    assert chain.shape == (1, 4, 9, 9)
    dense = TALL.to_dense() @ SQUARE.to_dense() @ WIDE.to_dense()
    torch.testing.assert_close(chain.rows(torch.eye(9)), dense)
    torch.testing.assert_close(chain.received(), dense.sum(2))
    torch.testing.assert_close(chain.received(torch.ones(4, 9)), dense.sum(2))
    torch.testing.assert_close(chain.T.rows(torch.eye(9)), dense.mT)
    one = chain[0, 2]
    assert isinstance(one, Chain)
    torch.testing.assert_close(one.rows(torch.eye(9)), dense[:, 2:3])
    seen = []
    chain.rows(torch.ones(9), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_one_head_may_be_asked_for_twice():
    mean = HeadMean(SQUARE)
    torch.testing.assert_close(mean[:, [0, 0]].received(), mean.received().expand(1, 2, 6))


def test_no_keys_withheld_is_the_matrix_itself():
    assert without_keys(SQUARE, []) is SQUARE


def test_withheld_keys_count_once_and_from_the_end():
    torch.testing.assert_close(without_keys(SQUARE, [1, 1, -1]).to_dense(), without_keys(SQUARE, [5, 1]).to_dense())


@pytest.mark.parametrize("strength", [0.0, 6.0, 20.0, 40.0])
def test_a_row_that_loses_nearly_all_is_summed_anew(strength):
    # A sink that holds 1 − 1e-17 of a row leaves nothing to divide by but rounding; the rest must still sum to 1.
    query, key = torch.randn(1, 2, 70, 8), torch.randn(1, 2, 70, 8)
    query[..., 0], key[..., 0] = 1.0, 0.0
    key[:, :, 0, 0] = strength * 8**0.5
    matrix = AttentionMatrix(query, key, causal=True)
    matrix.prepare()
    less = without_keys(matrix, [0])
    # Scores that need float64 have their sums computed when they are needed.
    assert less.sums_known == (strength < LARGE)
    sums = less.to_dense().sum(-1)
    torch.testing.assert_close(sums[..., 1:], torch.ones_like(sums[..., 1:]))
    assert not bool(less.valid_rows[..., 0].any())
    assert bool(less.valid_rows[..., 1:].all())
    assert not bool(sums[..., 0].any())
