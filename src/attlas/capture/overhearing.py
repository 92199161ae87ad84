"""Takes each attention call of a run on the spot, and keeps none of them: for what needs one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from attlas.capture.call import Call
from attlas.capture.function_mode import AttentionMode
from attlas.capture.hearing import Place, following
from attlas.capture.interface import listening
from attlas.capture.keeping import Keeper
from attlas.capture.layer import Layer
from attlas.capture.record import Record, Wanted
from attlas.capture.recorder import checked_model
from attlas.capture.witness import Witness
from attlas.errors import UnsupportedModelError, by_reason

Take = Callable[[Place, Layer], None]
"""Called as ``take(place, layer)`` after each attention call, outside of any gradient."""


class _Overhearing(Witness):
    def __init__(self, model: nn.Module, take: Take, output: bool) -> None:
        super().__init__(model)
        self._take, self._wanted = take, Wanted(output=output)

    def located(self, module: nn.Module | None) -> Place:
        return self.place(module)

    def heard(self, module: nn.Module | None, call: Call) -> None:
        self._frames[-1].heard = True
        place = self.place(module)
        # What is done with a call is many small operations, of which the mode that hears calls need not be asked.
        with torch.no_grad(), self.deaf(), torch._C.DisableTorchFunction():
            layer = Record(place.label, call, Keeper(call.query.device), self._wanted).layer()
            reason = layer.unproved()
            if reason:
                self.miss(place.label, reason)
            else:
                self._take(place, layer)


@contextmanager
def overhearing(model: nn.Module, take: Take, *, output: bool = False) -> Iterator[None]:
    """Hand over each attention call of `model` inside the block, proved on a few rows, and then let go of it.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    take : callable
        ``take(place, layer)``; the layer's tensors are its own.
    output : bool
        Whether the layer is to have what the kernel gave.

    Raises
    ------
    UnsupportedModelError
        At the end of the block: a module's attention could not be heard, or is not what was heard.
    """
    ear = _Overhearing(checked_model(model), take, output)
    with following(model, ear), listening(ear), AttentionMode():
        yield
    if ear.missed:
        raise UnsupportedModelError(by_reason(ear.missed))
