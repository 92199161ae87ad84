"""Attention outside of transformers' interface: PyTorch's own functions, in any module."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import attlas


class Plain(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        return scaled_dot_product_attention(query, key, value, **options)


def tensors(*shape: int, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "boolean mask": {"attn_mask": torch.ones(7, 7, dtype=torch.bool).tril(2)},
    "mask of numbers": {"attn_mask": torch.linspace(-3, 3, 49).view(7, 7)},
    "positional mask": {"attn_mask": torch.full((7, 7), -torch.inf).triu(1)},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(7, 8), (3, 7, 8), (2, 4, 7, 8), (2, 3, 4, 7, 8)])
def test_plain_calls_of_every_rank(shape: tuple[int, ...], options: str) -> None:
    query, key, value = tensors(*shape)
    model = Plain()
    plain = model(query, key, value, **OPTIONS[options])
    with attlas.capture(model, values=True, output=True) as cap:
        assert torch.equal(model(query, key, value, **OPTIONS[options]), plain)
    torch.testing.assert_close((cap[0] @ cap.values(0)).view(shape), plain)
    assert cap.verify(None)[0] < 1e-5


def test_a_mask_for_every_head_and_batch_element() -> None:
    query, key, value = tensors(2, 3, 4, 7, 8)
    mask = torch.rand(2, 3, 4, 7, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    model = Plain()
    with attlas.capture(model, values=True) as cap:
        out = model(query, key, value, attn_mask=mask)
    torch.testing.assert_close((cap[0] @ cap.values(0)).view_as(out), out)


def test_another_module_is_not_heard() -> None:
    query, key, value = tensors(2, 4, 7, 8)
    with pytest.raises(attlas.CaptureError, match="got none"), attlas.capture(Plain()):
        Plain()(query, key, value)


@pytest.mark.parametrize(("n_query", "n_key"), [(7, 12), (12, 7), (1, 7)])
def test_is_causal_means_the_first_query_at_the_first_key(n_query: int, n_key: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, n_query, 8, generator=generator)
    key, value = (torch.randn(2, 2, n_key, 8, generator=generator) for _ in range(2))
    model = Plain()
    with attlas.capture(model, values=True) as cap:
        out = model(query, key, value, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(cap[0] @ cap.values(0).repeat_interleave(2, 1), out)
    assert cap[0].shape[3] == min(n_query, n_key) if n_key > n_query else n_key


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("masks", ["none", "attn_mask", "key_padding_mask", "both", "one a head", "of numbers"])
@pytest.mark.parametrize("extra", ["", "add_bias_kv", "add_zero_attn"])
def test_multi_head_attention(masks: str, separate: bool, batch_first: bool, need_weights: bool, extra: str) -> None:
    torch.manual_seed(0)
    widths = {"kdim": 24, "vdim": 20} if separate else {}
    more = {extra: True} if extra else {}
    model = nn.MultiheadAttention(32, 4, batch_first=batch_first, **widths, **more).eval()
    nn.init.normal_(model.in_proj_bias)
    nn.init.normal_(model.out_proj.bias)
    query = torch.randn(2, 9, 32)
    key = torch.randn(2, 11, widths.get("kdim", 32))
    value = torch.randn(2, 11, 20) if separate else key
    options: dict[str, Any] = {"need_weights": need_weights, "average_attn_weights": False}
    if masks in ("attn_mask", "both"):
        options["attn_mask"] = torch.ones(9, 11, dtype=torch.bool).triu(2)
    if masks in ("key_padding_mask", "both"):
        options["key_padding_mask"] = torch.arange(11)[None] >= torch.tensor([[7], [11]])
    if masks == "one a head":
        options["attn_mask"] = torch.rand(8, 9, 11) > 0.7
    if masks == "of numbers":
        options["attn_mask"] = torch.randn(9, 11)
    if not batch_first:
        query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
    with torch.no_grad():
        plain, weights = model(query, key, value, **options)
        with attlas.capture(model) as cap:
            under, _ = model(query, key, value, **options)
    assert torch.equal(under, plain)
    assert cap.verify(None)[0] < 1e-5
    if need_weights:
        torch.testing.assert_close(cap[0].to_dense(), weights)


def test_a_wrong_matrix_of_summed_heads_shows() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x = torch.randn(2, 9, 32)
    with torch.no_grad(), attlas.capture(model) as cap:
        model(x, x, x)
    [layer] = cap.stored_layers()[0]
    layer.key[0, 1, 3] += 2
    assert cap.verify(None)[0] > 1e-2


def test_chosen_heads_of_multi_head_attention_cannot_be_proved_and_are_refused() -> None:
    model = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x = torch.randn(2, 9, 32)
    with pytest.raises(attlas.UnsupportedModelError, match="capture all of them"), attlas.capture(model, heads=[0]):
        model(x, x, x)


def test_a_transformer_encoder_without_its_fast_path() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    x = torch.randn(2, 9, 32)
    with torch.no_grad():
        plain = model(x)
        with attlas.capture(model) as cap:
            under = model(x)
    assert cap.names == ["layers.0.self_attn", "layers.1.self_attn"]
    torch.testing.assert_close(under, plain, rtol=0, atol=1e-5)
    assert max(cap.verify(None).values()) < 1e-5


def test_dropout_is_refused() -> None:
    model, (query, key, value) = Plain(), tensors(2, 4, 7, 8)
    with pytest.raises(attlas.UnsupportedModelError, match="at random"), attlas.capture(model):
        model(query, key, value, dropout_p=0.1)
    trained = nn.MultiheadAttention(32, 4, dropout=0.1, batch_first=True).train()
    x = torch.randn(2, 9, 32)
    with pytest.raises(attlas.UnsupportedModelError, match="at random"), attlas.capture(trained):
        trained(x, x, x)
