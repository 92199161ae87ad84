"""A walk: a method that goes through a model's attention from the top layer down, carrying what it has found so far.

For one target, most explanations by attention are a row vector times one matrix a layer. So a walk holds a row for each
target, meets each attention call once, and never holds anything of n × n numbers; several walks go down together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from attlas.capture.attended import Attended, Gradients
from attlas.errors import ArgumentError, CaptureError, complaint
from attlas.explain.reading import Reading
from attlas.matrix import AttentionMatrix

Presets = Mapping[str, Mapping[str, Any]]
"""By whose rules a method can be computed: name -> the settings that make it so, the default first."""


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

    signed: bool = False
    """Whether a score below zero speaks against the target."""

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


class RowWalker(Walker):
    """A walk that carries a row for each target: how much of it every token answers for.

    In a model with an encoder, what the decoder asks of it goes into a second row, over the encoder's tokens, which
    then walks down the encoder; the scores are that row.
    """

    rows: Tensor
    """Over the tokens of the stack that the walk began in, (target, n), float64 on the CPU."""

    crossed: Tensor | None
    """Over the encoder's tokens, once a decoder has asked for them."""

    def start(self, reading: Reading) -> None:
        self.rows = reading.rows.clone()
        self.crossed = None
        self._trail: list[Tensor] = []

    def visit(self, attended: Attended) -> None:
        on_encoder = self.crossed is not None and attended.side == "encoder" and not attended.cross
        rows = self.crossed if on_encoder and self.crossed is not None else self.rows
        check_one_text(attended, rows.shape[1])
        moved, kept = self.step(rows, attended)
        if attended.cross:
            self.rows = kept
            self.crossed = moved if self.crossed is None else self.crossed + moved
        elif on_encoder:
            self.crossed = moved + kept
        else:
            self.rows = moved + kept
        self._trail.append(self.shown(self._found()))

    @abstractmethod
    def step(self, rows: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        """Return what a call passes down to its keys, and what stays with the tokens that asked.

        Parameters
        ----------
        rows : Tensor, (target, n_query)
            What has come down to the call.
        attended : Attended
            The call.

        Returns
        -------
        moved : Tensor, (target, n_key)
        kept : Tensor, (target, n_query)
        """

    def shown(self, rows: Tensor) -> Tensor:
        """Return the scores, (target, n), that a row stands for."""
        return rows

    def finish(self) -> Found:
        layers = torch.stack(self._trail[::-1], dim=1) if self._trail else None
        notes = {} if self.crossed is None else {"left_on_the_decoder": self.rows.sum(1).tolist()}
        return Found(self.shown(self._found()), layers=layers, notes=notes)

    def _found(self) -> Tensor:
        return self.rows if self.crossed is None else self.crossed


# ---- what walks ask of a call


def check_one_text(attended: Attended, n_query: int) -> None:
    """Complain if a call is not one text's, all of whose tokens ask."""
    batch, _, found, n_key = attended.matrix.shape
    if batch != 1:
        wanted = "a batch of one text: padding inside a batch would count as text"
        raise CaptureError(complaint(f"layer {attended.layer}", wanted=wanted, got=f"a batch of {batch}"))
    if found != n_query or (n_key != found and not attended.cross):
        raise CaptureError(
            complaint(
                f"layer {attended.layer} ({attended.name})",
                wanted=f"{n_query} queries, one for every token that the walk began with",
                got=f"{found} queries and {n_key} keys",
                way_out="capture the whole text in one call, without a cache",
            )
        )


def value_of(attended: Attended) -> Tensor:
    """Return a call's values, (1, kv_head, n_key, value_dim).

    Raises
    ------
    CaptureError
        They were not kept.
    """
    if attended.value is None:
        raise CaptureError(
            f"layer {attended.layer} ({attended.name}): this method needs the values, which were not kept; capture "
            "with values=True: lm.read(text, values=True)"
        )
    return attended.value


def gradients_of(attended: Attended, targets: int) -> tuple[Gradients, ...]:
    """Return a call's gradients, one a target.

    Raises
    ------
    CaptureError
        There are none: a capture alone has no backward pass.
    """
    if len(attended.gradients) != targets:
        raise CaptureError(
            f"layer {attended.layer} ({attended.name}): this method needs gradients of {targets} target"
            f"{'s' if targets != 1 else ''}, got {len(attended.gradients)}; a capture has none: let the model run "
            "again with attlas.explain(lm, text, ...)"
        )
    return attended.gradients


def chosen_heads(attended: Attended, heads: int | Sequence[int] | None) -> AttentionMatrix:
    """Return a call's matrix, of some heads only."""
    if heads is None:
        return attended.matrix
    count = attended.matrix.shape[1]
    numbers = [heads] if isinstance(heads, int) else list(heads)
    if not numbers or any(isinstance(head, bool) or not 0 <= head < count for head in numbers):
        wanted = f"head numbers from 0 to {count - 1}, at least one"
        raise ArgumentError(complaint("heads", wanted=wanted, got=heads))
    return attended.matrix.narrow(slice(0, attended.matrix.shape[0]), torch.tensor(numbers))


def checked_share(residual: float) -> float:
    """Return what stays with a token, if it is a share that leaves something to attention."""
    if isinstance(residual, bool) or not isinstance(residual, int | float) or not 0 <= residual < 1:
        raise ArgumentError(complaint("residual", wanted="a share from 0 to below 1", got=residual))
    return float(residual)
