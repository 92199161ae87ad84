"""The parts of a layer are found in any module that attends: transformers', torch's own, and people's."""

from typing import Any

import pytest
import torch
from torch import nn

from attending import Attention
from attlas.projections import projections
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def test_any_module_that_attends_can_be_viewed() -> None:
    module = Attention().eval()
    P = projections(module, {"x": torch.randn(2, 9, 32)})
    view = P[0]
    assert (view.heads, view.kind, view.causal) == (4, "self", True)
    assert max(P.verify().values()) <= 1e-6
    for i, role in enumerate(("query", "key", "value")):
        assert torch.equal(view[role], module.qkv.weight.view(3, 4, 8, 32)[i].transpose(1, 2))
        assert view[role].data_ptr() == module.qkv.weight[32 * i].data_ptr()
    assert torch.equal(view.output, module.out.weight.T.unflatten(0, (4, 8)))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_own_encoder(batch_first: bool, norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 40, batch_first=batch_first, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    P = projections(model, {"src": torch.randn(2, 9, 32) if batch_first else torch.randn(9, 2, 32)})
    assert max(P.verify().values()) <= 1e-6
    # Behind its residual sum, a normalisation is the stream itself, and none in front of the attention.
    names = [None if view.input_norm is None else view.input_norm.name for view in P]
    assert names == (["layers.0.norm1", "layers.1.norm1"] if norm_first else [None, None])


def test_torchs_own_decoder_looks_across() -> None:
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 40, batch_first=True), 2).eval()
    P = projections(model, {"tgt": torch.randn(2, 7, 32), "memory": torch.randn(2, 9, 32)})
    assert [view.kind for view in P] == ["self", "cross", "self", "cross"]
    assert max(P.verify().values()) <= 1e-6


def test_keys_and_values_of_other_widths() -> None:
    model = nn.MultiheadAttention(32, 4, kdim=20, vdim=12, batch_first=True).eval()
    inputs = {"query": torch.randn(2, 7, 32), "key": torch.randn(2, 9, 20), "value": torch.randn(2, 9, 12)}
    P = projections(model, inputs)
    assert (P[0].query.shape, P[0].key.shape, P[0].value.shape) == ((4, 32, 8), (4, 20, 8), (4, 12, 8))
    assert P[0, 1].qk.shape == (32, 20)
    assert max(P.verify().values()) <= 1e-6


def test_pre_norms_are_found_and_post_norms_are_not() -> None:
    expected = {
        "Llama": "input_layernorm",
        "GPT-2": "ln_1",
        "T5": "layer_norm",
        "Swin": "layernorm_before",
        "Whisper": "layer_norm",
        "BERT": None,
        "BART": None,
        "OLMo 2": None,
    }
    for family, name in expected.items():
        tiny = BY_FAMILY[family]
        for view in projections(tiny.build(), tiny.inputs()):
            found = None if view.input_norm is None else view.input_norm.name.split(".")[-1]
            assert (found is None) == (name is None), (family, view.name, found)
            assert found is None or (name is not None and found.endswith(name)), (family, found)


def test_the_gain_of_a_norm_is_what_the_model_multiplies_with() -> None:
    model: Any = BY_FAMILY["Gemma 2"].build()
    norm = projections(model)[0].input_norm
    assert norm is not None
    assert torch.equal(norm.gain, 1 + model.model.layers[0].input_layernorm.weight)
    assert not norm.centred


def test_the_ends_of_the_model() -> None:
    llama: Any = BY_FAMILY["Llama"].build()
    P = projections(llama)
    assert P.embedding is not None
    assert P.unembedding is not None
    assert P.embedding.data_ptr() == llama.model.embed_tokens.weight.data_ptr()
    assert P.unembedding.data_ptr() == llama.lm_head.weight.data_ptr()
    assert P.final_norm is not None
    assert P.final_norm.name == "model.norm"
    tiny = BY_FAMILY["ViT"]
    assert projections(tiny.build(), tiny.inputs()).unembedding is None
