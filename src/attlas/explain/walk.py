"""A walk: a method that goes through a model's attention from the top layer down, carrying what it has found so far.

For one target, most explanations by attention are a row vector times one matrix a layer. So a walk holds a row for each
target, meets each attention call once, and never holds anything of n × n numbers; several walks go down together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from attlas.capture.attended import Attended
from attlas.explain.reading import Reading


@dataclass(frozen=True, eq=False)
class Found:
    """What a method has found; tensors are float64 on the CPU.

    Parameters
    ----------
    scores : Tensor, (target, n)
        Each token's relevance for each target.
    layers : Tensor, (target, layer, n), optional
        The same on the way: what had been passed down to each token below each layer, lowest layer first.
    low, high : Tensor, (target, n), optional
        Bounds of the true score, where only bounds are known.
    notes : mapping
        What a reader must know beside the settings, as types that JSON can hold.
    """

    scores: Tensor
    layers: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


class Walker(ABC):
    """A method that walks."""

    needs_values: ClassVar[bool] = False
    """Whether it looks at `Attended.value`."""

    needs_gradients: ClassVar[bool] = False
    """Whether it looks at `Attended.gradients`; values are there too then."""

    @abstractmethod
    def start(self, reading: Reading) -> None:
        """Begin at the targets."""

    @abstractmethod
    def visit(self, attended: Attended) -> None:
        """Take one attention call into account; they come top layer first."""

    @abstractmethod
    def finish(self) -> Found:
        """Return what was found, when the lowest layer has been visited."""


def walk(reading: Reading, walkers: Sequence[Walker], calls: Iterable[Attended]) -> list[Found]:
    """Let several methods go down together, over the same attention calls."""
    for walker in walkers:
        walker.start(reading)
    for attended in calls:
        for walker in walkers:
            walker.visit(attended)
    return [walker.finish() for walker in walkers]
