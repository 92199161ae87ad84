"""What a `LowRank` is, what it refuses, and that it never becomes dense unasked; its numbers are a property test."""

import operator
from typing import Any

import pytest
import torch

from attlas.errors import ArgumentError, NonFiniteError, TooDense
from attlas.projections import factors
from attlas.projections.low_rank import LowRank
from attlas.testing import no_dense


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_it_knows_its_shape_and_says_it():
    product = LowRank(drawn(3, 1, 50, 4), drawn(2, 4, 60))
    assert product.shape == (3, 2, 50, 60)
    assert (product.width, product.dtype, product.device) == (4, torch.float32, torch.device("cpu"))
    assert product.nbytes == 4 * (3 * 50 * 4 + 2 * 4 * 60)
    assert repr(product) == "LowRank(shape=(3, 2, 50, 60), width=4, dtype=torch.float32, device='cpu')"


def test_the_factors_are_neither_copied_nor_repeated():
    left, right = drawn(3, 2, 50, 4), drawn(3, 1, 4, 60)
    product = LowRank(left, right)
    transposed, one, both = product.T, product[1, 0], product[1]
    for part in (product, one, both):
        assert part.left.untyped_storage().data_ptr() == left.untyped_storage().data_ptr()
        assert part.right.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()
    assert transposed.left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()
    assert (one.shape, both.shape, transposed.shape) == ((50, 60), (2, 50, 60), (3, 2, 60, 50))


def test_nothing_as_large_as_the_product_is_made():
    n = 400
    first, second = LowRank(drawn(2, n, 4), drawn(2, 4, n)), LowRank(drawn(2, n, 3, seed=1), drawn(2, 3, n, seed=1))
    with no_dense(n * n):
        total = (first + second - first @ second.T) * 2.0 / torch.tensor([1.0, 2.0])
        _ = total @ drawn(n)
        for name in ("norm", "svd", "eigvals", "trace", "effective_rank", "rank_for", "compressed", "column_space"):
            getattr(total, name)()
        first.inner(second)
        first.compare(second)
    assert total.width == 10


def test_indexing_takes_leading_axes_only():
    product = LowRank(drawn(3, 2, 6, 2), drawn(3, 2, 2, 5))
    dense = product.to_dense()
    for index in (0, -1, (1, 1), slice(1, 3), [2, 0], (slice(None), 1), torch.tensor([1, 1])):
        assert torch.equal(product[index].to_dense(), dense[index])
    assert [one.shape for one in product] == [(2, 6, 5)] * 3
    with pytest.raises(IndexError, match="wanted -3 to 2, got 3"):
        product[3]
    with pytest.raises(ArgumentError, match="at most 2 parts"):
        product[0, 0, 0]
    with pytest.raises(ArgumentError, match="wanted integers"):
        product[None]
    with pytest.raises(ArgumentError, match="at most 0 parts"):
        product[0, 0][0]


