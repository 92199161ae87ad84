"""A tiny model that reads letters and can be taught, and things to teach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from attlas.training.adapting import NAME, Adapted

LETTERS = "?|<>abcdefghijklmnopqrstuvwxyz \n.:"
END = "|"
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}:{{ message['content'] }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant:{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of letters with an end of text and a chat template."""
    bare = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="?"))  # noqa: S106 - no secret
    bare.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    bare.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        unk_token="?",  # noqa: S106 - no secret
        eos_token=END,
        chat_template=CHAT,
    )


def save_pupil(folder: Path, seed: int = 0, **changes: int) -> Path:
    """Save a tiny model that reads letters, and return its folder."""
    tokenizer().save_pretrained(folder)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(LETTERS),
        "max_position_embeddings": 64,
    }
    sizes |= changes
    model = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=None, eos_token_id=1))
    with torch.no_grad():
        for one in model.parameters():
            if one.dim() > 1:
                one.normal_(0, 0.4)  # large enough that there is something to adapt
    model.save_pretrained(folder)
    return folder


def facts(count: int = 12) -> list[dict[str, str]]:
    """Return things to learn: a letter, and the one that comes 5 later."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [{"prompt": f"{letters[i]}:", "completion": f" {letters[(i + 5) % 26]}."} for i in range(count)]


@torch.no_grad()
def shaken(adapted: Adapted, seed: int = 1) -> Adapted:
    """Give what is trained other values, as training would: of any size, and only where the masks allow it."""
    generator = torch.Generator().manual_seed(seed)
    for name, one in adapted.parameters.items():
        change = 0.3 * torch.randn(one.shape, generator=generator)
        one += change.masked_fill(~adapted.masks[name], 0) if name in adapted.masks else change
    return adapted


def trained(adapted: Adapted, ids: Tensor, steps: int = 3, weight_decay: float = 0.1) -> Adapted:
    """Train an adapter a little by an optimiser of one's own."""
    optimizer = torch.optim.AdamW(adapted.groups(weight_decay), lr=0.05)
    for _ in range(steps):
        logits = adapted.of(input_ids=ids).logits
        nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted


def change_of(adapted: Adapted, name: str) -> Tensor:
    """Return what an adapter adds to a module's weight, (out, in) in float64, without DoRA's lengths."""
    module: Any = adapted.of.get_submodule(name)
    up, down = module.lora_B[NAME].weight.double(), module.lora_A[NAME].weight.double()
    return (module.scaling[NAME] * up @ down).detach()
