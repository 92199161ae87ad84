"""The trainable layer: the same as PyTorch's own where arguments coincide, and a dense reference for all else."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

import attlas
from attlas.matrix.bias import ALiBi
from attlas.nn import KeyValueCache, MultiHeadAttention
from attlas.nn.rotary import rotated
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
from attlas.patterns.keep_set import KeepSet

D, HEADS, N = 24, 4, 21
PATTERNS: tuple[Pattern, ...] = (
    Full(),
    SlidingWindow(5, sinks=2),
    Dilated(3, step=2),
    GlobalTokens((0, 3), width=4),
    BlockSparse(4, local=2),
    BlockSparse(4, top=2),
    BigBird(4),
    VerticalSlash(vertical=4, slash=4, band=1),
    Linear("elu"),
    Linear("elu", window=4),
)


def _chooses_together(pattern: Pattern) -> bool:
    """Tell whether rows are answered together, so that one row alone is another question."""
    return isinstance(pattern, KeepSet) and pattern.chooses


def seeded(seed: int = 0, **choices: Any) -> MultiHeadAttention:
    torch.manual_seed(seed)
    return MultiHeadAttention(D, HEADS, **choices).double()


def states(batch: int = 2, n: int = N, seed: int = 1) -> Tensor:
    return torch.randn(batch, n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(layer: MultiHeadAttention, x: Tensor, asked: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
    """Return what the layer should give with full attention, from the formulas; `hidden` is True where."""
    asked = x if asked is None else asked
    q = layer.q_proj(x).unflatten(2, (layer.heads, -1)).transpose(1, 2)
    k, v = (p(asked).unflatten(2, (layer.kv_heads, -1)).transpose(1, 2) for p in (layer.k_proj, layer.v_proj))
    if layer.position == "rotary":
        q, k = turned(q, layer.rotary_base), turned(k, layer.rotary_base)
    k, v = (t.repeat_interleave(layer.heads // layer.kv_heads, 1) for t in (k, v))
    scores = q @ k.mT / math.sqrt(layer.dim)
    gap = torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])
    if layer.position == "alibi":
        scores = scores - ALiBi.for_heads(layer.heads).slopes.double().view(-1, 1, 1) * gap.abs()
    if layer.causal:
        scores = scores.masked_fill(gap < 0, -math.inf)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -math.inf)
    return layer.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def turned(x: Tensor, base: float) -> Tensor:
    """Turn pairs of numbers as complex numbers are turned."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * base ** -(torch.arange(half, dtype=x.dtype) / half)
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([pairs.real, pairs.imag], -1)


def gradients(output: Tensor, module: nn.Module, x: Tensor) -> list[Tensor]:
    wanted = [x, *module.parameters()]
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(5), dtype=output.dtype)
    return list(torch.autograd.grad((output * direction).sum(), wanted))


