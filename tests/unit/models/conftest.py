"""Tiny models in folders, made here; they prove how models are opened, not what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 32,
}
SaveModel = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Save a tiny random model and return its folder."""

    def save(model_class: str, config: transformers.PreTrainedConfig, **options) -> Path:
        torch.manual_seed(0)
        folder = tmp_path / f"{config.model_type}-{model_class}"
        getattr(transformers, model_class)(config).save_pretrained(folder, **options)
        return folder

    return save


@pytest.fixture
def llama(save_model: SaveModel) -> Path:
    """The folder of a tiny Llama with two query heads to a key-value head."""
    return save_model("LlamaForCausalLM", transformers.LlamaConfig(**SMALL, num_key_value_heads=2, pad_token_id=0))


@pytest.fixture
def small() -> dict[str, Any]:
    """The sizes of a tiny model, by the names that most families use."""
    return dict(SMALL)