def test_scalars_and_signs():
    product = LowRank(drawn(3, 6, 2), drawn(3, 2, 5))
    dense, scales = product.to_dense(), torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close((2 * product).to_dense(), 2 * dense)
    torch.testing.assert_close((torch.tensor(2.0) * product).to_dense(), 2 * dense)
    torch.testing.assert_close((product * scales).to_dense(), dense * scales[:, None, None])
    torch.testing.assert_close((product / scales).to_dense(), dense / scales[:, None, None])
    torch.testing.assert_close((-product / 4).to_dense(), -dense / 4)
    torch.testing.assert_close((product / product.norm()).norm(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(product.to(torch.float64).to_dense(), dense.double())
    with pytest.raises(ArgumentError, match=r"leading axes that broadcast with \(3,\), got \(2,\)"):
        _ = product * torch.ones(2)
    nonsense: Any = "2"
    for operation in (operator.mul, operator.truediv, operator.add, operator.sub, operator.matmul):
        with pytest.raises(TypeError):
            operation(product, nonsense)


def test_a_sum_that_is_wider_than_the_matrix_is_narrowed():
    parts = [LowRank(drawn(7, 3, seed=i), drawn(3, 5, seed=i)) for i in range(4)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert total.width == 5
    torch.testing.assert_close(total.to_dense(), sum(part.to_dense() for part in parts))
    assert (total.T + total.T).width == 5


def test_gradients_pass_through_arithmetic():
    left, right = drawn(6, 2, dtype=torch.float64).requires_grad_(), drawn(2, 6, seed=1, dtype=torch.float64)
    product = LowRank(left, right)
    ((product + product @ product) @ torch.ones(6, dtype=torch.float64)).sum().backward()
    assert left.grad is not None
    dense_left = left.detach().clone().requires_grad_()
    dense = dense_left @ right
    (dense + dense @ dense).sum().backward()
    torch.testing.assert_close(left.grad, dense_left.grad)
    assert not product.norm().requires_grad


@pytest.mark.usefixtures("_two_threads")
def test_equal_heads_of_a_stack_give_equal_numbers_whatever_the_threads(monkeypatch):
    monkeypatch.setattr(factors, "_WORTH_A_THREAD", 0)
    product = LowRank(drawn(5, 30, 4), drawn(5, 4, 30))
    for name in ("norm", "svdvals", "effective_rank", "stable_rank", "participation", "rank_for", "rank"):
        together, alone = getattr(product, name)(), torch.stack([getattr(one, name)() for one in product])
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_known_spectra():
    values = torch.tensor([2.0, 1.0, 1.0, 0.0])
    product = LowRank(torch.diag(values), torch.eye(4))
    torch.testing.assert_close(product.svdvals(), values.double())
    share = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    torch.testing.assert_close(product.effective_rank(), torch.exp(-(share * share.log()).sum()))
    torch.testing.assert_close(product.stable_rank(), torch.tensor(1.5, dtype=torch.float64))
    torch.testing.assert_close(product.participation(), torch.tensor(2.0, dtype=torch.float64))
    assert [int(product.rank_for(energy)) for energy in (0.5, 0.66, 0.67, 0.83, 0.84, 1.0)] == [1, 1, 2, 2, 3, 3]
    assert int(product.rank()) == 3
    assert product.column_space().shape == (4, 3)
    assert product.column_space(4)[:, 3].abs().sum() == 0


def test_a_zero_matrix_has_rank_zero_and_no_nan():
    zero = LowRank(torch.zeros(2, 6, 3), drawn(2, 3, 6))
    for name in ("norm", "svdvals", "effective_rank", "stable_rank", "participation", "rank_for", "rank", "trace"):
        assert (getattr(zero, name)() == 0).all(), name
    assert (zero.eigvals().abs() == 0).all()
    assert zero.compressed().width == 1
    one = LowRank(drawn(2, 6, 3, seed=1), drawn(2, 3, 6))
    assert torch.equal(zero.compare(zero).relative, torch.zeros(2, dtype=torch.float64))
    assert one.compare(zero).relative.tolist() == pytest.approx([1.0, 1.0])
    assert (zero.compare(one).relative == float("inf")).all()
    assert (zero.compare(one).cosine == 0).all()
    assert (zero.compare(one).columns.overlap == 0).all()


def test_comparing_tells_scale_direction_and_spaces_apart():
    product = LowRank(drawn(40, 3), drawn(3, 30))
    same = product.compare(-2 * product)
    assert float(same.relative) == pytest.approx(3.0)
    assert float(same.cosine) == pytest.approx(-1.0)
    assert float(same.columns.overlap) == pytest.approx(3.0)
    assert float(same.columns.chance) == pytest.approx(9 / 40)
    assert float(same.rows.chance) == pytest.approx(9 / 30)
    assert float(same.columns.z) > 10
    columns = LowRank(product.left, drawn(3, 30, seed=2))
    apart = product.compare(columns)
    assert float(apart.columns.angles.max()) < 1e-6
    assert float(apart.rows.overlap) < 1.5
    dense = product.to_dense() - columns.to_dense()
    assert float(apart.relative) == pytest.approx(float(dense.norm() / product.to_dense().norm()), rel=1e-5)
    assert float(product.inner(columns)) == pytest.approx(
        float((product.to_dense() * columns.to_dense()).sum()), rel=1e-4, abs=1e-3
    )


def test_dense_is_refused_above_the_limit():
    product = LowRank(drawn(9000, 2), drawn(2, 9000))
    with pytest.raises(TooDense, match=r"81,000,000 \(9000 × 9000\); pass limit=81000000"):
        product.to_dense()
    with pytest.raises(TooDense, match=r"use between\(after=\.\.\.\)"):
        _ = product @ torch.ones(9000, 1).expand(9000, 9000)
    few = LowRank(drawn(3, 2), drawn(2, 4))
    assert few.to_dense(limit=12).shape == few.to_dense(limit=None).shape == (3, 4)
    with pytest.raises(TooDense, match="wanted at most 11 dense entries, got 12"):
        few.to_dense(limit=11)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ([[1.0]], torch.ones(1, 1), "left: wanted a torch.Tensor, got list"),
        (torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2), "left: wanted float32.*got torch.int64"),
        (torch.ones(2), torch.ones(2, 2), "left: wanted at least two axes"),
        (torch.ones(2, 0), torch.ones(0, 2), "left: wanted at least two axes, each with at least one element"),
        (torch.ones(2, 3), torch.ones(2, 3), "right: wanted 3 rows"),
        (torch.ones(2, 3), torch.ones(3, 2, dtype=torch.float64), "right: wanted the dtype torch.float32"),
        (torch.ones(2, 3), torch.ones(3, 2, device="meta"), "right: wanted the device cpu"),
        (torch.ones(4, 2, 3), torch.ones(5, 3, 2), "right: wanted leading axes that broadcast"),
    ],
)
def test_factors_that_do_not_fit_are_refused(left, right, message):
    with pytest.raises(ArgumentError, match=message):
        LowRank(left, right)


