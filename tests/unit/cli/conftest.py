from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def _saved(folder: Path, layers: int, positions: int) -> Path:
    letters = {letter: i for i, letter in enumerate("?abcdefghijklmnopqrstuvwxyz \n")}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="?"))  # noqa: S106 - a token of text, no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)  # noqa: S106 - as above
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=32,
        max_position_embeddings=positions,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that reads letters, 64 at most."""
    return _saved(tmp_path_factory.mktemp("reader"), layers=3, positions=64)


@pytest.fixture(scope="session")
def long_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tinier model that reads many letters."""
    return _saved(tmp_path_factory.mktemp("long-reader"), layers=2, positions=2048)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "document.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n", encoding="utf-8")
    return path
