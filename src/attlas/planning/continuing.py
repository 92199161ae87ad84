"""How a model goes on with a text, taking the likeliest token each time."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.capture.asking import predicts
from attlas.errors import UnsupportedModelError


class Continuation(NamedTuple):
    """What a model goes on with.

    Parameters
    ----------
    tokens : tuple of int
        The likeliest token at each step.
    first : Tensor, (vocabulary,)
        Logits of the first step.
    """

    tokens: tuple[int, ...]
    first: Tensor


def greedy(lm: LanguageModel, ids: Sequence[int], count: int) -> Continuation:
    """Continue a text by the likeliest token, `count` times, never stopping before.

    Parameters
    ----------
    lm : LanguageModel
        A model that predicts next tokens and can keep what it has read.
    ids : sequence of int
        The text's tokens.
    count : int
        How many to add; from 1.

    Raises
    ------
    UnsupportedModelError
        The model predicts no next token.

    Notes
    -----
    Reads the text once, and each new token by itself, with the model's own cache. Logits are made for one row at a
    time where the model can do so.
    """
    if not predicts(lm):
        raise UnsupportedModelError(f"{lm.name}: predicts no next token, so it cannot go on with a text")
    given = torch.tensor([list(ids)], device=next(lm.model.parameters()).device)
    stepper = Stepper(lm)
    first = stepper.read(given)
    row, tokens = first, [int(first.argmax())]
    for _ in range(count - 1):
        row = stepper.read(given.new_tensor([[tokens[-1]]]))
        tokens.append(int(row.argmax()))
    return Continuation(tuple(tokens), first)


class Stepper:
    """Reads tokens one after another, and remembers those that it has read."""

    def __init__(self, lm: LanguageModel) -> None:
        self._model: Any = lm.model
        takes = inspect.signature(self._model.forward).parameters
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self._cache: Any = None

    def read(self, ids: Tensor) -> Tensor:
        """Read tokens, (1, n), and return the logits behind the last one, (vocabulary,)."""
        with torch.no_grad():
            output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **self._options)
        self._cache = output.past_key_values
        return output.logits[0, -1]
