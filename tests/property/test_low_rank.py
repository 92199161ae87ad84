"""A factored matrix gives what the dense float64 product gives, for all shapes, ranks, batches and sizes of numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attlas.projections.low_rank import LowRank

RELAXED = settings(max_examples=60, deadline=None)
EPS = torch.finfo(torch.float64).eps
SIDES = st.integers(1, 12)
BATCHES = st.sampled_from([((), ()), ((3,), (3,)), ((2, 1), (1, 3)), ((2, 3), (3,)), ((1,), ())])


@st.composite
def products(draw, rows=SIDES, cols=SIDES, dtypes=(torch.float32, torch.float64, torch.bfloat16), batch=BATCHES):
    """Draw a factored matrix: full, deficient or zero, of ordinary or extreme size."""
    width = draw(st.integers(1, 14))
    shape = (draw(rows) if not isinstance(rows, int) else rows, draw(cols) if not isinstance(cols, int) else cols)
    leading = draw(batch) if not isinstance(batch, tuple) else batch
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    left = torch.randn(*leading[0], shape[0], width, generator=generator, dtype=torch.float64)
    right = torch.randn(*leading[1], width, shape[1], generator=generator, dtype=torch.float64)
    kind = draw(st.sampled_from(["full", "full", "deficient", "zero", "graded"]))
    if kind == "deficient":
        left[..., width // 2 :] = 0
    elif kind == "zero":
        right = torch.zeros_like(right)
    elif kind == "graded":
        left = left * torch.logspace(0, -8, width, dtype=torch.float64)
    # Within what each dtype holds; the float64 ones overflow if anything is squared before it is scaled.
    power = draw(st.sampled_from([0, 0, 60, -60] if dtype != torch.float64 else [0, 0, 450, -450]))
    return LowRank((left * 2.0**power).to(dtype), right.to(dtype)), power


def exact(product: LowRank) -> torch.Tensor:
    return product.left.double() @ product.right.double()


def size(product: LowRank) -> torch.Tensor:
    """What rounding is measured by: the product of the factors' norms."""
    left, right = (factor.double() for factor in (product.left, product.right))
    up, down = left.abs().amax(), right.abs().amax()
    if 0 in (up, down):
        return torch.zeros((), dtype=torch.float64)
    return (left / up).norm() * (right / down).norm() * up * down


def assert_near(answer, truth, scale, steps=200.0):
    assert answer.shape == truth.shape
    assert answer.isfinite().all()
    assert ((answer - truth).abs() <= steps * EPS * scale).all(), ((answer - truth).abs().max(), scale)


@RELAXED
@given(products())
def test_norm_and_singular_values(drawn):
    product, power = drawn
    dense = exact(product) / 2.0**power
    values = torch.linalg.svdvals(dense)[..., : min(product.width, *product.shape[-2:])]
    assert_near(product.svdvals() / 2.0**power, values, size(product) / 2.0**power)
    assert_near(product.norm() / 2.0**power, torch.linalg.matrix_norm(dense), size(product) / 2.0**power)


@RELAXED
@given(products())
def test_singular_vectors_give_the_product_back(drawn):
    product, power = drawn
    u, s, vh = product.svd()
    assert_near((u * s[..., None, :]) @ vh / 2.0**power, exact(product) / 2.0**power, size(product) / 2.0**power)
    k = s.shape[-1]
    assert u.shape[-1] == vh.shape[-2] == k == min(product.width, *product.shape[-2:])
    assert_near(u.mT @ u, torch.eye(k, dtype=torch.float64).expand(*u.shape[:-2], k, k), 1.0)
    assert_near(vh @ vh.mT, torch.eye(k, dtype=torch.float64).expand(*u.shape[:-2], k, k), 1.0)


@RELAXED
@given(st.integers(1, 10).flatmap(lambda n: products(st.just(n), st.just(n))))
def test_trace_and_eigenvalues_of_square_matrices(drawn):
    product, power = drawn
    dense = exact(product) / 2.0**power
    scale = size(product) / 2.0**power
    assert_near(product.trace() / 2.0**power, dense.diagonal(dim1=-2, dim2=-1).sum(-1), scale)
    found = product.eigvals()
    assert found.shape[-1] == min(product.width, product.shape[-1])
    # Single eigenvalues of a defective matrix are ill-conditioned; the sums of their powers are not.
    assert_near(found.real.sum(-1) / 2.0**power, dense.diagonal(dim1=-2, dim2=-1).sum(-1), scale)
    second = (dense @ dense).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert_near((found / 2.0**power).square().sum(-1).real, second, scale.square())


