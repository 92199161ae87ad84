"""The contract of every kind of attention matrix: all that users may ask, checked against the dense truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError
from attlas.matrix import AttentionOperator, Pool, ask
from attlas.matrix.reference import dense_distance, dense_entropy, dense_mass, dense_pool
from attlas.testing.tolerances import assert_as_exact_as


def check_operator(operator: AttentionOperator, exact: Tensor, plain: Tensor) -> None:
    """Check every product, index and question of an operator.

    Parameters
    ----------
    operator : AttentionOperator
        What is tested.
    exact : Tensor, (batch, head, n_query, n_key)
        The dense truth in float64.
    plain : Tensor
        The same by a plain dense computation in the operator's dtype; its error sets the tolerance.
    """
    _check_shape(operator, exact)
    plain = plain.to(operator.accumulator)
    assert_as_exact_as(operator.to_dense(), plain, exact, what="to_dense")
    _check_products(operator, exact, plain)
    _check_indexing(operator, exact, plain)
    _check_columns(operator, exact, plain)
    if operator.signed:
        _check_refusals(operator)
    else:
        _check_shares(operator, exact, plain)
    _check_largest(operator, exact, plain)
    _check_pooling(operator, exact, plain)
    _check_comparison(operator)
    _check_lending(operator)


def _check_shape(operator: AttentionOperator, exact: Tensor) -> None:
    if operator.shape != tuple(exact.shape):
        raise AssertionError(f"shape {operator.shape}, wanted {tuple(exact.shape)}")
    if operator.T.shape != tuple(exact.mT.shape):
        raise AssertionError(f"transposed shape {operator.T.shape}, wanted {tuple(exact.mT.shape)}")


def _check_products(operator: AttentionOperator, exact: Tensor, plain: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    batch, head, n_query, n_key = exact.shape
    for width in (1, 3, 70):
        v = torch.randn(batch, head, n_key, width, generator=generator, dtype=plain.dtype)
        x = torch.randn(batch, head, n_query, width, generator=generator, dtype=plain.dtype)
        assert_as_exact_as(operator @ v, plain @ v, exact @ v.double(), what=f"A @ v, width {width}")
        assert_as_exact_as(operator.T @ x, plain.mT @ x, exact.mT @ x.double(), what=f"A.T @ x, width {width}")
    shared = torch.randn(n_key, 2, generator=generator, dtype=plain.dtype)
    assert_as_exact_as(operator @ shared, plain @ shared, exact @ shared.double(), what="A @ v, shared by heads")


def _check_indexing(operator: AttentionOperator, exact: Tensor, plain: Tensor) -> None:
    batch, head, n_query, n_key = exact.shape
    last = (batch - 1, head - 1)
    half_q, half_k = slice(n_query // 2, n_query), slice(0, max(1, n_key // 2))
    cases: list[Any] = [
        (*last, half_q, half_k),
        (*last, slice(None), 0),
        (slice(None), last[1], -1, slice(None)),
        (..., half_q, half_k),
        (0, 0, n_query - 1, n_key - 1),
        (0, slice(None), slice(None, None, 3), [0, n_key - 1]),
    ]
    for case in cases:
        tile = operator[case]
        wanted = exact[case]
        if not isinstance(tile, Tensor):
            raise AssertionError(f"A[{case}] is a {type(tile).__name__}, wanted a Tensor")
        assert_as_exact_as(tile, plain[case], wanted, what=f"A[{case}]")
    heads = list(range(0, head, 2))
    narrow = operator[:, heads]
    if not isinstance(narrow, AttentionOperator):
        raise AssertionError("A[:, heads] is not an attention operator")
    assert_as_exact_as(narrow.to_dense(), plain[:, heads], exact[:, heads], what="A[:, heads]")
    one = operator[last]
    if not isinstance(one, AttentionOperator):
        raise AssertionError("A[b, h] is not an attention operator")
    assert_as_exact_as(one.received(), plain[-1:, -1:].sum(2), exact[-1:, -1:].sum(2), what="A[b, h].received()")


def _check_columns(operator: AttentionOperator, exact: Tensor, plain: Tensor) -> None:
    n_query = exact.shape[2]
    assert_as_exact_as(operator.received(), plain.sum(2), exact.sum(2), what="received")
    weights = torch.linspace(-1, 2, n_query, dtype=plain.dtype)
    one = torch.zeros(n_query, dtype=plain.dtype)
    one[n_query // 2] = 1.5
    for name, counted in (("weights", weights), ("one row's weight", one), ("no weight", torch.zeros_like(one))):
        wanted = counted.double() @ exact
        assert_as_exact_as(operator.received(counted), counted @ plain, wanted, what=f"received({name})")


def _check_shares(operator: AttentionOperator, exact: Tensor, plain: Tensor) -> None:
    assert_as_exact_as(operator.entropy(), dense_entropy(plain), dense_entropy(exact), what="entropy")
    assert_as_exact_as(operator.distance(), dense_distance(plain), dense_distance(exact), what="distance")
    for window, sinks in ((1, 0), (None, 2), (7, 3), (exact.shape[3], 0)):
        wanted = dense_mass(exact, window, sinks)
        assert_as_exact_as(operator.mass(window, sinks), dense_mass(plain, window, sinks), wanted, what="mass")


def _check_refusals(operator: AttentionOperator) -> None:
    for question in (operator.entropy, operator.distance, lambda: operator.mass(1)):
        try:
            question()
        except ArgumentError:
            continue
        raise AssertionError("a matrix with a sign answered a question about shares of its rows")


def _check_largest(operator: AttentionOperator, exact: Tensor, plain: Tensor) -> None:
    n_key = exact.shape[3]
    for k in {1, min(5, n_key), n_key}:
        values, indices = operator.topk(k)
        assert_as_exact_as(values, plain.topk(k).values, exact.topk(k).values, what=f"topk({k})")
        # Entries that are equal may be listed in any order, so indices are judged by what they point at.
        assert_as_exact_as(exact.gather(-1, indices), plain.topk(k).values, exact.topk(k).values, what="topk indices")
        if any(len(set(row)) != k for row in indices.reshape(-1, k).tolist()):
            raise AssertionError("topk lists a key twice")


def _check_pooling(operator: AttentionOperator, exact: Tensor, plain: Tensor) -> None:
    n_query, n_key = exact.shape[2:]
    sizes = {(1, 1), (min(3, n_query), min(5, n_key)), (max(1, n_query // 2), max(1, n_key - 1)), (n_query, n_key)}
    for size in sizes:
        reduces = ("sum", "mean", "max")
        for reduce, answer in zip(reduces, ask(operator, *(Pool(size, reduce) for reduce in reduces)), strict=True):
            wanted = dense_pool(exact, size, reduce)
            assert_as_exact_as(answer, dense_pool(plain, size, reduce), wanted, what=f"pool {size} {reduce}")
    larger = (n_query + 3, 2 * n_key + 1)
    wanted = dense_pool(exact, larger, "max")
    assert_as_exact_as(operator.pool(larger, "max"), dense_pool(plain, larger, "max"), wanted, what=f"pool {larger}")


def _check_comparison(operator: AttentionOperator) -> None:
    itself = operator.compare(operator)
    if bool(itself.frobenius.any()) or bool(itself.total_variation.any()):
        raise AssertionError("a matrix differs from itself")
    flipped = operator.compare(operator.T.T)
    if bool(flipped.frobenius.any()):
        raise AssertionError("a matrix differs from its transpose's transpose")


def _check_lending(operator: AttentionOperator) -> None:
    rows, cols = (slice(0, size) for size in operator.shape[2:])
    operator.prepare()
    reader = operator.reader()
    before = reader.tile(rows, cols).values.clone()
    reader.tile(rows, cols).values.fill_(7.0)
    if not torch.equal(reader.tile(rows, cols).values, before):
        raise AssertionError("writing into a lent tile changes the matrix")
