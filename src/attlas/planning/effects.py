"""What every pattern loses of every head, on every text: the numbers that plans are chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas.patterns import Pattern
from attlas.planning.losses import MEASURES, NAMES


@dataclass(frozen=True)
class Head:
    """One head, and what it is by itself.

    Parameters
    ----------
    layer, head : int
        Layers are numbered as a capture numbers them.
    kv_head : int
        Whose keys and values it shares.
    causal : bool
        Whether it sees no later keys.
    window : int or None
        Its own sliding window.
    """

    layer: int
    head: int
    kv_head: int
    causal: bool
    window: int | None = None


@dataclass(frozen=True)
class TextRead:
    """One text that was read.

    Parameters
    ----------
    tokens : int
        How many of its tokens were read, from its beginning.
    of : int
        How many it has.
    loss : float
        The exact model's loss on them; in nats a token where it is the next-token loss.
    """

    tokens: int
    of: int
    loss: float


@dataclass(frozen=True, eq=False)
class Effects:
    """What every pattern loses of every head, on every text.

    Parameters
    ----------
    heads : tuple of Head
        Sorted by layer and head.
    patterns : tuple of Pattern
        The candidates; that all is left exact is not among them.
    texts : tuple of TextRead
        What was read.
    values : mapping
        Name of a measure (`attlas.planning.losses.MEASURES`) -> Tensor, (text, head, pattern), float64, on the CPU;
        NaN where a pattern cannot stand in for a head, or a measure has no meaning for it.
    """

    heads: tuple[Head, ...]
    patterns: tuple[Pattern, ...]
    texts: tuple[TextRead, ...]
    values: Mapping[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """What a pattern is predicted to add to the loss, (text, head, pattern): never below 0.

        The second-order rise on the text, and the first-order one where it is a rise in the mean over texts: an error
        that helps these texts by luck is no reason to make it.
        """
        return self.values["second"] + self.values["first"].mean(0).clamp(min=0)

    @property
    def fits(self) -> Tensor:
        """Whether a pattern can stand in for a head, on all texts; boolean, (head, pattern)."""
        return ~self.values["error"].isnan().any(0)

    def mean(self, name: str) -> Tensor:
        """Return a measure's mean over texts; (head, pattern)."""
        return self.values[name].mean(0)

    def worst(self, name: str) -> Tensor:
        """Return a measure on the text where it is largest; (head, pattern)."""
        return self.values[name].amax(0)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every text, head and pattern."""
        tables = {name: self.values[name].tolist() for name in NAMES}
        loss = self.loss.tolist()
        return [
            {"text": t, "layer": head.layer, "head": head.head, "pattern": p}
            | {name: _null(tables[name][t][h][p]) for name in NAMES}
            | {"loss": _null(loss[t][h][p])}
            for t in range(len(self.texts))
            for h, head in enumerate(self.heads)
            for p in range(len(self.patterns))
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return a row for every head and pattern: each measure's mean over texts, and on its worst text."""
        means = {name: self.mean(name).tolist() for name in NAMES}
        worst = {name: self.worst(name).tolist() for name in NAMES}
        return [
            {"layer": head.layer, "head": head.head, "pattern": p}
            | {name: _null(means[name][h][p]) for name in NAMES}
            | {f"{name}_worst_text": _null(worst[name][h][p]) for name in NAMES}
            for h, head in enumerate(self.heads)
            for p in range(len(self.patterns))
        ]


COLUMNS: dict[str, dict[str, str]] = {
    "text": {"unit": "", "meaning": "Which text, from 0."},
    "pattern": {"unit": "", "meaning": "Which of the patterns, from 0."},
    **{m.name: {"unit": m.unit, "meaning": m.meaning} for m in MEASURES},
    "loss": {"unit": "nats", "meaning": "What the loss is predicted to rise by, to second and first order."},
}


def _null(value: float) -> float | None:
    return None if value != value else value


def no_effects(heads: int, patterns: int) -> dict[str, Tensor]:
    """Return a table for one text in which no pattern has been measured: NaN everywhere; (head, pattern) each."""
    return {name: torch.full((heads, patterns), torch.nan, dtype=torch.float64) for name in NAMES}
