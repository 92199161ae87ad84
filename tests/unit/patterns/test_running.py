"""What runs is counted, lazy, the same on any number of threads, and right where it is easy to be wrong."""

import pytest
import torch

from attlas import ArgumentError, AttentionMatrix, NonFiniteError
from attlas.patterns import BlockSparse, Full, SlidingWindow, VerticalSlash, from_settings, running
from attlas.patterns.keep import HEIGHT
from attlas.testing import no_dense
from keeping import CHOOSING, EVERY, KEEPING, counted, truth


def heads(n_query, n_key=None, head=4, kv_head=2, dim=8, **rules):
    generator = torch.Generator().manual_seed(n_query)
    n_key = n_query if n_key is None else n_key
    query, key, value = (
        torch.randn(2, count, length, dim, generator=generator)
        for count, length in ((head, n_query), (kv_head, n_key), (kv_head, n_key))
    )
    return AttentionMatrix(query, key, **rules), value


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_query", "n_key"), [(300, 300), (1, 300), (70, 300)])
@pytest.mark.parametrize("name", [name for name in KEEPING if name != "wide window"])
def test_work_is_what_is_computed(name, n_query, n_key, causal, monkeypatch):
    matrix, value = heads(n_query, n_key, causal=causal)
    with counted(monkeypatch) as pairs:
        KEEPING[name].attend(matrix, value)
    work = KEEPING[name].work(n_query, n_key, causal=causal)
    if KEEPING[name].kind == "vertical_slash":
        # Which lines touch depends on the numbers.
        assert 0.3 * work.pairs * 2 * 4 < sum(pairs) <= work.pairs * 2 * 4
    else:
        assert sum(pairs) == work.pairs * 2 * 4


def test_work_of_everything():
    assert Full().work(5, 5, causal=True).pairs == 15
    assert Full().work(2, 5, causal=True).pairs == 4 + 5
    assert Full().work(2, 5, causal=False).pairs == 10
    assert SlidingWindow(64).work(64, 64, causal=True) == Full().work(64, 64, causal=True)


def test_a_windows_work_grows_with_the_length_alone():
    few, many = (SlidingWindow(256, sinks=4).work(n, n, causal=True).pairs for n in (4096, 8192))
    assert many - few == 4096 * (256 + HEIGHT - 1 + 4)


