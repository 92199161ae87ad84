"""The initialisations of an adapter that look at data first: EVA and LoRA-GA, as PEFT computes them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attlas.errors import ArgumentError, complaint
from attlas.training.losses import IGNORED, mean_loss

Batch = Mapping[str, Tensor]
"""``input_ids`` and ``labels``, (batch, n), as `attlas.training.batches` makes them."""

_EVA_RHO = 2.0  # PEFT's default: a module gets at most so many times the rank


def settings_for(init: str, peft: Any) -> dict[str, Any]:
    """Return what PEFT's LoraConfig needs for an initialisation, by the names of its arguments."""
    if init == "eva":
        return {"eva_config": peft.EvaConfig(rho=_EVA_RHO)}
    if init == "lora_ga":
        return {"lora_ga_config": peft.LoraGAConfig()}
    return {}


def before_adapting(model: nn.Module, config: Any, batches: Sequence[Batch]) -> None:
    """Look at the data for LoRA-GA, whose gradients PEFT wants to know before it makes the adapter.

    Parameters
    ----------
    model : torch.nn.Module
        Not yet adapted. What is found is left at its modules, where PEFT takes it up.
    config : LoraConfig
    batches : sequence of mapping
    """
    if config.init_lora_weights == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        def step() -> None:
            for batch in batches:
                mean_loss(model, batch["input_ids"], batch["labels"]).backward()

        with warnings.catch_warnings():
            # The first module's inputs need no gradient, which is as it should be.
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            preprocess_loraga(model, config, train_step=step)


def after_adapting(adapted: Any, config: Any, batches: Sequence[Batch]) -> None:
    """Look at the data for EVA, and give the adapter the directions that explain most of its modules' inputs.

    EVA also shares the ranks out anew: a module gets up to twice its rank, or none.

    Raises
    ------
    ArgumentError
        No batch has as many tokens to be learnt as EVA looks for directions.
    """
    if config.init_lora_weights != "eva":
        return
    from peft.tuners.lora.eva import initialize_lora_eva_weights

    most = int(_EVA_RHO * max((config.r, *config.rank_pattern.values())))
    # It would wait for ever for a batch that is large enough.
    enough = [batch for batch in batches if int((batch["labels"] != IGNORED).sum()) >= most]
    if not enough:
        largest = max((int((batch["labels"] != IGNORED).sum()) for batch in batches), default=0)
        raise ArgumentError(
            complaint(
                "init",
                wanted=f"batches with at least {most} tokens to be learnt, for eva with rank {most / _EVA_RHO:g}",
                got=f"at most {largest}",
                way_out="take larger batches, or a smaller rank",
            )
        )
    with torch.no_grad():
        initialize_lora_eva_weights(
            adapted,
            dataloader=enough,
            forward_fn=lambda model, inputs: model(input_ids=inputs["input_ids"]),
            show_progress_bar=False,
        )
