"""Keeps say where they keep nothing, and restrict a matrix without taking any of its own rules away."""

from dataclasses import replace

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix import Received, Selection, TopK, ask, streaming
from attlas.matrix.reference import dense_attention
from attlas.matrix.threads import inline
from attlas.patterns import SlidingWindow
from attlas.patterns.keep import merged, restricted
from keeping import CHOOSING, STATIC, kept

QUERY = torch.randn(1, 2, 40, 8, generator=torch.Generator().manual_seed(0))
KEY = torch.randn(1, 1, 52, 8, generator=torch.Generator().manual_seed(1))


def test_spans_that_touch_are_one():
    spans = merged([(30, 40), (0, 4), (3, 9), (9, 11), (50, 60), (70, 80), (20, 20)], 55)
    assert spans == (slice(0, 11), slice(30, 40), slice(50, 55))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", STATIC)
def test_columns_are_those_that_some_row_keeps(name, causal):
    pattern = STATIC[name]
    dense = kept(pattern, QUERY, KEY, {"causal": causal})[0, 0]
    if causal:
        dense = dense.tril(12)
    keep = pattern.keep(AttentionMatrix(QUERY, KEY, causal=causal))
    for first, stop in ((0, 1), (3, 20), (0, 40), (39, 40)):
        spans = keep.columns(slice(first + 12, stop + 12), 52)
        named = torch.zeros(52, dtype=torch.bool)
        for span in spans:
            assert not bool(named[span].any())
            named[span] = True
        needed = dense[first:stop].any(0)
        # Under causal order later keys may be named, for no row sees them; between dilated keys others may lie.
        assert bool(named[needed].all())
        if pattern.kind not in ("dilated", "block_sparse", "bigbird"):
            assert bool((named <= needed)[: stop + 12].all())


@pytest.mark.parametrize("name", [*STATIC, *CHOOSING])
def test_a_keep_is_found_again_by_narrowed_heads(name):
    pattern = {**STATIC, **CHOOSING}[name]
    query, key = torch.randn(3, 4, 30, 8), torch.randn(3, 2, 30, 8)
    whole = pattern.matrix(AttentionMatrix(query, key, causal=True))
    part = whole[[2, 0], [3, 1, 3]]
    torch.testing.assert_close(part.to_dense(), whole.to_dense()[[2, 0]][:, [3, 1, 3]])


def test_all_rules_of_the_matrix_stay():
    mask = torch.rand(1, 2, 40, 52, generator=torch.Generator().manual_seed(2)) > 0.4
    rules = {"causal": True, "window": 30, "softcap": 2.0, "sinks": torch.tensor([0.3, -1.0]), "scale": 0.5}
    dense = dense_attention(QUERY, KEY, mask=mask & kept(STATIC["window and sinks"], QUERY, KEY, rules), **rules)
    for own in (mask, lambda b, h, q, k: mask[0, h, q - 12, k]):
        seen = STATIC["window and sinks"].matrix(AttentionMatrix(QUERY, KEY, mask=own, **rules))
        torch.testing.assert_close(seen.to_dense().double(), dense, atol=1e-6, rtol=1e-5)


def test_restricting_twice_keeps_what_both_keep():
    exact = AttentionMatrix(QUERY, KEY, causal=True)
    twice = STATIC["dilated"].matrix(STATIC["window and sinks"].matrix(exact))
    both = kept(STATIC["dilated"], QUERY, KEY, {"causal": True}) & kept(
        STATIC["window and sinks"], QUERY, KEY, {"causal": True}
    )
    torch.testing.assert_close(
        twice.to_dense().double(), dense_attention(QUERY, KEY, causal=True, mask=both), atol=1e-6, rtol=1e-5
    )


def test_dropped_mass_comes_from_two_log_sum_exps():
    exact = AttentionMatrix(QUERY, KEY, causal=True)
    pattern = SlidingWindow(9, sinks=2)
    dropped = 1 - torch.exp(pattern.matrix(exact).lse - exact.lse)
    outside = (exact.to_dense() * ~kept(pattern, QUERY, KEY, {"causal": True})).sum(-1)
    torch.testing.assert_close(dropped, outside, atol=1e-6, rtol=1e-5)
    # The same number is each row's total variation distance.
    torch.testing.assert_close(exact.compare(pattern.matrix(exact)).total_variation, outside, atol=1e-6, rtol=1e-5)


class _Watched(Selection):
    """Notes which tiles a formula is asked for."""

    def __init__(self, keep, tiles):
        self.keep, self.tiles = keep, tiles

    def __call__(self, batch, head, query, key):
        self.tiles.append((int(query.min()) // 16, int(key.min()) // 16))
        return self.keep(batch, head, query, key)

    def occupied(self, batches, heads, positions, keys):
        return self.keep.occupied(batches, heads, positions, keys)


def test_only_tiles_in_which_something_is_kept_are_made(monkeypatch):
    monkeypatch.setattr(streaming, "TILE", 16)
    n = 160
    query = torch.randn(1, 1, n, 8)
    exact = AttentionMatrix(query, query, causal=True)
    tiles: list[tuple[int, int]] = []
    pattern = SlidingWindow(16, sinks=1)
    watched = _Watched(pattern.keep(exact), tiles)
    seen = exact.with_visibility(replace(exact.visibility, mask=watched))
    with inline():
        received, top = ask(seen, Received(), TopK(3))
    near = {(i, j) for i in range(10) for j in (i - 1, i) if j >= 0}
    assert set(tiles) == near | {(i, 0) for i in range(10)}
    dense = restricted(exact, pattern.keep(exact)).to_dense()
    torch.testing.assert_close(received, dense.sum(2))
    torch.testing.assert_close(top.values, dense.topk(3).values)
