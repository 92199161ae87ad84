"""Nothing under a question, a product or its gradient is as large as the matrix; `to_dense` is, and says so."""

import pytest
import torch

from attlas import AttentionMatrix, TooDense
from attlas.matrix import ALiBi, Distance, Entropy, Mass, Pool, Received, TopK, ask
from attlas.testing import DenseAllocationError, no_dense

N = 1500
QUERY = torch.randn(1, 4, N, 16)
KEY = torch.randn(1, 2, N, 16)
RULES = {
    "causal": {"causal": True},
    "window": {"causal": True, "window": 100},
    "padding": {"mask": (torch.arange(N) > 40).view(1, 1, 1, N)},
    "predicate": {"mask": lambda b, h, q, k: (q + k) % 2 == 0},
    "alibi": {"bias": ALiBi.for_heads(4)},
    "soft cap and sinks": {"softcap": 5.0, "sinks": torch.zeros(4)},
}


@pytest.mark.parametrize("rule", RULES)
def test_questions_stay_lazy(rule):
    matrix = AttentionMatrix(QUERY, KEY, **RULES[rule])
    with no_dense(N * N):
        answers = ask(matrix, Received(), Entropy(), Distance(), Mass(64, 4), Pool((50, 50)), TopK(8))
        matrix.compare(matrix.T.T)
        matrix[0, 1, 700:800, :]
    assert len(answers) == 6


@pytest.mark.parametrize("rule", RULES)
def test_products_and_gradients_stay_lazy(rule):
    query = QUERY.clone().requires_grad_()
    v = torch.randn(1, 4, N, 24, requires_grad=True)
    with no_dense(N * N):
        matrix = AttentionMatrix(query, KEY, **RULES[rule])
        ((matrix @ v).sum() + (matrix.T @ v).square().sum()).backward()
    assert query.grad is not None
    assert v.grad is not None


def test_guard_catches_the_dense_way():
    with pytest.raises(DenseAllocationError, match=r"2,250,000|9,000,000"), no_dense(N * N):
        torch.softmax(QUERY @ KEY.repeat_interleave(2, 1).mT, -1)


def test_to_dense_refuses_above_the_limit_before_allocating():
    matrix = AttentionMatrix(QUERY, KEY)
    with (
        no_dense(N * N),
        pytest.raises(TooDense, match=r"limit: wanted at most 1,000 .* got 9,000,000 .*pass limit=9000000"),
    ):
        matrix.to_dense(limit=1000)
    assert matrix.to_dense().shape == matrix.shape


def test_large_tiles_are_refused_too(monkeypatch):
    monkeypatch.setattr("attlas.matrix.indexing.DENSE_LIMIT", 1000)
    with pytest.raises(TooDense, match="ask for fewer rows or columns"):
        AttentionMatrix(QUERY, KEY)[0, 0, :, :]


def test_nbytes_counts_what_is_held():
    matrix = AttentionMatrix(QUERY, KEY)
    held = 4 * (QUERY.numel() + KEY.numel())
    assert matrix.nbytes == held
    _ = matrix.lse
    assert matrix.nbytes == held + 4 * N * (4 + 4 + 1)
    assert "held" in repr(matrix)
    assert "dense" in repr(matrix)


def test_expanded_masks_stay_small():
    padding = (torch.arange(N) > 40).view(1, 1, 1, N).expand(1, 4, N, N)
    matrix = AttentionMatrix(QUERY, KEY, mask=padding)
    assert isinstance(matrix.visibility.mask, torch.Tensor)
    assert matrix.visibility.mask.shape == (1, 1, 1, N)
    with no_dense(N * N):
        matrix.received()
