"""The loss of a language model on chosen tokens, without logits for the others."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORED = -100
"""The label of a token that is read but not learnt; PyTorch's own."""


def summed_loss(model: nn.Module, ids: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Return the summed negative log-likelihood of the tokens to be learnt, and how many they are.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model of transformers.
    ids : Tensor, int64, (batch, n)
        Padded behind; a causal model's tokens do not see what comes after them, so no mask is needed.
    labels : Tensor, int64, (batch, n)
        The same, with `IGNORED` for what is not learnt.

    Returns
    -------
    (Tensor, int)
        In nats, float32.

    Notes
    -----
    Where a model can be asked for the logits of some positions only, those at which nothing is learnt are left out:
    the largest tensor of a step, (batch, positions, vocabulary), then holds what is needed.
    """
    model_device = next(model.parameters()).device
    ids, labels = ids.to(model_device), labels.to(model_device)
    after = labels[:, 1:]
    arguments = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in arguments else {}
    if "logits_to_keep" in arguments:
        learnt = (after != IGNORED).any(0).nonzero().flatten()
        logits, after = model(input_ids=ids, logits_to_keep=learnt, **options).logits, after[:, learnt]
    else:
        logits = model(input_ids=ids, **options).logits[:, :-1]
    flat = logits.flatten(0, 1).float()
    loss = functional.cross_entropy(flat, after.flatten(), ignore_index=IGNORED, reduction="sum")
    return loss, int((after != IGNORED).sum())


def mean_loss(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the tokens to be learnt, in nats; see `summed_loss`."""
    loss, count = summed_loss(model, ids, labels)
    return loss / max(count, 1)


@torch.no_grad()
def mean_losses(model: nn.Module, batches: Any) -> float:
    """Return the mean over all tokens to be learnt of several batches, each a dictionary of ids and labels."""
    total, count = 0.0, 0
    for batch in batches:
        loss, tokens = summed_loss(model, batch["input_ids"], batch["labels"])
        total, count = total + float(loss), count + tokens
    return total / max(count, 1)
