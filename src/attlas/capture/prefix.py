"""What a model keeps of a text's beginning, so that its last token can be run alone, many times over."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache


class Prefix:
    """The keys and values of all tokens of a text but the last.

    Parameters
    ----------
    model : torch.nn.Module
        The model; it runs once.
    ids : Tensor, (n,), int64
        The text, of two tokens or more.

    Attributes
    ----------
    known : bool
        Whether the model gave them; otherwise the last token cannot be run alone.
    size : int
        Numbers that are kept.
    """

    def __init__(self, model: nn.Module, ids: Tensor) -> None:
        self._model, self._last = model, ids[-1:]
        self._cache: DynamicCache | None = None
        if {"past_key_values", "use_cache"} <= set(inspect.signature(model.forward).parameters):
            # Without the model's configuration the cache keeps every key, also those that a window hides.
            cache = DynamicCache()
            with torch.no_grad():
                model(input_ids=ids[None, :-1], past_key_values=cache, use_cache=True)
            self._cache = cache if cache.get_seq_length() == len(ids) - 1 else None

    @property
    def known(self) -> bool:
        return self._cache is not None

    @property
    def size(self) -> int:
        layers = self._cache.layers if self._cache is not None else []
        held = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
        return sum(tensor.numel() for tensor in held if isinstance(tensor, Tensor))

    def run(self, batch: int) -> Any:
        """Run the last token behind the rest in every element of a batch, and return what the model returns."""
        if self._cache is None:
            raise RuntimeError("the model keeps nothing; see `known`")
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(batch)
        with torch.no_grad():
            return self._model(input_ids=self._last.expand(batch, 1), past_key_values=cache, use_cache=True)
