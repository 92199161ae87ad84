"""Tiny models with a tokenizer of their own that cuts words into pieces, for tests that read sentences."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import attlas
from attlas.heads.relations.labelled import sentences
from attlas.models.facts import gather_facts

VOCABULARY = 420
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
}


@cache
def tokenizer(frame: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer, which puts [CLS] and [SEP] around a text if asked to."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    bare.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    special = ["[PAD]", "[CLS]", "[SEP]", "[BOS]"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    made = sentences(count=60, seed=9)
    bare.train_from_iterator([made.text(number) for number in range(60)], trainer)
    roles = {"pad_token": "[PAD]", "bos_token": "[BOS]"}
    if frame:
        frames = [("[CLS]", 1), ("[SEP]", 2)]
        frame_them = processors.TemplateProcessing("[CLS] $A [SEP]", None, frames)
        bare.post_processor = frame_them  # pyright: ignore[reportAttributeAccessIssue]
        roles = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=bare, **roles)


def decoder(seed: int = 0, spread: float = 0.3) -> attlas.LanguageModel:
    """Return a random decoder whose attention is far from even."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**_SIZES, num_key_value_heads=2)).eval()
    return _with(model, tokenizer(frame=False), spread)


def encoder(seed: int = 0, spread: float = 0.3) -> attlas.LanguageModel:
    """Return a random encoder whose attention is far from even."""
    torch.manual_seed(seed)
    return _with(BertModel(BertConfig(**_SIZES)).eval(), tokenizer(frame=True), spread)


def _with(model: Any, words: PreTrainedTokenizerFast, spread: float) -> attlas.LanguageModel:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, spread)
    return attlas.LanguageModel(model, words, gather_facts("tiny", model, "f00d"))
