"""From one GGUF file to a plain Hugging Face folder: weights, configuration and tokenizer.

A GGUF file holds quantised weights, the sizes of the model and its vocabulary. Reading it takes long and leaves a model
that counts as quantised, so it is turned once into what every other tool reads: `model.safetensors` in float32 (a 4-bit
weight is scale · q + offset with a float16 scale and offset; float16 could not hold the result exactly), `config.json`
and `tokenizer.json`.

References
----------
.. [1] The GGUF format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from attlas.errors import UnsupportedModelError, complaint
from attlas.models.progress import Progress

_OUTSIDE_BLOCKS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3  # GGUF's token type for tokens that are never made from text by merging


def convert_gguf(source: Path, folder: Path, progress: Progress | None = None) -> None:
    """Write the model in a GGUF file as a Hugging Face folder.

    Parameters
    ----------
    source : Path
        A GGUF file of the llama architecture with a byte-level BPE vocabulary of the "smollm" kind.
    folder : Path
        An existing folder, filled with config.json, generation_config.json, model.safetensors, tokenizer.json,
        tokenizer_config.json and, if the file holds one, chat_template.jinja.
    progress : callable, optional
        Called as ``progress(done, total, what)`` after each tensor.

    Raises
    ------
    UnsupportedModelError
        If the file holds another architecture, vocabulary or tensor than these.
    """
    from gguf import GGUFReader

    reader = GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    _expect(facts, "general.architecture", "llama")
    _expect(facts, "tokenizer.ggml.model", "gpt2")
    _expect(facts, "tokenizer.ggml.pre", "smollm")
    tied = _write_weights(reader, facts, folder, progress)
    _write_json(folder / "config.json", _config(facts, tied))
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **_token_ids(facts)})
    _write_tokenizer(facts, folder)


def _expect(facts: dict[str, Any], name: str, wanted: str) -> None:
    got = facts.get(name)
    if got != wanted:
        raise UnsupportedModelError(complaint(f"GGUF field {name}", wanted=wanted, got=got))


def _write_weights(reader: Any, facts: dict[str, Any], folder: Path, progress: Progress | None) -> bool:
    """Dequantise every tensor to float32 and write them; return whether input and output embeddings are the same."""
    from gguf import dequantize
    from safetensors.numpy import save_file

    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    weights: dict[str, np.ndarray] = {}
    for done, tensor in enumerate(reader.tensors, start=1):
        name = _name_in_transformers(tensor.name)
        weight = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = _halves_apart(weight, heads[part])
        weights[name] = np.ascontiguousarray(weight)
        if progress is not None:
            progress(done, len(reader.tensors), "converting weights")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return "lm_head.weight" not in weights


def _name_in_transformers(name: str) -> str:
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if block is None or block[2] not in _IN_BLOCK:
        raise UnsupportedModelError(complaint("GGUF tensor", wanted="one of a llama model's", got=name))
    return f"model.layers.{block[1]}.{_IN_BLOCK[block[2]]}.weight"


def _halves_apart(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo GGUF's order of a rotary head's rows.

    Rotary encoding turns pairs of coordinates. GGUF stores a pair's two rows next to each other, transformers stores
    all first ones and then all second ones.
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[-1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _config(facts: dict[str, Any], tied: bool) -> dict[str, Any]:
    width, heads = facts["llama.embedding_length"], facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": _shortest(facts["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {"rope_type": "default", "rope_theta": _shortest(facts["llama.rope.freq_base"])},
        "tie_word_embeddings": tied,
        "vocab_size": facts["llama.vocab_size"],
        "dtype": "float32",
        **_token_ids(facts),
    }


def _shortest(number: float) -> float:
    """Return the shortest decimal that a float32 stands for: 1e-05 rather than 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _token_ids(facts: dict[str, Any]) -> dict[str, int]:
    return {
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
    }


def _write_tokenizer(facts: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    # What the vocabulary kind "smollm" means: every digit stands alone, then GPT-2's byte-level pieces.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        token for token, kind in zip(tokens, facts["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL_TOKEN
    ]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": facts["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[facts["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[facts["tokenizer.ggml.unknown_token_id"]],
    }
    _write_json(folder / "tokenizer_config.json", settings)
    if "tokenizer.chat_template" in facts:
        (folder / "chat_template.jinja").write_text(facts["tokenizer.chat_template"], encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
