"""A hearer who must not miss anything: knows which modules should have been heard to attend, but were not."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn

from attlas.capture.call import Call
from attlas.capture.hearing import Frame, Hearer, Place
from attlas.capture.visibility import MaskMemory


class Witness(Hearer):
    """Hears the attention calls of one model on one thread.

    Attributes
    ----------
    masks : MaskMemory
        What is known about masks.
    missed : dict
        Modules whose attention was not heard, and why.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.masks = MaskMemory()
        self.missed: dict[str, str] = {}

    @abstractmethod
    def heard(self, module: nn.Module | None, call: Call) -> None:
        """Take an attention call."""

    @abstractmethod
    def located(self, module: nn.Module | None) -> Place:
        """Say which call is being heard, or refused."""

    # ---- what the hooks say

    def _began(self) -> None:
        self.masks.forget_dead()

    def _left(self, frame: Frame) -> None:
        if frame.heard and frame.attends:
            # What it is made of may be named after attention too, and is no attention itself.
            frame.suspects.clear()
        elif frame.attends and not (frame.heard or frame.settled or frame.suspects):
            frame.suspects.append(frame.name)
        if self._frames:
            self._frames[-1].suspects += frame.suspects
            self._frames[-1].settled |= frame.heard or frame.settled
            return
        for suspect in frame.suspects:
            self.miss(suspect, "it computes its attention in code of its own")

    # ---- what the interface and the function mode say

    def saw_softmax(self) -> None:
        """Note a softmax over four axes outside of any known function: the module computes attention of its own."""
        self._frames[-1].attends = True

    def refused(self, module: nn.Module | None, reason: str) -> None:
        """Note that an attention call cannot be described."""
        self._frames[-1].heard = True
        self.miss(self.located(module).name, reason)

    def miss(self, name: str, reason: str) -> None:
        """Note that a module's attention is not known; the first reason stays."""
        self.missed.setdefault(name, reason)
