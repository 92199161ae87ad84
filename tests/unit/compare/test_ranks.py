"""The pattern of LoRA's paper, in kind: the smaller the rank, the more a trained change amplifies what it is about."""

from typing import Any

import peft
import pytest
import torch

import attlas
import tuning

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

RANKS = (1, 4, 16)
STEPS = 40


def trained(base: Any, rank: int) -> Any:
    """Train an adapter on sequences that count on."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=["q_proj", "v_proj"])
    model: Any = peft.get_peft_model(tuning.copy.deepcopy(base), config)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        start = torch.randint(5, 90, (8, 1), generator=generator)
        ids = (start + torch.arange(16) - 5) % 85 + 5
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def test_amplification_falls_with_the_rank() -> None:
    base = tuning.tiny("Llama", torch.float32)
    means = []
    for rank in RANKS:
        found = attlas.compare(base, trained(base, rank))
        rows = [row for row in found.modules.rows() if row["role"] == "query"]
        assert {row["directions"] for row in rows} == {rank}
        means.append(sum(row["amplification"] for row in rows) / len(rows))
    assert means[0] > 1.3 * means[1] > 1.7 * means[2]
