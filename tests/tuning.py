"""Tiny models and what training might have made of them: adapters saved by PEFT, merged models, full fine-tunes."""

import copy
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

import attlas
from attlas.models.facts import gather_facts
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
TARGETS = {
    "Llama": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"],
    "Qwen2": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "Qwen3": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "Mistral": ["q_proj", "v_proj"],
    "GPT-2": ["c_attn", "c_proj", "c_fc"],
    "GPT-NeoX": ["query_key_value", "dense"],
    "BERT": ["query", "key", "value", "dense"],
}
IDS = [11, 20, 31, 11, 20, 45, 46, 31, 11, 20, 45, 13, 14, 31, 60, 61, 11, 20, 31, 45, 46, 62, 11]


def language_model(model: Any, name: str = "tiny") -> attlas.LanguageModel:
    """Wrap a model as `attlas.load` would, without a tokenizer."""
    return attlas.LanguageModel(model, None, gather_facts(name, model, "f00d"))


def tiny(family: str, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """Build a tiny model of a family."""
    spec = BY_FAMILY[family]
    changed = {**spec.options, **options}
    return type(spec)(spec.family, spec.model, spec.config, changed, spec.kind).build().to(dtype)


def adapted(model: Any, family: str, size: float = 0.2, **options: Any) -> Any:
    """Return a PeftModel around a copy of a model, its adapter no longer nothing."""
    given: dict[str, Any] = {"r": 3, "lora_alpha": 7, "target_modules": TARGETS[family], **options}
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**given), autocast_adapter_dtype=False).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
            elif "magnitude" in name:
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator).to(parameter))
    return wrapped


def saved(wrapped: Any, folder: Path) -> Path:
    """Save an adapter as PEFT does."""
    wrapped.save_pretrained(folder)
    return folder


def merged(wrapped: Any) -> Any:
    """Return the plain model that the adapter makes."""
    return copy.deepcopy(wrapped).merge_and_unload()


def fine_tuned(model: nn.Module, size: float = 0.03) -> Any:
    """Return a copy all of whose parameters have moved."""
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(size * noise.to(parameter))
    return moved


def dense_heads(model: Any, family: str, layer: int) -> dict[str, Tensor]:
    """Return W_Q, W_K, W_V (head or kv_head, d, dim) and W_O (head, dim, d), cut out by hand from the weights."""
    weights = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    config = model.config
    if family == "GPT-2":
        at, heads = f"transformer.h.{layer}.attn.", config.n_head
        query, key, value = weights[at + "c_attn.weight"].chunk(3, dim=1)
        output = weights[at + "c_proj.weight"].T
        return _cut(query.T, key.T, value.T, output, heads, heads)
    if family == "GPT-NeoX":
        at, heads = f"gpt_neox.layers.{layer}.attention.", config.num_attention_heads
        fused = weights[at + "query_key_value.weight"].unflatten(0, (heads, 3, -1))
        query, key, value = (fused[:, i].flatten(0, 1) for i in range(3))
        return _cut(query, key, value, weights[at + "dense.weight"], heads, heads)
    if family == "BERT":
        at, heads = f"encoder.layer.{layer}.attention.", config.num_attention_heads
        query, key, value = (weights[f"{at}self.{role}.weight"] for role in ("query", "key", "value"))
        return _cut(query, key, value, weights[at + "output.dense.weight"], heads, heads)
    at = f"model.layers.{layer}.self_attn."
    parts = [weights[f"{at}{role}_proj.weight"] for role in "qkvo"]
    return _cut(parts[0], parts[1], parts[2], parts[3], config.num_attention_heads, config.num_key_value_heads)


def _cut(query: Tensor, key: Tensor, value: Tensor, output: Tensor, heads: int, kv: int) -> dict[str, Tensor]:
    return {
        "query": query.unflatten(0, (heads, -1)).transpose(1, 2),
        "key": key.unflatten(0, (kv, -1)).transpose(1, 2),
        "value": value.unflatten(0, (kv, -1)).transpose(1, 2),
        "output": output.unflatten(1, (heads, -1)).permute(1, 2, 0),
    }
