"""Listens in on attention where gradients flow: each call's matrix, and the tensors to read its gradients from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attlas.capture.asked import Asking
from attlas.capture.attended import Gradients
from attlas.capture.call import Call
from attlas.capture.hearing import Place
from attlas.capture.interface import Scoring
from attlas.capture.keeping import Keeper
from attlas.capture.layer import Layer
from attlas.capture.record import Record, Wanted
from attlas.capture.witness import Witness
from attlas.errors import UnsupportedModelError

_HIDDEN = (
    "it does not show its heads' keys and values (torch.nn.MultiheadAttention projects them inside of the call), so "
    "their gradients cannot be read"
)


@dataclass(eq=False)
class Tapped:
    """An attention call in a graph.

    Parameters
    ----------
    place : Place
        Which call.
    query, key, value : Tensor
        What the kernel was given; the gradient with respect to `key` and `value` is that of this call alone.
    output : Tensor
        What the kernel gave, (batch, head, n_query, value_dim).
    layer : Layer
        The call's matrix, with values and output.
    """

    place: Place
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    layer: Layer

    @property
    def read_from(self) -> list[Tensor]:
        """The tensors whose gradients are wanted: output, key, value."""
        return [self.output, self.key, self.value]

    def gradients(self, found: Sequence[Tensor | None]) -> Gradients:
        """Make one target's gradients of those of `read_from`; None means that it does not depend on them."""
        output, key, value = (
            torch.zeros_like(tensor, requires_grad=False) if gradient is None else gradient.detach()
            for tensor, gradient in zip(self.read_from, found, strict=True)
        )
        # A cache of fixed size has unwritten keys behind, which the matrix leaves out.
        n_key = self.layer.key.shape[2]
        return Gradients(output, key[:, :, :n_key], value[:, :, :n_key])


class Tap(Witness):
    """Hears and taps the attention calls of one model on one thread.

    Parameters
    ----------
    model : torch.nn.Module
        The model.

    Attributes
    ----------
    begins : callable
        ``begins(place)`` is told of every call, and returns whether to tap it; all of them, until it is set.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.begins: Callable[[Place], bool] = _always
        self.tapped: list[Tapped] = []
        self._place: Place | None = None
        self._wanted = False
        self._scoring: Scoring | None = None
        self._call: Call | None = None

    # ---- as a changer, in the order of what happens

    replaces = False

    def change(self, module: nn.Module | None) -> Tap:
        """Begin a call."""
        self._place = self.place(module)
        self._wanted = self.begins(self._place)
        self._scoring = self._call = None
        return self

    def given(self, scoring: Scoring) -> Scoring:
        """Give the kernel the same numbers, as tensors of this call's own."""
        value = scoring.value
        if not self._wanted or scoring.key.dim() != 4 or value is None or value.dim() != 4:
            return scoring
        self._scoring = scoring._replace(key=_own(scoring.key), value=_own(value))
        return self._scoring

    def instead(self, asking: Asking) -> None:
        """Leave the call to the kernel."""
        del asking

    def gave(self, output: Tensor) -> Tensor:
        """Tap the call."""
        place, scoring, call = self._place, self._scoring, self._call
        self._scoring = self._call = None
        if not self._wanted or place is None:
            return output
        if scoring is None or scoring.value is None:
            self.miss(place.name, _HIDDEN)
            return output
        if call is None:
            # It was refused, and why is known.
            return output
        if call.key.shape[:2] != scoring.key.shape[:2] or call.output.shape != output.shape:
            self.miss(place.name, "its batch elements share keys and values, so their gradients cannot be told apart")
            return output
        if not (scoring.query.requires_grad or scoring.key.grad_fn or scoring.value.grad_fn):
            self.miss(place.name, "no gradient reaches it")
            return output
        record = Record(place.label, call, Keeper(output.device), Wanted(values=True, output=True))
        self.tapped.append(Tapped(place, scoring.query, scoring.key, scoring.value, output, record.layer()))
        # A copy: what the model writes into it later is no part of what the kernel gave.
        return output.clone()

    # ---- as a listener

    def heard(self, module: nn.Module | None, call: Call) -> None:
        """Note what the kernel computed."""
        self._frames[-1].heard = True
        self._call = call

    def located(self, module: nn.Module | None) -> Place:
        """Return the call that has begun."""
        if self._place is None:
            raise RuntimeError("an attention call is heard that has not begun")
        return self._place

    # ---- at the end of a part

    def take(self) -> list[Tapped]:
        """Hand over what was tapped, proved.

        Raises
        ------
        UnsupportedModelError
            A matrix does not reproduce its kernel's output.
        """
        tapped, self.tapped = self.tapped, []
        for one in tapped:
            if reason := one.layer.unproved():
                raise UnsupportedModelError(f"{one.layer.name}: {reason}")
        return tapped


def _always(_: Place) -> bool:
    return True


def _own(tensor: Tensor) -> Tensor:
    """Return the same numbers as a tensor of its own, which a gradient can be taken with respect to."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
