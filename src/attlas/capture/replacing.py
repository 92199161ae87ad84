"""Computes attention calls in the place of a model's own kernels: the mechanism behind plans of efficient patterns.

It comes through the same door as captures and ablations. What a call asks for is read as a capture reads it; and before
the first call of a module is computed in its kernel's place, the kernel is run on a corner of that call and must give
what was read. A call that cannot be read, or whose kernel computes something else, is left to its kernel and noted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attlas.capture.asked import Asked, Asking, Replaced
from attlas.capture.call import Call
from attlas.capture.function_mode import AttentionMode
from attlas.capture.hearing import Hearer, Place, following
from attlas.capture.interface import Scoring, changers, changing
from attlas.capture.witness import Witness
from attlas.errors import ArgumentError, AttlasError, complaint


class Replacement(Witness):
    """Computes the attention calls of one model on one thread.

    Attributes
    ----------
    missed : dict
        Modules whose calls were left to the model's own kernel, and why: name -> reason.
    """

    replaces = True

    def __init__(self, model: nn.Module, numbers: dict[tuple[str, int], int] | None = None) -> None:
        super().__init__(model)
        self.numbers.update(numbers or {})
        self._proved: set[str] = set()

    @abstractmethod
    def compute(self, place: Place, asked: Asked) -> Replaced | None:
        """Compute a call; None leaves it to the model's kernel."""

    # ---- what the door asks

    def change(self, module: nn.Module | None) -> Substitute:
        """Say what is to become of the call that begins."""
        self._frames[-1].heard = True
        return Substitute(self, self.place(module))

    def instead(self, place: Place, asking: Asking) -> Replaced | None:
        """Compute a call, unless it is not known for sure what it asks for."""
        try:
            asked = asking.asked(self.masks)
            if place.name not in self._proved:
                reason = asking.disproved()
                if reason:
                    self.miss(place.label, reason)
                    return None
                if reason == "":
                    self._proved.add(place.name)
        except AttlasError as error:
            self.miss(place.label, str(error))
            return None
        # What listens for attention has heard this call, and need not be asked about each of its small operations.
        with torch._C.DisableTorchFunction():
            return self.compute(place, asked)

    def heard(self, module: nn.Module | None, call: Call) -> None:
        """Nothing is to be done: it takes part before a call is computed, not after."""

    def located(self, module: nn.Module | None) -> Place:
        """Give the call its number."""
        return self.place(module)


@dataclass(frozen=True)
class Substitute:
    """What is to become of one call."""

    replacement: Replacement
    place: Place

    def given(self, scoring: Scoring) -> Scoring:
        """Give the kernel what it is given."""
        return scoring

    def instead(self, asking: Asking) -> Replaced | None:
        """Compute the call in the kernel's place."""
        return self.replacement.instead(self.place, asking)

    def gave(self, output: Tensor) -> Tensor:
        """Leave the output as it is."""
        return output


@contextmanager
def replacing(model: nn.Module, replacement: Replacement) -> Iterator[None]:
    """Let a replacement compute what attends in `model` inside the block, on this thread.

    Raises
    ------
    ArgumentError
        Another one does so already.
    """
    for other in changers():
        if other.replaces and isinstance(other, Hearer) and other.shares(replacement):
            raise ArgumentError(
                complaint(
                    "model",
                    wanted="one to which no plan is applied",
                    got="one inside of another plan's `with` block",
                    way_out="leave that block first",
                )
            )
    with following(model, replacement), changing(replacement), AttentionMode():
        yield


def alone(replacement: Replacement) -> bool:
    """Whether a replacement is at work on this thread, and nobody else changes what attends."""
    return changers() == [replacement]
