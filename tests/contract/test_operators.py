"""Every kind of attention matrix keeps the same contract, whatever hides or bends its scores."""

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix import ALiBi, RelativeBias, streaming
from attlas.matrix.reference import dense_attention
from attlas.testing import check_operator

N_QUERY, N_KEY = 21, 26
GENERATOR = torch.Generator().manual_seed(7)
QUERY = torch.randn(2, 6, N_QUERY, 16, generator=GENERATOR)
KEY = torch.randn(2, 2, N_KEY, 16, generator=GENERATOR)
SINKS = torch.randn(6, generator=GENERATOR)
TABLE = RelativeBias.from_buckets(torch.randn(32, 6, generator=GENERATOR), N_QUERY, N_KEY, bidirectional=True)
PADDING = torch.arange(N_KEY).view(1, 1, 1, -1) >= torch.tensor([0, 11]).view(2, 1, 1, 1)
DENSE_MASK = torch.rand(2, 6, N_QUERY, N_KEY, generator=GENERATOR) > 0.5
HOLLOW = DENSE_MASK.clone()
HOLLOW[0, 1, 5] = False
HOLLOW[1] = False

KINDS = {
    "full": {},
    "causal": {"causal": True},
    "causal window": {"causal": True, "window": 9},
    "window of one": {"causal": True, "window": 1},
    "symmetric window": {"window": 6},
    "padding": {"mask": PADDING, "causal": True},
    "dense mask": {"mask": DENSE_MASK},
    "rows that see nothing": {"mask": HOLLOW},
    "predicate": {"mask": lambda b, h, q, k: (q * 3 + k + h + b) % 4 != 0},
    "alibi": {"bias": ALiBi.for_heads(6), "causal": True},
    "relative bias": {"bias": TABLE},
    "additive mask": {"bias": torch.zeros(1, 1, N_QUERY, N_KEY).masked_fill(~DENSE_MASK[:1, :1], float("-inf"))},
    "lowest number as mask": {"bias": torch.zeros(2, 6, N_QUERY, N_KEY).masked_fill(~HOLLOW, torch.finfo().min)},
    "soft cap": {"softcap": 2.0, "causal": True},
    "sinks": {"sinks": SINKS, "causal": True},
    "sinks and hollow rows": {"sinks": SINKS, "mask": HOLLOW},
    "scale": {"scale": 0.7},
    "everything": {
        "sinks": SINKS,
        "softcap": 3.0,
        "bias": TABLE,
        "window": 20,
        "causal": True,
        "mask": PADDING,
        "scale": 0.5,
    },
}


@pytest.fixture(params=[8, 512], ids=["many tiles on threads", "one tile"])
def _tile(request, monkeypatch):
    monkeypatch.setattr(streaming, "TILE", request.param)
    if request.param == 8:
        request.getfixturevalue("_two_threads")


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("kind", KINDS)
def test_exact_matrix(kind):
    arguments = KINDS[kind]
    exact = dense_attention(QUERY, KEY, **arguments)
    plain = dense_attention(QUERY, KEY, **arguments, dtype=torch.float32)
    check_operator(AttentionMatrix(QUERY, KEY, **arguments), exact, plain)


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("kind", ["causal window", "everything"])
def test_transpose(kind):
    arguments = KINDS[kind]
    exact = dense_attention(QUERY, KEY, **arguments).mT
    plain = dense_attention(QUERY, KEY, **arguments, dtype=torch.float32).mT
    check_operator(AttentionMatrix(QUERY, KEY, **arguments).T, exact, plain)


@pytest.mark.parametrize("kind", ["causal", "rows that see nothing", "sinks and hollow rows", "lowest number as mask"])
def test_valid_rows(kind):
    matrix = AttentionMatrix(QUERY, KEY, **KINDS[kind])
    sees = dense_attention(QUERY, KEY, **KINDS[kind]).sum(-1) > 0
    assert torch.equal(matrix.valid_rows, sees)
    assert bool((matrix.to_dense()[~sees] == 0).all())


@pytest.mark.parametrize("kind", ["causal", "everything", "alibi"])
def test_known_lse_gives_the_same_matrix(kind):
    first = AttentionMatrix(QUERY, KEY, **KINDS[kind])
    second = AttentionMatrix(QUERY, KEY, **KINDS[kind]).with_lse(first.lse)
    torch.testing.assert_close(second.to_dense(), first.to_dense(), rtol=1e-6, atol=1e-7)