# ---- the same as PyTorch's own


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"attn_mask": torch.ones(N, N, dtype=torch.bool).triu(1)},
        {"attn_mask": torch.zeros(N, N, dtype=torch.float64).masked_fill(torch.ones(N, N).triu(1) > 0, -math.inf)},
        {"attn_mask": torch.ones(N, N, dtype=torch.bool).triu(1), "is_causal": True},
        {"key_padding_mask": torch.arange(N) >= torch.tensor([[15], [N]])},
        {
            "key_padding_mask": torch.arange(N) >= torch.tensor([[15], [N]]),
            "attn_mask": torch.ones(N, N, dtype=torch.bool).triu(1),
        },
        {"attn_mask": torch.rand(2 * HEADS, N, N, generator=torch.Generator().manual_seed(2)) < 0.4},
        {"attn_mask": torch.randn(N, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)},
    ],
    ids=["none", "causal", "causal numbers", "is_causal", "padding", "padding and causal", "by head", "numbers"],
)
def test_it_gives_what_pytorchs_own_gives_and_its_gradients(bias: bool, masks: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(D, HEADS, bias=bias, batch_first=True, dtype=torch.float64)
    ours = MultiHeadAttention.from_torch(theirs)
    assert ours.training == theirs.training
    x = states().requires_grad_()
    expected, _ = theirs(x, x, x, need_weights=False, **masks)
    found, none = ours(x, x, x, **masks)
    assert none is None
    torch.testing.assert_close(found, expected)
    of_theirs, of_ours = gradients(expected, theirs, x), gradients(found, ours, x)
    torch.testing.assert_close(of_ours[0], of_theirs[0])
    # W_Q, W_K and W_V are one parameter there.
    names = {name: grad for (name, _), grad in zip(ours.named_parameters(), of_ours[1:], strict=True)}
    for name, grad in zip([name for name, _ in theirs.named_parameters()], of_theirs[1:], strict=True):
        kind = name.rsplit("_", 1)[-1] if "in_proj" in name else name.rsplit(".", 1)[-1]
        parts = ("q_proj", "k_proj", "v_proj") if "in_proj" in name else ("o_proj",)
        torch.testing.assert_close(torch.cat([names[f"{part}.{kind}"] for part in parts]), grad)


def test_other_texts_are_asked_as_pytorchs_own_asks_them() -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(D, HEADS, batch_first=True, dtype=torch.float64)
    ours = MultiHeadAttention.from_torch(theirs)
    x, key, value = states(), states(n=13, seed=2), states(n=13, seed=3)
    torch.testing.assert_close(ours(x, key, value)[0], theirs(x, key, value, need_weights=False)[0])
    torch.testing.assert_close(ours(x[0], key[0], value[0])[0], theirs(x[0], key[0], value[0], need_weights=False)[0])
    padding = torch.arange(13) > 8
    torch.testing.assert_close(
        ours(x[0], key[0], value[0], padding)[0], theirs(x[0], key[0], value[0], padding, need_weights=False)[0]
    )


def test_it_stands_in_for_it_inside_of_pytorchs_own_encoder() -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(D, HEADS, 32, dropout=0.0, batch_first=True, dtype=torch.float64)
    ours: Any = copy.deepcopy(theirs)
    ours.self_attn = MultiHeadAttention.from_torch(theirs.self_attn)
    mask = nn.Transformer.generate_square_subsequent_mask(N, dtype=torch.float64)
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        torch.testing.assert_close(ours(states()), theirs(states()))
        torch.testing.assert_close(ours(states(), mask, is_causal=True), theirs(states(), mask, is_causal=True))


def test_weights_are_kept_and_loaded() -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(D, HEADS, 32, dropout=0.0, batch_first=True, dtype=torch.float64)
    ours = nn.ModuleDict({"self_attn": seeded(3)})
    own = {name: value for name, value in theirs.state_dict().items() if name.startswith("self_attn")}
    assert ours.load_state_dict(own) == nn.modules.module._IncompatibleKeys([], [])
    torch.testing.assert_close(
        ours["self_attn"](states())[0], MultiHeadAttention.from_torch(theirs.self_attn)(states())[0]
    )
    again = seeded(4)
    again.load_state_dict(ours["self_attn"].state_dict())
    assert torch.equal(again(states())[0], ours["self_attn"](states())[0])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"batch_first": False}, "batch_first=True"),
        ({"kdim": 8, "vdim": 8}, "kdim and vdim"),
        ({"add_bias_kv": True}, "no bias_k"),
        ({"add_zero_attn": True}, "add_zero_attn=False"),
    ],
)
def test_what_it_has_not_is_named(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(attlas.ArgumentError, match=wanted):
        MultiHeadAttention.from_torch(nn.MultiheadAttention(D, HEADS, **{"batch_first": True, **options}))


# ---- what it can beside


@pytest.mark.parametrize("position", [None, "rotary", "alibi"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_full_attention_is_the_formula(position: Any, causal: bool, kv_heads: int) -> None:
    layer = seeded(kv_heads=kv_heads, dim=6, position=position, causal=causal)
    x = states().requires_grad_()
    expected, found = dense(layer, x), layer(x)[0]
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(gradients(found, layer, x), gradients(expected, layer, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("position", [None, "rotary", "alibi"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_the_formula(position: Any, causal: bool) -> None:
    layer = seeded(position=position, causal=causal)
    padding = torch.arange(N) >= torch.tensor([[15], [N]])
    found, expected = layer(states(), key_padding_mask=padding)[0], dense(layer, states(), None, padding[:, None, None])
    torch.testing.assert_close(found, expected)


def test_a_query_that_sees_nothing_is_given_nothing() -> None:
    layer = seeded(causal=True)
    padding = torch.arange(N) < torch.tensor([[4], [0]])
    found = layer(states(), key_padding_mask=padding)[0]
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found[0, :4], layer.o_proj.bias.expand(4, -1))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_a_pattern_gives_what_its_matrix_stands_for(pattern: Pattern, causal: bool) -> None:
    layer = seeded(kv_heads=2, causal=causal, pattern=pattern, position="rotary")
    x = states().requires_grad_()
    found, attention = layer(x, need_weights=True)
    assert attention is not None
    assert attention.shape == (2, HEADS, N, N)
    value = layer.v_proj(x).unflatten(2, (2, -1)).transpose(1, 2).repeat_interleave(2, 1)
    expected = layer.o_proj((attention.to_dense() @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, expected)
    assert all(bool(grad.isfinite().all()) for grad in gradients(found, layer, x))
    # Asking for matrices changes nothing.
    assert torch.equal(found, layer(x)[0])


def test_a_wide_window_is_full_attention_and_trains_alike() -> None:
    full, wide = seeded(causal=True), seeded(causal=True, pattern=SlidingWindow(N))
    x = states().requires_grad_()
    for ours, theirs in zip(gradients(wide(x)[0], wide, x), gradients(full(x)[0], full, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("pattern", [one for one in PATTERNS if not _chooses_together(one)], ids=str)
def test_text_is_read_token_by_token(pattern: Pattern) -> None:
    for position in (None, "rotary", "alibi"):
        if position == "alibi" and isinstance(pattern, Linear):
            continue
        layer = seeded(kv_heads=2, causal=True, pattern=pattern, position=position)
        whole, cache = layer(states())[0], KeyValueCache()
        with torch.no_grad():
            parts = [layer(states()[:, begin:end], cache=cache)[0] for begin, end in ((0, 7), (7, 8), (8, 9), (9, N))]
        assert cache.length == N
        torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_dropout_drops_in_training_alone() -> None:
    layer, plain = seeded(dropout=0.5, causal=True), seeded(causal=True)
    torch.testing.assert_close(layer.eval()(states())[0], plain(states())[0])
    layer.train()
    torch.manual_seed(1)
    first = layer(states())[0]
    assert not torch.allclose(first, layer(states())[0])
    torch.manual_seed(1)
    assert torch.equal(first, layer(states())[0])
    # With padding, which takes a mask of its own, too: what is hidden stays hidden.
    padding = torch.arange(N) >= torch.tensor([[15], [N]])
    changed = states().clone()
    changed[0, 15:] += 1
    torch.manual_seed(1)
    one = layer(states(), key_padding_mask=padding)[0]
    torch.manual_seed(1)
    other = layer(changed, key_padding_mask=padding)[0]
    torch.testing.assert_close(one[0, :15], other[0, :15])


# ---- at home in PyTorch


@pytest.mark.parametrize("position", [None, "rotary"])
def test_it_compiles_whole(position: Any) -> None:
    layer = seeded(causal=True, position=position).float()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = states().float()
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])


# PyTorch hides this warning of its own, unless all warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_pattern_compiles_in_parts() -> None:
    layer = seeded(causal=True, pattern=SlidingWindow(5, sinks=1)).float()
    compiled = torch.compile(layer, backend="aot_eager")
    torch.testing.assert_close(compiled(states().float())[0], layer(states().float())[0])


@pytest.mark.parametrize("pattern", [Full(), SlidingWindow(5, sinks=2), Linear("elu")], ids=str)
def test_autocast_computes_in_few_digits(pattern: Pattern) -> None:
    layer = seeded(causal=True, pattern=pattern, position="rotary").float()
    exact = layer(states().float())[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(states().float())[0]
    assert found.dtype == torch.bfloat16
    assert float((found.float() - exact).detach().norm() / exact.detach().norm()) < 0.03
    found.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


def test_full_attention_is_exported() -> None:
    layer = seeded(causal=True, position="rotary", kv_heads=2).float().eval()
    x = states().float()
    exported = torch.export.export(layer, (x,), dynamic_shapes=({1: torch.export.Dim("n", min=2)},), strict=False)
    torch.testing.assert_close(exported.module()(x[:, :9])[0], layer(x[:, :9])[0])


def test_a_capture_hears_it() -> None:
    layer = seeded(kv_heads=2, causal=True, position="rotary").float()
    with attlas.capture(layer) as cap:
        _, attention = layer(states().float(), need_weights=True)
    assert attention is not None
    assert max(cap.verify().values()) < 1e-5
    torch.testing.assert_close(cap[0].to_dense(), attention.to_dense(), atol=1e-6, rtol=1e-4)


# ---- what makes no sense


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"heads": 0}, "heads: wanted a whole number from 1"),
        ({"heads": True}, "heads: wanted a whole number from 1"),
        ({"heads": 5}, "heads: wanted a divisor of d_model = 24, got 5; or give dim"),
        ({"kv_heads": 3}, "kv_heads: wanted a divisor of heads = 4, got 3"),
        ({"dim": 7, "position": "rotary"}, "dim: wanted an even width"),
        ({"position": "learned"}, 'position: wanted "rotary", "alibi" or None'),
        ({"rotary_base": 0.0}, "rotary_base: wanted a number above 0"),
        ({"dropout": 1.0}, "dropout: wanted a share from 0, below 1"),
        ({"dropout": 0.1, "pattern": SlidingWindow(8)}, "dropout: wanted 0 with sliding window"),
        ({"dropout": 0.1, "position": "alibi"}, "dropout: wanted 0 with linear biases"),
        ({"pattern": SlidingWindow}, "pattern: wanted a pattern of attlas.patterns, made"),
    ],
)
def test_choices_that_make_no_sense(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(attlas.ArgumentError, match=message):
        MultiHeadAttention(D, **{"heads": HEADS, **choices})


def test_inputs_that_make_no_sense() -> None:
    layer, x = seeded(), states()
    small = torch.ones(3, 3, dtype=torch.bool)
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((x[..., :5],), {}, r"query: wanted \(batch, n, 24\)"),
        ((x, x[:1]), {}, "key, value: wanted one value a key"),
        ((x,), {"key_padding_mask": small[:2]}, r"key_padding_mask: wanted shape \(2, 21\)"),
        (
            (x,),
            {"attn_mask": small},
            r"attn_mask: wanted shape \(21, 21\) or \(8, 21, 21\)",
        ),
        ((x, states(seed=2)), {"cache": KeyValueCache()}, "cache: wanted self-attention"),
        ((x,), {"cache": KeyValueCache()}, "cache: wanted tokens without gradients"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(attlas.ArgumentError, match=message):
            layer(*arguments, **options)
    alibi = seeded(position="alibi")
    with pytest.raises(attlas.ArgumentError, match="wanted booleans beside linear biases"):
        alibi(x, attn_mask=torch.zeros(N, N, dtype=torch.float64))


def test_a_cache_is_of_one_text() -> None:
    layer, cache = seeded(causal=True), KeyValueCache()
    with torch.no_grad():
        layer(states(), cache=cache)
        with pytest.raises(
            attlas.ArgumentError, match="cache: wanted more of what it holds: 2 texts, 4 heads of width 6"
        ):
            layer(states(batch=1), cache=cache)
        assert cache.length == N
        layer(states(), cache=cache)
    assert cache.length == 2 * N


def test_rotary_products_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 8, dtype=torch.float64).expand(2, 40, 8)
    scores = rotated(q) @ rotated(k).mT
    for offset in (-3, 0, 7):
        line = scores.diagonal(offset)
        torch.testing.assert_close(line, line[:1].expand_as(line))
    later = rotated(q, 1000) @ rotated(k, 1000).mT
    torch.testing.assert_close(later, scores)
    assert rotated(q.bfloat16(), 30_000).dtype == torch.bfloat16


def test_the_kernel_is_the_fused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: asked.append(a[3:]) or fused(*a, **k))
    layer = seeded(causal=True)
    layer(states())
    assert asked == [(None, 0.0, True)]
