"""A step of cached decoding under a plan: one query for each text, and a cache of keys of which most stay unread.

Where everything is a matter of positions, heads are answered from those of the model's own keys that they keep. No
matrix is made, and no key looked at that no head attends to; that a number is not finite shows in the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from attlas.capture.asked import Asked
from attlas.errors import UnsupportedModelError
from attlas.patterns import Dilated, Full, Pattern, SlidingWindow
from attlas.patterns.chunk import Bend
from attlas.patterns.last_row import Spans, attend_last, keys_of

_TOKENS_GONE = "the model's cache has let go of the first tokens, and this pattern counts from them"


@dataclass(frozen=True)
class _Texts:
    """Neighbours in a batch whose texts begin at the same key.

    Parameters
    ----------
    batch : slice
    start : int
        Where they begin; padding stands before.
    gone : int
        How many of their first tokens the model's own cache has let go of.
    """

    batch: slice
    start: int
    gone: int


@dataclass(frozen=True, eq=False)
class Step:
    """A call that asks for the next token of each text, and how its texts lie in the batch; made by `of`."""

    asked: Asked
    texts: tuple[_Texts, ...]

    @classmethod
    def of(cls, asked: Asked) -> Self | None:
        """Return the step that a call is; None where it is none, or takes more than positions to answer."""
        tensors, rule = (asked.query, asked.key, asked.value), asked.rule
        if asked.n_query > 1 or not (asked.aligned and rule.causal and rule.structured and asked.bias is None):
            return None
        # What PyTorch's own tensors need not be asked through a function mode costs a step less.
        if any(type(tensor) is not Tensor for tensor in tensors):
            return None
        with torch._C.DisableTorchFunction():
            learned = tensors if asked.sinks is None else (*tensors, asked.sinks)
            if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learned):
                return None
            if len({(tensor.dtype, tensor.device) for tensor in tensors}) > 1:
                return None
        if not rule.padded_left:
            return None
        batch = asked.query.shape[0]
        texts: list[_Texts] = []
        for element, place in enumerate(zip(asked.starts, asked.dropped or (0,) * batch, strict=True)):
            if texts and (texts[-1].start, texts[-1].gone) == place:
                texts[-1] = replace(texts[-1], batch=slice(texts[-1].batch.start, element + 1))
            else:
                texts.append(_Texts(slice(element, element + 1), *place))
        return cls(asked, tuple(texts))

    def covers(self, pattern: Pattern) -> bool:
        """Tell whether the keys that this pattern keeps are known."""
        return all(self._spans(pattern, texts) is not None for texts in self.texts)

    def attend(self, pattern: Pattern, heads: Sequence[int]) -> Tensor | None:
        """Run a pattern on some heads: (batch, len(heads), 1, value_dim).

        None where it is not known which keys are kept, or the answer is not a number, be it that one that was read is
        none, or that something overflows: the exact matrix tells the two apart.
        """
        asked = self.asked
        bend = Bend(asked.scale, asked.softcap, asked.sinks)
        parts = []
        with torch._C.DisableTorchFunction(), torch.no_grad(), _uncast(asked.query.device.type):
            for texts in self.texts:
                spans = self._spans(pattern, texts)
                if spans is None:
                    return None
                query, key, value = asked.query, asked.key, asked.value
                if len(self.texts) > 1:
                    query, key, value = query[texts.batch], key[texts.batch], value[texts.batch]
                if texts.start:
                    key, value = key[:, :, texts.start :], value[:, :, texts.start :]
                parts.append(attend_last(query, key, value, heads, spans, bend))
            out = parts[0] if len(parts) == 1 else torch.cat(parts)
            return None if math.isnan(float(out.sum())) else out

    def _spans(self, pattern: Pattern, texts: _Texts) -> Spans | None:
        if isinstance(pattern, Full) and self.asked.gap:
            return None
        try:
            pattern = anchored(pattern, texts.gone)
        except UnsupportedModelError:
            return None
        return keys_of(pattern, self.asked.n_key - texts.start, self.asked.rule.window)


def _uncast(device: str) -> AbstractContextManager[object]:
    """Keep a caller's automatic mixed precision out of a step."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def anchored(pattern: Pattern, gone: int) -> Pattern:
    """Return what a pattern means where the model's own cache, of a sliding window, has let go of the first tokens.

    These are out of the model's own sight, so sinks among them are lost with or without a cache.

    Raises
    ------
    UnsupportedModelError
        Nothing: the pattern counts from the text's first token.
    """
    if not gone or isinstance(pattern, Full):
        return pattern
    if isinstance(pattern, SlidingWindow | Dilated):
        return replace(pattern, sinks=max(0, pattern.sinks - gone))
    raise UnsupportedModelError(_TOKENS_GONE)
