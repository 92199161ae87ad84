"""What a projection computes with: plain weights, LoRA wrapped and merged, and what cannot be viewed."""

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import nn

import attlas
from attlas.projections import projections
from attlas.projections.views import LayerProjections
from attlas.projections.weights import weights_of_module
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
LAYER = {
    "Llama": ("model.layers.0.self_attn", ["q_proj", "v_proj", "o_proj"]),
    "GPT-2": ("transformer.h.0.attn", ["c_attn", "c_proj"]),
    "GPT-NeoX": ("gpt_neox.layers.0.attention", ["query_key_value", "dense"]),
    "BERT": ("encoder.layer.0.attention.self", ["query", "key"]),
}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def randomise(model: nn.Module) -> None:
    """Give adapters, which start as nothing, something to add."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "ia3_")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def adapted(family: str, **options: Any) -> Any:
    given: dict[str, Any] = {"r": 3, "lora_alpha": 7, "target_modules": LAYER[family][1], **options}
    model = peft.get_peft_model(BY_FAMILY[family].build(), peft.LoraConfig(**given)).eval()
    randomise(model)
    return model


def proved(model: nn.Module) -> LayerProjections:
    P = projections(model)
    assert max(P.verify().values()) <= 1e-6
    return P[0]


@pytest.mark.parametrize("family", LAYER)
def test_an_adapter_is_in_the_views_and_beside_them(family: str) -> None:
    model = adapted(family)
    view = proved(model)
    with model.disable_adapter():
        base = proved(model)
    assert base.adapters == {}
    roles = {"query", "key", "value", "output"} if family in ("GPT-2", "GPT-NeoX") else set(view.adapters)
    assert set(view.adapters) == roles
    for role in ("query", "key", "value", "output"):
        change = view[role] - base[role]
        if role not in roles:
            assert torch.equal(view[role], base[role])
            continue
        adapter = view.adapters[role]
        assert adapter.width == 3
        torch.testing.assert_close(adapter.left @ adapter.right, change, rtol=0, atol=1e-5)
        assert float(change.abs().max()) > 0.01
        assert role not in view.shared


@pytest.mark.parametrize("family", LAYER)
def test_a_merged_adapter_is_the_weight_itself(family: str) -> None:
    wrapped = proved(adapted(family))
    merging = adapted(family)
    merging.merge_adapter()
    for model in (merging, adapted(family).merge_and_unload()):
        view = proved(model)
        assert view.adapters == {}
        assert view.shared == {"query", "key", "value", "output"}
        torch.testing.assert_close(view.query, wrapped.query, rtol=0, atol=1e-6)


def test_several_adapters_are_one_of_their_ranks_together() -> None:
    model = adapted("Llama", lora_bias=True)
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["q_proj"]))
    randomise(model)
    model.base_model.set_adapter(["default", "second"])
    view = proved(model)
    assert view.adapters["query"].width == 5
    assert view.adapters["value"].width == 3
    assert view.query_bias is not None


def test_what_is_more_than_a_sum_is_refused_by_name() -> None:
    with pytest.raises(
        attlas.UnsupportedModelError, match=r"self_attn: q_proj: its adapter 'default' is more than a sum"
    ):
        projections(adapted("Llama", use_dora=True))
    config = peft.IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[])
    model = peft.get_peft_model(BY_FAMILY["Llama"].build(), config).eval()
    randomise(model)
    with pytest.raises(attlas.UnsupportedModelError, match=r"k_proj: its adapter \(Linear\) is not a LoRA"):
        projections(model)
    model.merge_adapter()
    proved(model)


class Packed(nn.Linear):
    """A stand-in for a quantised layer: its weight is kept as int8 with one scale."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        weight = linear.weight.detach()
        self.scale = float(weight.abs().max()) / 127
        self.weight = nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input @ (self.weight.to(input.dtype) * self.scale).T


def test_quantised_weights_are_refused_with_the_way_out() -> None:
    model: Any = BY_FAMILY["Llama"].build()
    for layer in model.model.layers:
        layer.self_attn.k_proj = Packed(layer.self_attn.k_proj)
    message = r"model.layers.0.self_attn, model.layers.1.self_attn: k_proj: its weight is quantised.*int8.*dequantise"
    with pytest.raises(attlas.UnsupportedModelError, match=message):
        projections(model)


def test_weights_that_are_not_numbers_or_not_here_are_refused() -> None:
    model: Any = BY_FAMILY["Llama"].build()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[3, 3] = float("nan")
    with pytest.raises(attlas.NonFiniteError, match=r"layers.1.self_attn.o_proj"):
        projections(model)
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[3, 3] = float("inf")
    with pytest.raises(attlas.NonFiniteError, match=r"layers.1.self_attn.q_proj"):
        projections(model)
    with pytest.raises(attlas.UnsupportedModelError, match="x: its weight is not in memory"):
        weights_of_module(nn.Linear(3, 4, device="meta"), "x")


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_parametrised_weight_is_what_it_computes(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model: Any = BY_FAMILY["Llama"].build()
    wrap(model.model.layers[0].self_attn.q_proj)
    assert "query" not in proved(model.eval()).shared
