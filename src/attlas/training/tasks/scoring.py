"""How well a model answers items: the loss of the answers, and how many of them it writes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, complaint
from attlas.models.progress import Progress
from attlas.training.tasks.task import Item


@dataclass(frozen=True)
class Score:
    """How well items are answered.

    Parameters
    ----------
    losses : tuple of float
        For each item the mean loss of its answer's tokens, in nats.
    right : tuple of bool
        Whether the model, writing the likeliest token each time, writes the whole answer.
    """

    losses: tuple[float, ...]
    right: tuple[bool, ...]

    @property
    def loss(self) -> float:
        """The mean over items, in nats a token."""
        return sum(self.losses) / len(self.losses)

    @property
    def accuracy(self) -> float:
        """The share of items that are answered right."""
        return sum(self.right) / len(self.right)


def score(
    lm: LanguageModel,
    items: Sequence[Item],
    *,
    model: nn.Module | None = None,
    batch: int = 32,
    progress: Progress | None = None,
) -> Score:
    """Measure how well a model answers items.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokenizer, and model, are used.
    items : sequence of Item
    model : torch.nn.Module, optional
        What answers in the place of ``lm.model``: the same model with an adapter around it.
    batch : int
        Items that are read together.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Score

    Raises
    ------
    ArgumentError
        There are no items, or `batch` is below 1.

    Notes
    -----
    Prompt and answer are cut into tokens apart, so the answer's first token is the same whatever follows. Greedy
    writing gives the whole answer exactly if each of its tokens is the likeliest after the right ones before it, so one
    forward pass tells.
    """
    if not items:
        raise ArgumentError(complaint("items", wanted="at least one item", got="none"))
    if batch < 1:
        raise ArgumentError(complaint("batch", wanted="a whole number from 1", got=batch))
    asked: Any = lm.model if model is None else model
    training = asked.training
    losses: list[float] = []
    right: list[bool] = []
    try:
        asked.eval()
        for start in range(0, len(items), batch):
            if progress is not None:
                progress(start, len(items), "answering")
            some = [_tokens(lm.tokenizer, item) for item in items[start : start + batch]]
            loss, same = _answered(asked, some)
            losses += loss
            right += same
    finally:
        asked.train(training)
    return Score(tuple(losses), tuple(right))


def _tokens(tokenizer: Any, item: Item) -> tuple[list[int], list[int]]:
    prompt = tokenizer(item.prompt)["input_ids"]
    return prompt, tokenizer(item.answer, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def _answered(model: Any, items: Sequence[tuple[list[int], list[int]]]) -> tuple[list[float], list[bool]]:
    length = max(len(prompt) + len(answer) for prompt, answer in items)
    device = next(model.parameters()).device
    ids = torch.zeros(len(items), length, dtype=torch.long)
    wanted = torch.full((len(items), length), -100)
    for row, (prompt, answer) in enumerate(items):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        wanted[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    # What stands after an item is seen by none of its tokens: a causal model needs no mask for it.
    logits: Tensor = model(input_ids=ids.to(device), use_cache=False).logits[:, :-1].float()
    wanted = wanted[:, 1:].to(device)
    asked = wanted != -100
    each = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
    wrong = (logits.argmax(-1) != wanted) & asked
    return (each.sum(1) / asked.sum(1)).tolist(), (~wrong.any(1)).tolist()
