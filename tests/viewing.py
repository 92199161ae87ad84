"""A small model's heads on a small text, for tests of pages and pictures."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import attlas
from attlas.heads import HeadStatistics, head_statistics

LAYERS, HEADS = 3, 4


def captured(length: int, *, batch: int = 1, layers: int = LAYERS) -> attlas.Capture:
    """Return what a random model does with random tokens."""
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        vocab_size=64,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
        with attlas.capture(model) as cap:
            model(input_ids=torch.randint(0, 64, (batch, length)))
    return cap


def measured(tokens: list[str] | None = None, length: int = 40) -> HeadStatistics:
    """Return the statistics of a random model on `tokens`, by default on short words."""
    tokens = tokens or [f" word{i}" for i in range(length)]
    cap = captured(len(tokens))
    return head_statistics(cap.of_document("".join(tokens), tokens, model="tiny", fingerprint="f00d"))
