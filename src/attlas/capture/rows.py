"""Puts other attention weights in the place of a row of some heads, while a model runs: nothing else of it changes.

The head's output at that row becomes the sum of the call's own values by the given weights. Many variants run in one
batch, each element with changes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attlas.capture.hearing import Place
from attlas.capture.interface import Scoring
from attlas.capture.intervention import Editor
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError, complaint


@dataclass(frozen=True, eq=False)
class RowChange:
    """Other weights for one row of some heads of one layer.

    Parameters
    ----------
    element : int
        In which element of the batch.
    layer : int
        In which layer, numbered as a capture numbers it.
    heads : Tensor, (head,), int64
        Of which heads.
    weights : Tensor, (head, n_key)
        What the row becomes. With fewer keys in the call (a cache that has let go of those outside of a window), the
        last ones.
    """

    element: int
    layer: int
    heads: Tensor
    weights: Tensor


class Rows(Editor):
    """Gives a row of some heads other weights.

    Parameters
    ----------
    model : torch.nn.Module
        The model; it attends in self-attention of one stack.
    changes : sequence of RowChange
        What is changed.
    row : int
        Which row of a call's queries, from 0, or from the end if negative.
    numbers : dict, optional
        Numbers of layers that are known already.
    """

    def __init__(
        self,
        model: nn.Module,
        changes: Sequence[RowChange],
        row: int,
        numbers: dict[tuple[str, int], int] | None = None,
    ) -> None:
        super().__init__(model, numbers)
        self._changes: dict[int, list[RowChange]] = {}
        for change in changes:
            self._changes.setdefault(change.layer, []).append(change)
        self._row = row
        self._met: set[int] = set()
        self._value: Tensor | None = None

    def given(self, place: Place, scoring: Scoring) -> Scoring:
        """Remember the values."""
        self._value = scoring.value if place.number in self._changes else None
        return scoring

    def gave(self, place: Place, output: Tensor) -> Tensor:
        """Put the changed rows in."""
        changes = self._changes.get(place.number)
        if not changes:
            return output
        self._met.add(place.number)
        value, self._value = self._value, None
        if value is None or value.dim() != 4 or value.is_nested or output.shape[1] % value.shape[1]:
            raise UnsupportedModelError(
                f"{place.name}: its values are not split into heads when they are given to the kernel, so a row cannot "
                "be changed there"
            )
        element = torch.cat([torch.full_like(change.heads, change.element) for change in changes]).to(output.device)
        head = torch.cat([change.heads for change in changes]).to(output.device)
        if int(head.max()) >= output.shape[1] or int(element.max()) >= output.shape[0]:
            wanted = f"heads below {output.shape[1]} and elements below {output.shape[0]} in layer {place.number}"
            raise ArgumentError(complaint("changes", wanted=wanted, got=f"{int(head.max())} and {int(element.max())}"))
        weights = torch.cat([change.weights for change in changes]).to(output.device)
        n_key = value.shape[2]
        if weights.shape[1] < n_key or bool((weights[:, : weights.shape[1] - n_key] != 0).any()):
            wanted = f"weights for {n_key} keys in layer {place.number} ({place.name})"
            raise ArgumentError(complaint("changes", wanted=wanted, got=f"weights for {weights.shape[1]}"))
        given = value[element, head // (output.shape[1] // value.shape[1])]
        rows = torch.einsum("ck,ckd->cd", weights[:, -n_key:].to(value.dtype), given)
        output = output.clone()
        output[element, head, self._row] = rows.to(output.dtype)
        return output

    def check(self) -> None:
        """Complain if what was to be changed was never run.

        Raises
        ------
        CaptureError
            A layer made no attention call.
        """
        if missing := sorted(self._changes.keys() - self._met):
            raise CaptureError(
                f"model: wanted attention calls of layers {', '.join(map(str, missing))} to change, and got none; they "
                "did not run inside of the block, or on another thread"
            )
