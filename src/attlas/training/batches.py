"""Which examples a step learns from: a pure function of seed and step, so that a run can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.training.examples import Example, Examples
from attlas.training.losses import IGNORED

_SPLIT, _ORDER, _STEP = 1, 2, 3
_PRIME = 1_000_003


def seed_of(seed: int, kind: int, number: int = 0) -> int:
    """Return the seed of one of many independent draws."""
    return ((seed * _PRIME + kind) * _PRIME + number) % 2**63


def step_seed(seed: int, step: int) -> int:
    """Return the seed of what a step draws at random, such as dropout."""
    return seed_of(seed, _STEP, step)


def split(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Return the examples to learn from and those that are held out, at least one of each where `share` is above 0.

    Raises
    ------
    ArgumentError
        There are fewer than two.
    """
    if share == 0:
        return examples, examples.pick(())
    if len(examples) < 2:
        way_out = "give more examples, or hold none out (0)"
        raise ArgumentError(complaint("held_out", wanted="two examples at least", got=len(examples), way_out=way_out))
    count = min(max(1, round(share * len(examples))), len(examples) - 1)
    order = _permutation(len(examples), seed_of(seed, _SPLIT))
    return examples.pick(sorted(order[count:])), examples.pick(sorted(order[:count]))


def chosen(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Return the numbers of the examples of a step, the steps being counted from 0.

    Every example has its turn before any has its next; the order is drawn anew each time.
    """
    places = range(step * batch, (step + 1) * batch)
    orders = {turn: _permutation(count, seed_of(seed, _ORDER, turn)) for turn in {place // count for place in places}}
    return [orders[place // count][place % count] for place in places]


def batch_of(items: tuple[Example, ...] | list[Example]) -> dict[str, Tensor]:
    """Return examples as tensors, padded behind to the longest: ``input_ids`` and ``labels``, int64, (batch, n).

    What is not learnt has the label `IGNORED`. Padding is token 0, which no other token of a causal model sees.
    """
    longest = max(len(item.ids) for item in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, item in enumerate(items):
        known = torch.tensor(item.ids)
        ids[row, : len(known)] = known
        labels[row, : len(known)] = torch.where(torch.tensor(item.learnt), known, IGNORED)
    return {"input_ids": ids, "labels": labels}


def step_batch(examples: Examples, batch: int, seed: int, step: int) -> dict[str, Tensor]:
    """Return the batch of a step."""
    return batch_of([examples.items[index] for index in chosen(len(examples), batch, seed, step)])


def in_batches(examples: Examples, batch: int) -> Iterator[dict[str, Tensor]]:
    """Go through all examples, those of like length together, so that little is padded."""
    items = sorted(examples.items, key=lambda item: len(item.ids))
    for start in range(0, len(items), batch):
        yield batch_of(items[start : start + batch])


def _permutation(count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
