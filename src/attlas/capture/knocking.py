"""Attention knockout: keys that no query sees, in chosen layers, without a mask of queries times keys.

A kernel whose values are zero at the hidden keys gives each row's sum over the others; the same kernel, with ones there
instead of values, gives the attention that the others have. The quotient is the attention with the hidden keys left out
of the softmax (Geva et al. 2023, "Dissecting Recall of Factual Associations in Auto-Regressive Language Models", set
those scores to minus infinity, which is the same). No difference of large numbers is taken, so it is exact also where
the hidden keys had nearly all of the attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture.hearing import Place
from attlas.capture.interface import Scoring
from attlas.capture.intervention import Edit, Editor, editing
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError, complaint


class Knockout(Editor):
    """Hides keys from all queries, those of their own tokens among them.

    A row that is left with nothing gives zeros.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    hidden : Tensor, (batch or 1, n_key), bool
        Which keys; calls with another number of keys are left alone.
    layers : sequence of int or str, optional
        In which layers, by number or module name; all by default.

    Notes
    -----
    The kernel is given every call twice in one batch, so a capture that is open at the same time hears twice as many
    texts.
    """

    def __init__(self, model: nn.Module, hidden: Tensor, layers: Sequence[int | str] | None = None) -> None:
        super().__init__(model)
        self._hidden = hidden
        self._layers = None if layers is None else set(layers)
        self._met: set[int | str] = set()
        self._doubled = False

    def change(self, module: nn.Module | None) -> Edit:
        """Refuse a call whose batch cannot be doubled."""
        if module is None:
            raise UnsupportedModelError(
                "model: it attends without transformers' attention interface, where keys cannot be hidden from it"
            )
        return super().change(module)

    def given(self, place: Place, scoring: Scoring) -> Scoring:
        """Take the hidden values away, and ask beside it for the attention that is left."""
        self._doubled = False
        if self._layers is not None:
            found: set[int | str] = {place.number, place.name} & self._layers
            self._met |= found
            if not found:
                return scoring
        value, batch = scoring.value, scoring.query.shape[0]
        if value is None or value.dim() != 4 or value.shape[-1] < 2:
            raise UnsupportedModelError(f"{place.name}: its values cannot be told by batch, head, key and width")
        if value.shape[2] != self._hidden.shape[1]:
            return scoring
        kept = (~self._hidden).to(value.device)[:, None, :, None]
        shares = torch.zeros_like(value)
        shares[..., 0] = kept[..., 0]
        shares[..., 1] = 1
        self._doubled = True
        return Scoring(
            scoring.query.repeat(2, 1, 1, 1),
            scoring.key.repeat(2, 1, 1, 1),
            _twice(scoring.mask, batch),
            _twice(scoring.bias, batch),
            torch.cat([value * kept, shares]),
        )

    def gave(self, place: Place, output: Tensor) -> Tensor:
        """Divide what the keys that are left pass on by the attention that they have."""
        if not self._doubled:
            return output
        summed, shares = output.chunk(2)
        kept, every = shares[..., :1], shares[..., 1:2]
        # With a learned sink, attention does not sum to one: what the sink has stays in the softmax.
        sink = (1 - every).clamp(min=0)
        if float(sink.max()) <= torch.finfo(output.dtype).eps ** 0.5:
            sink = torch.zeros_like(sink)
        left = kept + sink
        return torch.where(left > 0, summed / torch.where(left > 0, left, 1), 0)

    def check(self) -> None:
        """Complain if a layer that was named never ran, or none did.

        Raises
        ------
        CaptureError
            The model made no attention call.
        ArgumentError
            A layer does not exist.
        """
        if not self.numbers:
            raise CaptureError("model: wanted a call that attends, inside of the `with` block; got none")
        for layer in (self._layers or set()) - self._met:
            wanted = f"layers from 0 to {len(self.numbers) - 1}, or names of attention modules that ran"
            raise ArgumentError(complaint("layers", wanted=wanted, got=repr(layer)))


@contextmanager
def knocked_out(model: nn.Module, hidden: Tensor, layers: Sequence[int | str] | None = None) -> Iterator[None]:
    """Hide keys from all queries of everything that `model` computes inside the block; see `Knockout`.

    Raises
    ------
    UnsupportedModelError
        The model does not attend through transformers' attention interface.
    ArgumentError, CaptureError
        On leaving: a layer does not exist, or nothing attended.
    """
    knockout = Knockout(model, hidden, layers)
    with editing(model, knockout):
        yield
    knockout.check()


def _twice(mask: Any, batch: int) -> Any:
    """Return a mask or bias for a batch that has been doubled."""
    if not isinstance(mask, Tensor) or mask.dim() < 4 or mask.shape[0] == 1:
        return mask
    if mask.stride(0) == 0:
        return mask[:1]
    return torch.cat([mask, mask])
