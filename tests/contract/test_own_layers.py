"""Layers of attlas.nn are read as any others are: captured and proved, taken apart, scored, and ablated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attlas
from attlas.capture.interface import Scoring
from attlas.capture.patterned import rescored
from attlas.heads import head_statistics
from attlas.nn import Decoder, MultiHeadAttention
from attlas.patterns import (
    BigBird,
    BlockSparse,
    Dilated,
    Full,
    GlobalTokens,
    Linear,
    Pattern,
    SlidingWindow,
    VerticalSlash,
)

D, HEADS, N, VOCABULARY = 16, 4, 40, 30
PATTERNS: tuple[Pattern, ...] = (
    Full(),
    SlidingWindow(5),
    SlidingWindow(5, sinks=2),
    Dilated(3, step=2),
    GlobalTokens((0, 3), width=4),
    BlockSparse(4, local=2),
    BlockSparse(4, top=2),
    BigBird(4),
    VerticalSlash(vertical=4, slash=4, band=1),
)
# One layer that PyTorch's own kernel runs, and one that it does not know.
DECODERS: tuple[dict[str, Any], ...] = (
    {"position": "rotary", "kv_heads": 2},
    {"position": "alibi", "hidden": 0, "bias": False},
    {"position": "rotary", "patterns": [SlidingWindow(4, sinks=1), Full()], "dim": 6},
    {"patterns": BlockSparse(4, top=2)},
)


class Reader(nn.Module):
    """A module of somebody's own, with such a layer in it."""

    def __init__(self, **choices: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, D)
        self.attention = MultiHeadAttention(D, HEADS, **choices)
        self.out = nn.Linear(D, VOCABULARY)

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        states = self.embedding(ids)
        return self.out(states + self.attention(states, key_padding_mask=padding)[0])

    def matrix(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        found = self.attention(self.embedding(ids), key_padding_mask=padding, need_weights=True)[1]
        return found.to_dense()


def decoder(**choices: Any) -> Decoder:
    torch.manual_seed(0)
    return Decoder(VOCABULARY, D, HEADS, 2, **choices).eval()


def tokens(n: int = N) -> Tensor:
    return torch.randint(VOCABULARY, (2, n), generator=torch.Generator().manual_seed(3))


# ---- captured


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", ["alibi", "rotary"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@torch.no_grad()
def test_a_capture_keeps_the_matrix_that_the_layer_gives(
    pattern: Pattern, position: Any, causal: bool, tmp_path: Path
) -> None:
    model = Reader(kv_heads=2, position=position, causal=causal, pattern=pattern)
    with attlas.capture(model) as cap:
        output = model(tokens())
    assert torch.equal(output, model(tokens()))
    assert cap.names == ["attention"]
    assert max(cap.verify().values()) < 1e-5
    expected = model.matrix(tokens())
    torch.testing.assert_close(cap[0].to_dense(), expected)
    cap.save(tmp_path / "doc.attlas")
    torch.testing.assert_close(attlas.open_capture(tmp_path / "doc.attlas")[0].to_dense(), expected)
    with attlas.capture(model, heads=[3, 1]) as some:
        model(tokens())
    torch.testing.assert_close(some[0].to_dense(), expected[:, [3, 1]])


@pytest.mark.parametrize("pattern", [Full(), SlidingWindow(5, sinks=2)], ids=str)
@pytest.mark.parametrize("position", ["alibi", None])
@torch.no_grad()
def test_padding_is_kept_too(pattern: Pattern, position: Any) -> None:
    model = Reader(position=position, causal=True, pattern=pattern)
    padding = torch.arange(N) >= torch.tensor([[15], [N]])
    with attlas.capture(model) as cap:
        model(tokens(), padding)
    assert max(cap.verify().values()) < 1e-5
    torch.testing.assert_close(cap[0].to_dense(), model.matrix(tokens(), padding))


@pytest.mark.parametrize("pattern", [Full(), SlidingWindow(5)], ids=str)
@torch.no_grad()
def test_calls_that_continue_a_cache_become_one_matrix(pattern: Pattern) -> None:
    model = decoder(position="alibi", patterns=pattern)
    cache = model.new_cache()
    with attlas.capture(model) as cap:
        for begin, end in ((0, 30), (30, 31), (31, N)):
            model(tokens()[:, begin:end], cache=cache)
    expected = model.attention(tokens())
    for layer in (0, 1):
        torch.testing.assert_close(cap[layer].to_dense(), expected[layer].to_dense(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("pattern", [Linear("elu"), Linear("elu", window=4)], ids=str)
def test_what_is_no_softmax_is_named(pattern: Pattern) -> None:
    model = Reader(causal=True, pattern=pattern)
    message = "attention: it runs the pattern linear: .*, whose matrix is no softmax.*need_weights=True"
    with pytest.raises(attlas.UnsupportedModelError, match=message), attlas.capture(model):
        model(tokens())
    with pytest.raises(attlas.UnsupportedModelError, match=message):
        attlas.projections(model, inputs={"ids": tokens()})


# ---- taken apart


@pytest.mark.parametrize("choices", DECODERS, ids=str)
@torch.no_grad()
def test_projections_are_views_of_its_weights(choices: dict[str, Any]) -> None:
    model = decoder(**choices)
    found = attlas.projections(model)
    assert found.names == ["layers.0.attention", "layers.1.attention"]
    assert max(found.verify().values()) < 1e-5
    for number, layer in enumerate(model.layers):
        own: Any = layer.attention
        dim, group = own.dim, own.heads // own.kv_heads
        for head in range(HEADS):
            shared = head // group
            mine, theirs = slice(head * dim, (head + 1) * dim), slice(shared * dim, (shared + 1) * dim)
            query, key = own.q_proj.weight[mine].T, own.k_proj.weight[theirs].T
            value, output = own.v_proj.weight[theirs].T, own.o_proj.weight[:, mine].T
            torch.testing.assert_close(found[number, head].qk.to_dense(), query @ key.T)
            torch.testing.assert_close(found[number, head].ov.to_dense(), value @ output)
        assert found[number].query.data_ptr() == own.q_proj.weight.data_ptr()
        assert (found[number].rotation is not None) == (choices.get("position") == "rotary")
        norm = found[number].input_norm
        assert norm is not None
        assert norm.name == f"layers.{number}.norm"


def test_projections_of_a_module_of_ones_own() -> None:
    model = Reader(kv_heads=2, position="alibi", pattern=SlidingWindow(5))
    found = attlas.projections(model, inputs={"ids": tokens()})
    assert max(found.verify().values()) < 1e-5
    own = model.attention
    expected = own.q_proj.weight[4:8].T @ own.k_proj.weight[:4]
    torch.testing.assert_close(found[0, 1].qk.to_dense(), expected)


# ---- scored and ablated


@pytest.mark.parametrize("choices", DECODERS, ids=str)
@torch.no_grad()
def test_its_heads_have_statistics(choices: dict[str, Any]) -> None:
    model = decoder(**choices)
    with attlas.capture(model) as cap:
        model(tokens())
    found = head_statistics(cap)
    for layer, matrix in zip(found.layers, model.attention(tokens()), strict=True):
        dense = matrix.to_dense().double()
        entropy = torch.special.entr(dense[0]).sum(-1).mean(-1)
        torch.testing.assert_close(layer.values["entropy"].double(), entropy, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("choices", DECODERS, ids=str)
@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_a_head_is_ablated(choices: dict[str, Any], layer: int) -> None:
    model = decoder(**choices)
    without = decoder(**choices)
    own: Any = without.layers[layer].attention
    own.o_proj.weight[:, 2 * own.dim : 3 * own.dim] = 0
    with attlas.ablate(model, [(layer, 2)]):
        found = model(tokens())
    torch.testing.assert_close(found, without(tokens()))
    assert not torch.allclose(found, model(tokens()))


@pytest.mark.parametrize("choices", DECODERS, ids=str)
@torch.no_grad()
def test_an_ablation_that_keeps_patterns_changes_what_is_passed_on_alone(choices: dict[str, Any]) -> None:
    model = decoder(**choices)
    with attlas.capture(model) as plain:
        model(tokens())
    with attlas.ablate(model, [(0, 2)], kind="pattern"), attlas.capture(model) as kept:
        model(tokens())
    torch.testing.assert_close(kept[1].to_dense(), plain[1].to_dense(), atol=1e-5, rtol=1e-4)
    with attlas.ablate(model, [(0, 2)]), attlas.capture(model) as moved:
        model(tokens())
    assert not torch.allclose(moved[1].to_dense(), plain[1].to_dense(), atol=1e-3)


def test_a_change_of_rules_is_refused() -> None:
    class Hides:
        def given(self, scoring: Scoring) -> Scoring:
            return scoring._replace(mask=torch.ones(1, 1, N, N, dtype=torch.bool))

    q = torch.randn(2, HEADS, N, 4)
    exact = attlas.AttentionMatrix(q, q, causal=True)
    change: Any = Hides()
    with pytest.raises(attlas.UnsupportedModelError, match="its rules are a pattern's"):
        rescored(exact, q, [change])
