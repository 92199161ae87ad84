"""What each head gives, and how much a result depends on it: its output, with a place to read the gradient from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attlas.capture.hearing import Place
from attlas.capture.interface import Scoring
from attlas.capture.intervention import Editor, editing


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """The heads' outputs of one attention call.

    Parameters
    ----------
    place : Place
        Which call.
    output : Tensor, (batch, head, n_query, value_dim)
        What the kernel gave, without gradient.
    probe : Tensor, (batch, head, n_query, value_dim)
        Zeros that were added to it: the gradient with respect to them is that with respect to the output.
    """

    place: Place
    output: Tensor
    probe: Tensor


class _Probing(Editor):
    def __init__(self, model: nn.Module, keep_patterns: bool) -> None:
        super().__init__(model)
        self.found: list[HeadOutputs] = []
        self._keep_patterns = keep_patterns

    def given(self, place: Place, scoring: Scoring) -> Scoring:
        return (
            scoring._replace(query=scoring.query.detach(), key=scoring.key.detach()) if self._keep_patterns else scoring
        )

    def gave(self, place: Place, output: Tensor) -> Tensor:
        probe = torch.zeros_like(output, requires_grad=True)
        self.found.append(HeadOutputs(place, output.detach(), probe))
        return output + probe


@contextmanager
def probed_outputs(model: nn.Module, *, keep_patterns: bool = False) -> Iterator[list[HeadOutputs]]:
    """Collect every attention call's output, with a place to read its gradient from.

    Parameters
    ----------
    model : torch.nn.Module
        The model; its parameters need not require gradients.
    keep_patterns : bool
        Let no gradient flow through queries and keys, so that patterns count as fixed.

    Yields
    ------
    list of HeadOutputs
        In the order of the calls.
    """
    probing = _Probing(model, keep_patterns)
    with editing(model, probing):
        yield probing.found
