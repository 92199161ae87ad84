from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from attlas.errors import UnsupportedModelError
from attlas.models.gguf_conversion import convert_gguf

CONFIG = LlamaConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=260,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    tie_word_embeddings=True,
)
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _pairs_together(weight: np.ndarray, heads: int) -> np.ndarray:
    """Order a rotary head's rows as GGUF does: the two rows of a pair next to each other."""
    return weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, model: LlamaForCausalLM, *, architecture: str = "llama", kind: str = "smollm", extra: str | None = None
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    config: Any = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    from tokenizers import pre_tokenizers

    tokens = ["<|a|>", "<|b|>", "<|c|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages }}")
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        if name.startswith("model.layers."):
            layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            short = NAMES[part]
            weight = _pairs_together(weight, heads[short]) if short in heads else weight
            kept = gguf.GGMLQuantizationType.Q4_1 if weight.ndim == 2 else None
            data = gguf.quantize(weight, kept) if kept else weight
            writer.add_tensor(f"blk.{layer}.{short}.weight", data, raw_dtype=kept)
        elif name != "lm_head.weight":
            writer.add_tensor(
                {"model.embed_tokens.weight": "token_embd.weight"}.get(name, "output_norm.weight"), weight
            )
    if extra is not None:
        writer.add_tensor(extra, np.zeros((4,), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def model() -> LlamaForCausalLM:
    """A tiny Llama whose matrices survive 4-bit quantisation unchanged."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                levels = torch.randint(0, 16, parameter.shape).float()
                levels[:, ::32], levels[:, 1::32] = 0, 15  # every block of 32 spans the full range
                parameter.copy_((levels - 8) / 64)
    return model


def test_the_converted_model_computes_the_same_logits(tmp_path: Path, model: LlamaForCausalLM) -> None:
    write_gguf(tmp_path / "model.gguf", model)
    folder = tmp_path / "converted"
    folder.mkdir()
    seen: list[tuple[int, int, str]] = []
    convert_gguf(tmp_path / "model.gguf", folder, lambda *report: seen.append(report))
    converted = LlamaForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(converted(ids).logits, model(ids).logits)
    assert seen[-1] == (20, 20, "converting weights")
    assert converted.config.rms_norm_eps == 1e-5
    assert not hasattr(converted.config, "quantization_config")


def test_the_converted_tokenizer_is_the_files_own(tmp_path: Path, model: LlamaForCausalLM) -> None:
    write_gguf(tmp_path / "model.gguf", model)
    convert_gguf(tmp_path / "model.gguf", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("<|b|>ab c12") == ["<|b|>", "ab", "Ġ", "c", "1", "2"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (
        1,
        2,
        2,
        0,
    )
    assert tokenizer.model_max_length == 128
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.decode(tokenizer("日 é\n").input_ids) == "日 é\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"architecture": "gemma"}, "GGUF field general.architecture: wanted llama, got gemma"),
        ({"kind": "qwen2"}, r"GGUF field tokenizer.ggml.pre: wanted smollm, got qwen2"),
        ({"extra": "blk.0.attn_q.bias"}, "GGUF tensor: wanted one of a llama model's, got blk.0.attn_q.bias"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, model: LlamaForCausalLM, options: dict[str, str], said: str
) -> None:
    write_gguf(tmp_path / "model.gguf", model, **options)
    with pytest.raises(UnsupportedModelError, match=said):
        convert_gguf(tmp_path / "model.gguf", tmp_path)
