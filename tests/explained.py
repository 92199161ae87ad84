"""Tiny models with tokenizers, whose answers are explained: a decoder, a classifier, and an encoder with a decoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import attlas
from attlas.models.facts import gather_facts
from labelled import encoder

TEXT = "The capital of France is Paris. The capital of Italy is Rome, and it rains.\nNobody knows why."
TEMPLATE = "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that has learnt a few words, without begin-of-text token."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    bare.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    special = ["<|begin|>", "<|end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    bare.train_from_iterator([TEXT] * 4, trainer)
    roles: dict[str, Any] = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "additional_special_tokens": special[:1]}
    return PreTrainedTokenizerFast(tokenizer_object=bare, chat_template=TEMPLATE, **roles)


def _sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }


def _opened(model: Any, words: PreTrainedTokenizerFast, spread: float = 0.3) -> attlas.LanguageModel:
    """Return the model in float64, with weights that make its attention far from even."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, spread)
    return attlas.LanguageModel(model.double().eval(), words, gather_facts("tiny", model, "f00d"))


def speaker(seed: int = 0, **options: Any) -> attlas.LanguageModel:
    """Return a random decoder."""
    torch.manual_seed(seed)
    config = LlamaConfig(**_sizes(len(tokenizer())), num_key_value_heads=2, **options)
    return _opened(LlamaForCausalLM(config), tokenizer())


def judge(seed: int = 0) -> attlas.LanguageModel:
    """Return a random classifier of three classes, which reads from its first token."""
    torch.manual_seed(seed)
    words = encoder().tokenizer
    config = BertConfig(**_sizes(len(words)), id2label={0: "bad", 1: "fair", 2: "good"})
    return _opened(BertForSequenceClassification(config), words)


def translator(seed: int = 0) -> attlas.LanguageModel:
    """Return a random encoder with a decoder."""
    torch.manual_seed(seed)
    sizes: Any = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 2}
    config = T5Config(vocab_size=len(tokenizer()), **sizes)
    return _opened(T5ForConditionalGeneration(config), tokenizer(), 0.2)
