"""A tokenizer that knows every word of the generated prompts, and tiny models that read with it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import attlas
from attlas.explain.prompts import KINDS, LABELLED, prompts
from attlas.models.facts import gather_facts

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")


@cache
def words() -> PreTrainedTokenizerFast:
    """Return the tokenizer: a word is a token, [CLS] and [SEP] are only put where `framed` does."""
    splitter = pre_tokenizers.Whitespace()
    known = dict.fromkeys(_SPECIAL)
    texts = [prompt.text + prompt.answer for kind in KINDS for prompt in prompts(kind, 300)]
    texts += [prompt.text for kind in LABELLED for prompt in prompts(kind, 300, labelled=True)]
    for text in [*texts, " is are positive negative"]:
        known |= dict.fromkeys(word for word, _ in splitter.pre_tokenize_str(text))
    bare = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))  # noqa: S106 - no password
    bare.pre_tokenizer = splitter  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="[PAD]", unk_token="[UNK]")  # noqa: S106 - no passwords


@cache
def framed() -> PreTrainedTokenizerFast:
    """Return the tokenizer that puts [CLS] and [SEP] around a text."""
    bare = Tokenizer.from_str(words().backend_tokenizer.to_str())
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    bare.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)  # pyright: ignore[reportAttributeAccessIssue]
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=bare, **names)


def _sizes(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
    }


def decoder(seed: int = 0, dtype: torch.dtype = torch.float32) -> attlas.LanguageModel:
    """Return a random decoder with grouped heads, whose attention is far from even."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**_sizes(words()), num_key_value_heads=2)).eval()
    return _with(model, words(), 0.3, dtype)


def encoder(seed: int = 0, spread: float = 0.1) -> attlas.LanguageModel:
    """Return a random encoder."""
    torch.manual_seed(seed)
    return _with(BertModel(BertConfig(**_sizes(framed()))).eval(), framed(), spread, torch.float32)


def _with(model: Any, tokenizer: Any, spread: float, dtype: torch.dtype) -> attlas.LanguageModel:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, spread)
    return attlas.LanguageModel(model.to(dtype), tokenizer, gather_facts("tiny", model, "f00d"))
