"""A model without weights that finds planted facts by rule, and a plan that makes it forgetful, to test the testers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import attlas
from answering import words
from attlas.models import Facts

POSITIONS = 4096


class Finder(nn.Module):
    """Says the word behind the last "colour place is" of the text, of those that it still remembers."""

    def __init__(self, vocabulary: int, reach: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 4)
        self.reach = reach
        self.by_key = True

    def get_output_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = True) -> Any:
        known = [*(past_key_values or []), *input_ids[0].tolist()]
        logits = torch.zeros(1, input_ids.shape[1], self.embedding.num_embeddings)
        found = self._found(known)
        if found is not None:
            logits[0, -1, found] = 5.0
        return SimpleNamespace(logits=logits, past_key_values=known)

    def _found(self, known: list[int]) -> int | None:
        asked = known[-3:] if self.by_key else known[-1:]
        first = max(0, len(known) - self.reach)
        # A value stands behind "is" and in front of a full stop.
        stop = words().convert_tokens_to_ids(".")
        for end in range(len(known) - 3, first + len(asked), -1):
            if known[end - len(asked) : end] == asked and known[end + 1] == stop:
                return known[end]
        return None


def finder(reach: int = POSITIONS) -> attlas.LanguageModel:
    """Return the model, which finds everything that is no farther away than its reach."""
    tokenizer = words()
    facts = Facts("finder", "rules", "decoder", 1, 1, 1, 4, POSITIONS, len(tokenizer), 1, "f00d")
    return attlas.LanguageModel(Finder(len(tokenizer), reach), tokenizer, facts)


@dataclass
class Forgetful:
    """A stand-in for a plan: while it is applied, the model remembers less, or does not look at keys."""

    lm: attlas.LanguageModel
    reach: int = POSITIONS
    by_key: bool = True

    @contextmanager
    def __call__(self) -> Iterator[None]:
        model: Any = self.lm.model
        model.reach, model.by_key = self.reach, self.by_key
        try:
            yield
        finally:
            model.reach, model.by_key = POSITIONS, True
