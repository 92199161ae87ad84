"""Knows which module of a model is running on this thread, and gives each attention call its layer's number.

A capture hears calls, an ablation changes them; both are told where they are by the same hooks, so that layer 12 of the
one is layer 12 of the other.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass
class Frame:
    """A module whose forward is running."""

    name: str
    attends: bool
    heard: bool = False
    settled: bool = False  # something inside was heard, so this may be but a wrapper
    suspects: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Which attention call this is.

    Parameters
    ----------
    name : str
        The module's name.
    turn : int
        How many calls the module has made before in this forward pass: shared layers run several times, so a layer is
        the module and the turn.
    number : int
        The layer's number, in the order of first calls.
    """

    name: str
    turn: int
    number: int

    @property
    def label(self) -> str:
        """What people read: the module, and which of its turns."""
        return self.name if self.turn == 0 else f"{self.name} (turn {self.turn + 1})"


class Hearer(ABC):
    """Follows one model on the thread that made it.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    numbers : dict, optional
        The numbers of layers that are known already: (name, turn) -> number.
    """

    def __init__(self, model: nn.Module, numbers: dict[tuple[str, int], int] | None = None) -> None:
        self.numbers: dict[tuple[str, int], int] = dict(numbers or {})
        self._names = {id(module): name or type(module).__name__ for name, module in model.named_modules()}
        self._thread = threading.get_ident()
        self._frames: list[Frame] = []
        self._turns: dict[str, int] = {}
        self._first_turns: dict[str, int] = {}
        self._deaf = False

    # ---- what the hooks say

    def entering(self, module: nn.Module) -> None:
        """Note that a module's forward begins."""
        if self._deaf or threading.get_ident() != self._thread:
            return
        if not self._frames:
            self._turns = dict(self._first_turns)
            self._began()
        attends = "Attention" in type(module).__name__
        self._frames.append(Frame(self._names[id(module)], attends))

    def leaving(self, module: nn.Module) -> None:
        """Note that a module's forward has ended, or was ended by an exception."""
        if self._deaf or threading.get_ident() != self._thread:
            return
        name = self._names[id(module)]
        # A forward that was cut short may have left frames of its children behind.
        if not any(frame.name == name for frame in reversed(self._frames)):
            return
        while (frame := self._frames.pop()).name != name:
            pass
        self._left(frame)

    @abstractmethod
    def _began(self) -> None:
        """Take the news that a pass through the model, or through a part of it, begins."""

    @abstractmethod
    def _left(self, frame: Frame) -> None:
        """Take the news that the forward of a module has ended; what is still running is in `_frames`."""

    # ---- where it is

    def inside(self) -> bool:
        """Whether a module of the model is running on this thread, and its call is not already being dealt with."""
        return bool(self._frames) and not self._deaf and threading.get_ident() == self._thread

    def hears(self, module: nn.Module) -> bool:
        """Whether an attention call that `module` makes is one of this model's."""
        return self.inside()

    def place(self, module: nn.Module | None) -> Place:
        """Give an attention call its number: a call of `module`, or of the module that is running."""
        running = self._frames[-1].name
        name = running if module is None else self._names.get(id(module), running)
        turn = self._turns[name] = self._turns.get(name, -1) + 1
        return Place(name, turn, self.numbers.setdefault((name, turn), len(self.numbers)))

    @property
    def running(self) -> str:
        """The module that is running."""
        return self._frames[-1].name if self._frames else ""

    def shares(self, other: Hearer) -> bool:
        """Whether both follow some of the same modules."""
        return bool(self._names.keys() & other._names.keys())

    # ---- what it does not hear

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Do not hear what happens inside."""
        before, self._deaf = self._deaf, True
        try:
            yield
        finally:
            self._deaf = before

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Take what happens inside for passes of their own, and then go on as before."""
        before = self._frames, self._turns
        self._frames, self._turns = [], {}
        try:
            yield
        finally:
            self._frames, self._turns = before

    @property
    def turns(self) -> dict[str, int]:
        """The last turn of every module that has attended in the pass that is running."""
        return dict(self._turns)

    @contextmanager
    def continuing(self, turns: dict[str, int]) -> Iterator[None]:
        """Take what happens inside for the rest of a pass in which modules have had these turns."""
        before, self._first_turns = self._first_turns, turns
        try:
            yield
        finally:
            self._first_turns = before


@contextmanager
def following(model: nn.Module, hearer: Any) -> Iterator[None]:
    """Tell `hearer` of every forward of every module of `model` but its plain linear maps.

    Nothing can happen inside of these, and they are about half of all that a transformer calls.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if type(module) is nn.Linear:
                continue
            stack.callback(module.register_forward_pre_hook(lambda module, _: hearer.entering(module)).remove)
            # `always_call`: a frame is popped also when the forward raises.
            hook = module.register_forward_hook(lambda module, *_: hearer.leaving(module), always_call=True)
            stack.callback(hook.remove)
        yield
