from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from attlas.models.facts import gather_facts

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 32,
}
CASES = {
    "llama": (
        "LlamaForCausalLM",
        transformers.LlamaConfig(**SMALL, num_key_value_heads=2),
        ("decoder", 2, 4, 2, 4, 32, 64),
    ),
    "qwen3, a head's width of its own": (
        "Qwen3ForCausalLM",
        transformers.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8),
        ("decoder", 2, 4, 2, 8, 32, 64),
    ),
    "gpt2, other names": (
        "GPT2LMHeadModel",
        transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=32, vocab_size=64),
        ("decoder", 2, 4, 4, 4, 32, 64),
    ),
    "bert": ("BertModel", transformers.BertConfig(**SMALL), ("encoder", 2, 4, 4, 4, 32, 64)),
    "roberta, positions that start behind the padding": (
        "RobertaModel",
        transformers.RobertaConfig(**SMALL, pad_token_id=1),
        ("encoder", 2, 4, 4, 4, 30, 64),
    ),
    "distilbert": (
        "DistilBertModel",
        transformers.DistilBertConfig(
            dim=16, hidden_dim=24, n_layers=2, n_heads=4, vocab_size=64, max_position_embeddings=32
        ),
        ("encoder", 2, 4, 4, 4, 32, 64),
    ),
    "t5, positions without an end": (
        "T5ForConditionalGeneration",
        transformers.T5Config(
            d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=4, vocab_size=64
        ),
        ("encoder-decoder", 5, 4, 4, 8, None, 64),
    ),
    "bart": (
        "BartForConditionalGeneration",
        transformers.BartConfig(
            d_model=16,
            encoder_layers=2,
            decoder_layers=3,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            vocab_size=64,
            max_position_embeddings=32,
        ),
        ("encoder-decoder", 5, 4, 4, 4, 32, 64),
    ),
    "vit, which reads no text": (
        "ViTModel",
        transformers.ViTConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, image_size=8, patch_size=4
        ),
        ("encoder", 2, 4, 4, 4, None, None),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_facts_of_a_family(case: tuple) -> None:
    model_class, config, expected = case
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config)
    facts = gather_facts("tiny", model, "print")
    assert (
        facts.kind,
        facts.layers,
        facts.heads,
        facts.kv_heads,
        facts.dim,
        facts.positions,
        facts.vocabulary,
    ) == expected
    assert facts.family == config.model_type
    assert facts.parameters == model.num_parameters()
    assert facts.as_dict()["fingerprint"] == "print"


def test_clip_is_described_by_its_text_side() -> None:
    config = transformers.CLIPConfig(
        text_config={**SMALL, "num_hidden_layers": 3},
        vision_config={"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    )
    facts = gather_facts("tiny", transformers.CLIPModel(config), "print")
    assert (facts.kind, facts.layers, facts.heads, facts.positions) == ("encoder", 3, 4, 32)