@RELAXED
@given(st.data(), SIDES, SIDES)
def test_sums_differences_and_inner_products(data, rows, cols):
    batch = data.draw(BATCHES)
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    first, _ = data.draw(products(st.just(rows), st.just(cols), (dtype,), st.just(batch)))
    second, _ = data.draw(products(st.just(rows), st.just(cols), (dtype,), st.just(batch)))
    eps = torch.finfo(dtype).eps
    unit = max(float(size(first)), float(size(second)))
    for total, truth in (
        (first + second, exact(first) + exact(second)),
        (first - second, exact(first) - exact(second)),
    ):
        assert total.width <= max(min(rows, cols), first.width + second.width)
        error = (exact(total) - truth).abs().max()
        assert error <= 50 * max(eps, EPS) * max(unit, 1e-300)
    # Inner products of the largest numbers do not fit into a float64 themselves.
    if unit and 2**-500 < unit < 2**500:
        inner = first.inner(second)
        assert_near(inner, (exact(first) * exact(second)).sum((-2, -1)), float(size(first)) * float(size(second)))


@RELAXED
@given(st.data(), SIDES, SIDES, SIDES)
def test_products_and_application(data, rows, between, cols):
    batch = data.draw(BATCHES)
    first, _ = data.draw(products(st.just(rows), st.just(between), (torch.float64,), st.just(batch)))
    second, _ = data.draw(products(st.just(between), st.just(cols), (torch.float64,), st.just(batch)))
    first, second = (one / max(float(one.left.abs().max()), 1e-300) for one in (first, second))
    scale = size(first) * size(second)
    both = first @ second
    assert both.width <= min(first.width, second.width)
    assert_near(exact(both), exact(first) @ exact(second), scale)
    x = torch.randn(cols, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_near(second @ x, exact(second) @ x, size(second) * x.norm())
    assert_near(second @ x[:, 0], exact(second) @ x[:, 0], size(second) * x.norm())
    assert_near(x.T @ second.T, x.T @ exact(second).mT, size(second) * x.norm())
    assert_near(x[:, 0] @ second.T, exact(second) @ x[:, 0], size(second) * x.norm())
    before = torch.randn(4, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    circuit = both.between(before, x)
    assert circuit.shape == (*both.shape[:-2], 4, 3)
    assert_near(exact(circuit), before @ exact(both) @ x, scale * before.norm() * x.norm())


@RELAXED
@given(products(dtypes=(torch.float32, torch.float64)), st.sampled_from([None, 1e-3, 0.1, 0.5]))
def test_compressed_is_thinner_and_within_its_tolerance(drawn, tolerance):
    product, power = drawn
    thin = product.compressed(tolerance)
    assert thin.width <= max(1, min(product.width, *product.shape[-2:]))
    allowed = torch.finfo(product.dtype).eps if tolerance is None else tolerance
    dense = exact(product) / 2.0**power
    error = torch.linalg.matrix_norm(exact(thin) / 2.0**power - dense)
    rounding = 20 * torch.finfo(product.dtype).eps * torch.linalg.matrix_norm(dense)
    assert (
        error <= allowed * torch.linalg.matrix_norm(dense) + rounding + 200 * EPS * size(product) / 2.0**power
    ).all()


@RELAXED
@given(products(dtypes=(torch.float64,)))
def test_spaces_are_projectors_onto_what_the_columns_and_rows_span(drawn):
    product, power = drawn
    dense = exact(product) / 2.0**power
    columns, rows, rank = product.column_space(), product.row_space(), product.rank()
    for found in (columns, rows):
        assert torch.equal(found.square().sum((-2, -1)).round().long(), rank)
        projector = found @ found.mT
        assert_near(projector @ projector, projector, 1.0)
    # What lies outside of the space is no more than the rounding that the rank was told by.
    slack = size(product) / 2.0**power * 20
    assert_near(columns @ (columns.mT @ dense), dense, slack)
    assert_near((dense @ rows) @ rows.mT, dense, slack)


@RELAXED
@given(products())
def test_ranks_lie_between_one_and_the_rank(drawn):
    product, _ = drawn
    most = min(product.width, *product.shape[-2:])
    zero = product.norm() == 0
    for found in (product.effective_rank(), product.stable_rank(), product.participation(), product.rank_for(0.9)):
        assert (found[zero] == 0).all()
        assert (found[~zero] >= 1 - 1e-9).all()
        assert (found <= most + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_difference_of_nearly_equal_products_keeps_its_digits(dtype):
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(50, 8, generator=generator, dtype=dtype),
        torch.randn(8, 40, generator=generator, dtype=dtype),
    )
    base = LowRank(left, right)
    small = LowRank(
        torch.randn(50, 2, generator=generator, dtype=dtype), torch.randn(2, 40, generator=generator, dtype=dtype)
    )
    small = small * 1e-6
    change = (base + small) - base
    torch.testing.assert_close(change.norm(), small.norm(), rtol=1e-8, atol=0)
    assert change.width == 18
    assert change.compressed(1e-4).width == 2
