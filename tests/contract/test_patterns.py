"""Every pattern that keeps keys gives a matrix that keeps the contract of all attention matrices."""

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix import ALiBi, AttentionGradient, HeadMean, Product, WithIdentity, streaming
from attlas.testing import check_operator
from keeping import EVERY, truth

GENERATOR = torch.Generator().manual_seed(7)
QUERY = torch.randn(2, 4, 37, 16, generator=GENERATOR)
KEY = torch.randn(2, 2, 45, 16, generator=GENERATOR)
PADDING = torch.arange(45).view(1, 1, 1, -1) >= torch.tensor([0, 11]).view(2, 1, 1, 1)
RULES = {
    "causal": {"causal": True},
    "both ways": {},
    "everything": {
        "causal": True,
        "window": 20,
        "mask": PADDING,
        "bias": ALiBi.for_heads(4),
        "softcap": 3.0,
        "sinks": torch.randn(4, generator=GENERATOR),
    },
}


@pytest.fixture(autouse=True)
def _many_tiles(monkeypatch):
    monkeypatch.setattr(streaming, "TILE", 16)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", EVERY)
def test_contract(name, rules):
    pattern, given = EVERY[name], RULES[rules]
    exact, plain = (truth(pattern, QUERY, KEY, given, dtype) for dtype in (torch.float64, torch.float32))
    check_operator(pattern.matrix(AttentionMatrix(QUERY, KEY, **given)), exact, plain)


@pytest.mark.parametrize("name", ["window and sinks", "top blocks", "vertical and slash"])
def test_transposed(name):
    pattern, given = EVERY[name], RULES["causal"]
    exact, plain = (truth(pattern, QUERY, KEY, given, dtype).mT for dtype in (torch.float64, torch.float32))
    check_operator(pattern.matrix(AttentionMatrix(QUERY, KEY, **given)).T, exact, plain)


@pytest.mark.parametrize("name", EVERY)
def test_heads_that_were_narrowed_first(name):
    pattern, given = EVERY[name], RULES["causal"]
    heads = torch.tensor([3, 1])
    narrow = AttentionMatrix(QUERY, KEY, **given)[1, heads.tolist()]
    exact, plain = (
        truth(pattern, QUERY[1:, heads], KEY[1:, heads // 2], given, dtype) for dtype in (torch.float64, torch.float32)
    )
    check_operator(pattern.matrix(narrow), exact, plain)  # pyright: ignore[reportArgumentType] - an index of heads narrows


@pytest.mark.parametrize("name", ["window and sinks", "named blocks", "vertical and slash"])
def test_matrices_made_of_it(name):
    given = RULES["causal"]
    exact, plain = (truth(EVERY[name], QUERY, KEY, given, dtype) for dtype in (torch.float64, torch.float32))
    matrix = EVERY[name].matrix(AttentionMatrix(QUERY, KEY, **given))
    assert isinstance(matrix, AttentionMatrix)
    value = torch.randn(2, 2, 45, 8, generator=GENERATOR)
    arrived = torch.randn(2, 4, 37, 8, generator=GENERATOR)
    gradient = AttentionGradient(matrix, arrived, value)
    wide = value.repeat_interleave(2, dim=1)
    slopes = [(arrived.to(d) @ wide.to(d).mT) * (exact > 0) for d in (torch.float64, torch.float32)]
    check_operator(gradient, slopes[0], slopes[1])
    check_operator(Product(matrix, gradient), exact * slopes[0], plain * slopes[1])
    identity = torch.eye(45, dtype=torch.float64)[8:]
    check_operator(WithIdentity(matrix), 0.5 * (exact + identity), 0.5 * (plain + identity.float()))
    check_operator(HeadMean(matrix), exact.mean(1, keepdim=True), plain.mean(1, keepdim=True))
