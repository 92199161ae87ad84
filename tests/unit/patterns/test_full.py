"""Exact attention runs fused wherever PyTorch's kernel says the same as the matrix, and is exact everywhere."""

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix.reference import dense_attention
from attlas.patterns import Full, fused
from attlas.testing import assert_as_exact_as, no_dense

N = 60
GENERATOR = torch.Generator().manual_seed(3)
PADDED = torch.arange(N).view(1, 1, 1, -1)
FUSED = {
    "causal": {"causal": True},
    "both ways": {},
    "left padding": {"causal": True, "mask": PADDED >= torch.tensor([0, 50]).view(2, 1, 1, 1)},
    "right padding": {"causal": True, "mask": torch.tensor([60, 5]).view(2, 1, 1, 1) > PADDED},
    "nothing but padding": {"causal": True, "mask": PADDED >= torch.tensor([0, 60]).view(2, 1, 1, 1)},
    "padding, both ways": {"mask": PADDED % 3 != 0},
    "sinks": {"causal": True, "sinks": torch.tensor([0.5, -2.0, 3.0, 0.0])},
    "sinks and padding": {"sinks": torch.tensor([0.5, -2.0, 3.0, 0.0]), "mask": PADDED >= 55, "causal": True},
}
STREAMED = {
    "soft cap": {"causal": True, "softcap": 3.0},
    "bias": {"bias": torch.randn(1, 4, 1, N, generator=GENERATOR)},
    "mask of pairs": {"mask": lambda b, h, q, k: (q + k + h) % 3 != 0},
    "everything": {"causal": True, "softcap": 3.0, "sinks": torch.zeros(4), "mask": PADDED > 9, "window": 20},
}


def tensors(n_query, width=8):
    return (
        torch.randn(2, count, length, dim, generator=GENERATOR)
        for count, length, dim in ((4, n_query, 8), (2, N, 8), (2, N, width))
    )


@pytest.mark.parametrize("n_query", [N, 1, 7, 59])
@pytest.mark.parametrize("rules", {**FUSED, **STREAMED})
def test_exact(rules, n_query):
    given = {**FUSED, **STREAMED}[rules]
    for width in (8, 3, 21):
        query, key, value = tensors(n_query, width)
        exact, plain = (dense_attention(query, key, **given, dtype=dtype) for dtype in (torch.float64, torch.float32))
        wide = value.repeat_interleave(2, dim=1)
        got = Full().attend(AttentionMatrix(query, key, **given), value)
        assert_as_exact_as(got, plain @ wide, exact @ wide.double(), what=rules)


@pytest.fixture
def kernel_calls(monkeypatch):
    calls = []
    kernel = fused._kernel

    def counted(*arguments, **named):
        calls.append(arguments[0].shape)
        return kernel(*arguments, **named)

    monkeypatch.setattr(fused, "_kernel", counted)
    return calls


@pytest.mark.parametrize("n_query", [N, 1, 7])
@pytest.mark.parametrize("rules", FUSED)
def test_what_the_kernel_can_say_it_says(rules, n_query, kernel_calls):
    query, key, value = tensors(n_query)
    Full().attend(AttentionMatrix(query, key, **FUSED[rules]), value)
    two = FUSED[rules].get("causal") and n_query not in (1, N)
    assert len(kernel_calls) == (2 if two else 1)


@pytest.mark.parametrize("rules", [name for name in FUSED if not name.startswith("sinks")])
def test_recorded_calls_are_fused_too(rules, kernel_calls):
    query, key, value = (tensor.requires_grad_() for tensor in tensors(N))
    out = Full().attend(AttentionMatrix(query, key, **FUSED[rules]), value)
    assert len(kernel_calls) == 1
    dense = dense_attention(query, key, **FUSED[rules]) @ value.repeat_interleave(2, dim=1).double()
    weight = torch.randn(out.shape, generator=GENERATOR)
    got = torch.autograd.grad((out * weight).sum(), (query, key, value))
    wanted = torch.autograd.grad((dense * weight).sum(), (query, key, value))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rules", ["window", "soft cap", "sinks and padding", "queries at the end"])
def test_nothing_is_dense(rules):
    n = 1500
    n_query = 300 if rules == "queries at the end" else n
    given = {
        "window": {"window": 50},
        "soft cap": {"softcap": 3.0},
        "sinks and padding": {"sinks": torch.zeros(2), "mask": torch.arange(n).view(1, 1, 1, -1) > 7},
        "queries at the end": {},
    }[rules]
    query, key, value = (torch.randn(1, h, length, 8) for h, length in ((2, n_query), (1, n), (1, n)))
    with no_dense(n_query * n):
        out = Full().attend(AttentionMatrix(query, key, causal=True, **given), value)
    assert out.shape == (1, 2, n_query, 8)