def test_threads_change_nothing():
    matrix, value = heads(500, causal=True)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append([pattern.attend(matrix, value) for pattern in KEEPING.values()])
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_a_growing_text_read_token_by_token(name):
    pattern = EVERY[name]
    matrix, value = heads(40, causal=True)
    for length in (1, 2, 17, 40):
        row = slice(length - 1, length)
        step = AttentionMatrix(matrix.query[:, :, row], matrix.key[:, :, :length], causal=True)
        got = pattern.attend(step, value[:, :, :length])
        dense = truth(pattern, step.query, step.key, {"causal": True})
        wide = value[:, :, :length].repeat_interleave(2, dim=1).double()
        torch.testing.assert_close(got.double(), dense @ wide, rtol=1e-5, atol=1e-6)
        if name not in CHOOSING:
            whole = pattern.attend(matrix, value)[:, :, row]
            torch.testing.assert_close(got, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_tensors_in_any_layout(name):
    matrix, value = heads(50, causal=True)
    wanted = EVERY[name].attend(matrix, value)
    # As models hand them over: heads side by side in memory; and with the width as the outer axis.
    for order in ((0, 2, 1, 3), (0, 1, 3, 2), (3, 2, 1, 0)):
        back = [order.index(axis) for axis in range(4)]
        query, key, given = (t.permute(order).contiguous().permute(back) for t in (matrix.query, matrix.key, value))
        got = EVERY[name].attend(AttentionMatrix(query, key, causal=True), given)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_scores_beyond_float32_are_answered_and_beyond_float64_named(name):
    value = torch.randn(1, 1, 20, 2)
    large = torch.full((1, 1, 20, 2), 1e20)
    out = EVERY[name].attend(AttentionMatrix(large, large, causal=True), value)
    if name not in CHOOSING:
        dense = truth(EVERY[name], large, large, {"causal": True})
        torch.testing.assert_close(out.double(), dense @ value.double(), rtol=1e-5, atol=1e-6)
    assert bool(out.isfinite().all())
    huge = torch.full((1, 1, 20, 2), 1e200, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="overflow"):
        EVERY[name].attend(AttentionMatrix(huge, huge, causal=True), value.double())


def test_rows_that_see_nothing_are_zero_and_have_no_gradient():
    matrix, value = heads(60, causal=True, mask=torch.arange(60).view(1, 1, 1, -1) >= 25)
    query = matrix.query.clone().requires_grad_()
    for pattern in EVERY.values():
        out = pattern.attend(AttentionMatrix(query, matrix.key, causal=True, mask=matrix.visibility.mask), value)
        assert not bool(out[:, :, :25].any())
        (gradient,) = torch.autograd.grad(out.sum(), query)
        assert bool(gradient.isfinite().all())
        assert not bool(gradient[:, :, :25].any())


@pytest.mark.parametrize("name", ["full", "window and sinks", "global tokens", "top blocks"])
def test_mixed_precision_changes_nothing(name):
    matrix, value = heads(50, causal=True)
    query = matrix.query.clone().requires_grad_()
    wanted = EVERY[name].attend(matrix, value)
    for given in (matrix.query, query):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = EVERY[name].attend(AttentionMatrix(given, matrix.key, causal=True), value)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_no_grad_records_nothing():
    matrix, value = heads(50, causal=True)
    query = matrix.query.clone().requires_grad_()
    with torch.no_grad():
        assert not SlidingWindow(4).attend(AttentionMatrix(query, matrix.key, causal=True), value).requires_grad
    assert SlidingWindow(4).attend(AttentionMatrix(query, matrix.key, causal=True), value).requires_grad


def test_the_answer_lies_as_the_projection_after_it_wants():
    matrix, value = heads(80, causal=True)
    out = SlidingWindow(16, sinks=2).attend(matrix, value)
    assert out.transpose(1, 2).is_contiguous()


def test_memory_is_that_of_a_few_chunks(monkeypatch):
    monkeypatch.setattr(running, "SCORES", 20_000)
    n = 4000
    matrix, value = heads(n, dim=4, causal=True)
    with no_dense(4 * n * 8 + 1):  # the answer itself is the largest tensor
        SlidingWindow(64, sinks=4).attend(matrix, value)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SlidingWindow(0), "width: wanted a whole number of at least 1, got 0"),
        (lambda: SlidingWindow(8, sinks=-1), "sinks: wanted a whole number of at least 0"),
        (lambda: from_settings("sliding_window", {"width": 2.5}), "width: wanted a whole number"),
        (lambda: SlidingWindow(True), "width: wanted a whole number"),
        (lambda: BlockSparse(8), "blocks, local, top: wanted just one of them, got none of them"),
        (lambda: BlockSparse(8, local=1, top=2), "got local and top"),
        (lambda: BlockSparse(8, top=1), "top: wanted a whole number of at least 2"),
        (lambda: BlockSparse(8, top=2, stride=2), "stride: wanted None without `local`"),
        (lambda: from_settings("block_sparse", {"block": 8, "blocks": [[1, 2, 3]]}), "blocks: wanted pairs"),
        (lambda: BlockSparse(8, blocks=((1, -2),)), "blocks: wanted a whole number of at least 0"),
        (lambda: VerticalSlash(4, 10, band=4), "slash: wanted a multiple of band = 4, got 10"),
        (lambda: VerticalSlash(-1, 16), "vertical: wanted a whole number of at least 0"),
    ],
)
def test_settings_that_cannot_be(make, named):
    with pytest.raises(ArgumentError, match=named):
        make()