def test_partners_that_do_not_fit_are_refused():
    product = LowRank(torch.ones(2, 6, 3), torch.ones(2, 3, 5))
    cases = {
        "other: wanted 6 × 5, got 5 × 6": lambda: product + product.T,
        "other: wanted the dtype": lambda: product + product.to(torch.float64),
        "other: wanted leading axes": lambda: product - LowRank(torch.ones(3, 6, 3), torch.ones(3, 3, 5)),
        "other: wanted a LowRank, got Tensor": lambda: product.inner(torch.ones(6, 5)),  # pyright: ignore[reportArgumentType]  the refusal is the test
        "product: wanted 5 numbers": lambda: product @ torch.ones(6, 2),
        "product: wanted 6 numbers": lambda: torch.ones(2, 5) @ product,
        "product: wanted 5 numbers along": lambda: product @ product,
        "product: wanted the dtype": lambda: product @ torch.ones(5, dtype=torch.float64),
        "trace: wanted a square matrix, got 6 × 5": product.trace,
        "eigvals: wanted a square matrix": product.eigvals,
        "energy: wanted a share": lambda: product.rank_for(1.5),
        "tolerance: wanted": lambda: product.compressed(1.0),
        "k: wanted 1 to 3, got 4": lambda: product.row_space(4),
        "k: wanted 1 to 3, got 0": lambda: product.column_space(0),
    }
    for message, nonsense in cases.items():
        with pytest.raises(ArgumentError, match=message):
            nonsense()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(bad):
    right = torch.ones(3, 5)
    right[1, 2] = bad
    with pytest.raises(NonFiniteError, match="right: wanted finite numbers"):
        LowRank(torch.ones(6, 3), right).svdvals()
