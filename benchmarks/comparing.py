"""What it costs to compare a model with an adapter: its weights alone, and with a text."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import attlas
from benchmarks.measuring import Row, in_fresh_process, in_turn, megabytes, seconds
from benchmarks.model import LONGEST, MODEL, open_demo, plain_forward

if TYPE_CHECKING:
    from torch import nn

RANK = 8
QUERY_VALUE = ("q_proj", "v_proj")
EVERYTHING = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(model: nn.Module, folder: Path, targets: tuple[str, ...]) -> Path:
    """Write an adapter of random factors, a hundredth of the weights in size, as PEFT would."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if name.rpartition(".")[2] not in targets or not isinstance(weight, torch.Tensor):
            continue
        out, width = weight.shape
        up, down = (torch.randn(shape, generator=generator) for shape in ((out, RANK), (RANK, width)))
        tensors[f"base_model.model.{name}.lora_A.weight"] = down
        tensors[f"base_model.model.{name}.lora_B.weight"] = up * (0.01 * weight.norm().item() / (up @ down).norm())
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(targets)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def rows(rounds: int, *, tiny: bool) -> list[Row]:
    """Measure everything."""
    length = 48 if tiny else LONGEST
    lm, text = open_demo(length)
    tokens = len(lm.tokenize(text))
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for targets, what in ((QUERY_VALUE, "queries and values"), (EVERYTHING, "every linear map")):
            adapter = write_adapter(lm.model, folder, targets)
            taken = min(_timed(lm, adapter) for _ in range(rounds))
            aim = "≤ 10 s" if targets is QUERY_VALUE else "–"
            detail = f"fastest of {rounds}; rank {RANK}, with intruder dimensions"
            found.append(Row(f"comparing weights, an adapter of {what} ({MODEL})", "–", seconds(taken), aim, detail))
        adapter = write_adapter(lm.model, folder, QUERY_VALUE)
        ratio = in_turn(lambda: attlas.compare(lm, adapter, text), lambda: plain_forward(lm, text), rounds)
    against = f"the model's plain forward pass ({tokens:,} tokens)"
    found.append(
        Row("comparing weights, attention and heads on a text", against, ratio.reached(), "≤ 3.00", ratio.detail())
    )
    _, plain = in_fresh_process("forward", str(length))
    _, whole = in_fresh_process("compared", str(length))
    extra = float(whole) - float(plain)
    detail = f"beyond the forward pass alone (peak of the whole process {megabytes(float(whole))})"
    found.append(Row("extra memory of the same", "–", megabytes(extra), "–", detail))
    return found


def _timed(lm: attlas.LanguageModel, adapter: Path) -> float:
    begun = time.perf_counter()
    attlas.compare(lm, adapter)
    return time.perf_counter() - begun
