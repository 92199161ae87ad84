"""Keys that no query sees: the model under a knockout against attention written out, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import attlas
from attlas.capture.knocking import knocked_out
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError
from attlas.testing.guards import no_dense
from attlas.testing.tiny_models import TINY_MODELS

FAMILIES = {model.family: model for model in TINY_MODELS}
DOUBLE = ("Llama", "Mistral", "Qwen3", "Gemma 2", "Gemma 3", "GPT-2", "GPT-NeoX", "BERT", "ModernBERT")
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}


def hidden(batch: int, n: int) -> Tensor:
    keys = torch.rand(batch, n, generator=torch.Generator().manual_seed(3)) < 0.4
    keys[:, -1] = False
    keys[:, 0] = False
    return keys


def spoken(output: Any) -> Tensor:
    return output[0][:, -1]


def written_out(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend with chosen columns of the scores at minus infinity, everything dense."""
    key, value = (one.repeat_interleave(query.shape[1] // key.shape[1], 1) for one in (key, value))
    scores = query @ key.mT * options["scaling"]
    if (cap := options.get("softcap")) is not None:
        scores = (scores / cap).tanh() * cap
    if mask is not None:
        scores = scores + mask[..., : key.shape[2]]
    if module.layer_idx in CHOSEN["layers"]:  # pyright: ignore[reportOperatorIssue]
        scores = scores.masked_fill(CHOSEN["hidden"][:, None, None], float("-inf"))
    if (sinks := options.get("s_aux")) is not None:
        scores = torch.cat([scores, sinks.to(scores).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1).nan_to_num(0.0)[..., : key.shape[2]]
    return (weights @ value).transpose(1, 2), None


CHOSEN: dict[str, Any] = {}


@pytest.mark.parametrize("layers", [None, [1], [0]], ids=["all layers", "the upper one", "the lower one"])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "Gemma 3", "GPT-2", "GPT-NeoX"])
def test_knockout_equals_scores_of_minus_infinity(family: str, layers: Any) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    model: Any = FAMILIES[family].build().double()
    ids = FAMILIES[family].inputs(batch=2)["input_ids"]
    keys = hidden(*ids.shape)
    with torch.no_grad(), knocked_out(model, keys, layers):
        found = model(ids)[0]
    AttentionInterface.register("written_out", written_out)
    AttentionMaskInterface.register("written_out", eager_mask)
    CHOSEN.update(layers=range(9) if layers is None else layers, hidden=keys)
    model.set_attn_implementation("written_out")
    with torch.no_grad():
        expected = model(ids)[0]
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("family", DOUBLE)
def test_knockout_in_all_layers_equals_the_model_s_own_padding_mask(family: str) -> None:
    model = FAMILIES[family].build().double()
    ids = FAMILIES[family].inputs(batch=2)["input_ids"]
    keys = hidden(*ids.shape)
    with torch.no_grad():
        with knocked_out(model, keys):
            found = spoken(model(ids))
        expected = spoken(model(ids, attention_mask=(~keys).long()))
    # Gemma 2 takes its softmax in float32, whatever its weights are.
    exact: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5} if family == "Gemma 2" else EXACT
    torch.testing.assert_close(found, expected, **exact)


def test_learned_sinks_keep_what_they_have() -> None:
    model = FAMILIES["gpt-oss"].build()
    ids = FAMILIES["gpt-oss"].inputs()["input_ids"]
    keys = hidden(*ids.shape)
    outputs: list[Tensor] = []
    model.get_submodule("model.layers.0.self_attn").register_forward_hook(lambda *call: outputs.append(call[-1][0]))
    with torch.no_grad():
        with knocked_out(model, keys):
            model(ids)
        model(ids, attention_mask=(~keys).long())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)


def test_nothing_hidden_changes_nothing_and_nothing_stays() -> None:
    model = FAMILIES["Llama"].build().double()
    ids = FAMILIES["Llama"].inputs()["input_ids"]
    with torch.no_grad():
        before = model(ids).logits
        with knocked_out(model, torch.zeros(1, ids.shape[1], dtype=torch.bool)):
            torch.testing.assert_close(model(ids).logits, before, **EXACT)
        assert torch.equal(model(ids).logits, before)


def test_a_row_without_keys_gives_zeros() -> None:
    model = FAMILIES["Llama"].build().double()
    ids = FAMILIES["Llama"].inputs()["input_ids"]
    keys = torch.zeros(1, ids.shape[1], dtype=torch.bool)
    keys[:, 0] = True
    with attlas.capture(model, layers=[0]), torch.no_grad(), knocked_out(model, keys):
        assert bool(model(ids).logits.isfinite().all())


def test_nothing_of_queries_times_keys_is_held() -> None:
    n = 1500
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=n,
        )
    ).eval()
    keys = hidden(1, n)
    with torch.no_grad(), no_dense(n * n // 2), knocked_out(model, keys):
        model(torch.arange(n)[None] % 96, use_cache=False, logits_to_keep=1)


def test_errors() -> None:
    model = FAMILIES["Llama"].build()
    ids = FAMILIES["Llama"].inputs()["input_ids"]
    keys = hidden(*ids.shape)
    with pytest.raises(ArgumentError, match=r"layers: wanted layers from 0 to 1.*got 7"), torch.no_grad():
        with knocked_out(model, keys, [7]):
            model(ids)
    with pytest.raises(CaptureError, match="got none"), knocked_out(model, keys):
        pass
    falcon = FAMILIES["Falcon"].build()
    with pytest.raises(UnsupportedModelError, match="transformers' attention interface"), knocked_out(falcon, keys):
        falcon(ids)
