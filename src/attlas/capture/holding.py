"""A cache that holds only the keys and values that a window and first tokens need, however long the text gets.

What a layer of it hands to attention is the first tokens, then the nearest ones: a text with a gap. A pattern that
keeps the first tokens and a window counts from both ends, so on such a text it keeps just what it would keep on the
whole one. Nothing else may attend to it, so the gap is known wherever those keys go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from attlas.errors import ArgumentError, CaptureError, complaint


@dataclass(frozen=True)
class Span:
    """What of a text is held.

    Parameters
    ----------
    first : int
        How many of the first tokens.
    nearest : int
        How many tokens a query sees, itself included.
    """

    first: int
    nearest: int


_gaps: dict[int, tuple[weakref.ref[Tensor], int]] = {}


def gap_of(key: Tensor) -> int:
    """Return how many tokens are missing among these keys: 0 unless a layer of this kind has handed them out."""
    reference, missing = _gaps.get(id(key), (None, 0))
    return missing if reference is not None and reference() is key else 0


def _note(key: Tensor, missing: int) -> None:
    place = id(key)

    def forget(reference: weakref.ref[Tensor]) -> None:
        if _gaps.get(place, (None, 0))[0] is reference:
            del _gaps[place]

    _gaps[place] = weakref.ref(key, forget), missing


class HeldLayer(DynamicLayer):
    """One layer's keys and values: the first ones, and as many of the nearest as are ever needed again.

    Parameters
    ----------
    span : Span
        What is held.
    in_use : callable
        Whether what attends to it knows of the gap.
    """

    def __init__(self, span: Span, in_use: Callable[[], bool]) -> None:
        super().__init__()
        self.span = span
        self.read = 0
        self._in_use = in_use

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take new keys and values; return those that the new tokens may need."""
        if not self._in_use():
            raise CaptureError(
                "past_key_values: this cache holds only what a plan needs, and was used outside of the plan's `with` "
                "block or beside another change of what attends; use the model's own cache there"
            )
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        self.read += key_states.shape[-2]
        if self.read > keys.shape[-2]:
            _note(keys, self.read - keys.shape[-2])
        self.keys, self.values = self._held(keys), self._held(values)
        return keys, values

    def _held(self, tensor: Tensor) -> Tensor:
        """Return what the next token may need, in memory of its own."""
        first, nearest, length = self.span.first, self.span.nearest - 1, tensor.shape[-2]
        if length <= first + nearest:
            return tensor
        return torch.cat([tensor[..., :first, :], tensor[..., length - nearest :, :]], dim=-2)

    def get_seq_length(self) -> int:
        """Return how many tokens were read, held or not."""
        return self.read

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the size of a mask for the whole text."""
        return self.read + query_length, 0

    def reset(self) -> None:
        """Forget what was read."""
        super().reset()
        self.read = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse: what was let go of cannot be had back.

        Raises
        ------
        ArgumentError
            There is something to be removed.
        """
        if tokens_to_remove:
            raise ArgumentError(
                complaint(
                    "past_key_values",
                    wanted="a cache that can go back (assisted generation takes tokens back)",
                    got="one that holds only what a plan needs",
                    way_out="use the model's own cache",
                )
            )


def held_cache(config: Any, spans: Mapping[int, Span], in_use: Callable[[], bool]) -> DynamicCache:
    """Return an empty cache for a model.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's; layers with a window of their own keep their own kind of cache.
    spans : mapping
        The layer's index in the cache -> what of it is held; of other layers everything is.
    in_use : callable
        Whether what attends to it knows of the gaps.
    """
    cache = DynamicCache(config=config)
    for index, span in spans.items():
        if index < len(cache.layers) and type(cache.layers[index]) is DynamicLayer:
            cache.layers[index] = HeldLayer(span, in_use)
    return cache
