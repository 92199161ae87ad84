"""The table of heads: what each number means, and the records that hold a row a head, its small maps and its tracks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas._invisible import printable
from attlas._tables import Table
from attlas.projections import factors
from attlas.projections.factors import of_each
from attlas.results import Provenance

NEAR = 256
"""Keys nearer than this, in tokens, count as near."""


@dataclass(frozen=True)
class Statistic:
    """One number of a head.

    Parameters
    ----------
    name : str
        Its column's name.
    label : str
        What people call it, short.
    unit : str
        "share" (0 to 1), "nats", "tokens", "times" or "" (a plain number).
    meaning : str
        One sentence.
    """

    name: str
    label: str
    unit: str
    meaning: str


STATISTICS = (
    Statistic("entropy", "entropy", "nats", "The mean entropy of a query's attention."),
    Statistic(
        "evenness", "evenness", "share", "Entropy over that of an even spread, averaged: 1 is even, 0 is one key."
    ),
    Statistic("distance", "mean distance", "tokens", "How far a query looks on average."),
    Statistic("first_token", "first token", "share", "Attention that falls on the first token."),
    Statistic("previous_token", "previous token", "share", "Attention that falls on the token just before the query."),
    Statistic("near", "near", "share", f"Attention on keys less than {NEAR} tokens away."),
    Statistic("far", "far", "share", f"Attention on keys {NEAR} tokens away or more, the first token not counted."),
    Statistic("top_key_share", "top key's share", "share", "The largest part of all attention that one key receives."),
    Statistic(
        "rank", "rank of the map", "", "Effective rank of the pooled map: the exponential of its spectrum's entropy."
    ),
    Statistic("lift_peak", "peak lift", "times", "The largest lift of any cell of the pooled map."),
)


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What was found out about one layer; all tensors are on the CPU, in float32 unless said otherwise.

    Parameters
    ----------
    layer : int
        The layer's number.
    name : str
        Its attention module.
    heads : tuple of int
        The heads' numbers.
    shape : (int, int)
        n_query, n_key.
    values : mapping
        Name of a statistic -> Tensor, (head,).
    even : mapping
        The same of an even spread over the visible keys, (head or 1,).
    top_key : Tensor, (head,), int64
        The key that receives most.
    received : Tensor, (head, n_key)
        What each key receives from all queries together.
    entropy, distance : Tensor, (head, n_query)
        Of each query, in nats and in tokens.
    mean, peak : Tensor, (head, rows, cols)
        The pooled map: the mean and the largest entry of each cell.
    even_received, even_entropy, even_distance, even_mean, even_peak : Tensor
        The same of an even spread, with one head where all heads see the same; the maps are 0 where nothing is visible.
        Lift is ``mean / even_mean``, and ``peak / even_peak``.
    """

    layer: int
    name: str
    heads: tuple[int, ...]
    shape: tuple[int, int]
    values: Mapping[str, Tensor]
    even: Mapping[str, Tensor]
    top_key: Tensor
    received: Tensor
    entropy: Tensor
    distance: Tensor
    mean: Tensor
    peak: Tensor
    even_received: Tensor
    even_entropy: Tensor
    even_distance: Tensor
    even_mean: Tensor
    even_peak: Tensor


@dataclass(frozen=True, eq=False)
class HeadStatistics(Table):
    """A row for every layer and head, with the small maps and tracks that a picture needs.

    Parameters
    ----------
    layers : tuple of LayerStatistics
        In the order of the layers.
    tokens : tuple of str, optional
        The document's tokens.
    provenance : Provenance
        How it was made.
    """

    layers: tuple[LayerStatistics, ...]
    tokens: tuple[str, ...] | None
    provenance: Provenance

    def __len__(self) -> int:
        return sum(len(layer.heads) for layer in self.layers)

    def axes(self, layer: LayerStatistics) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """Return the tokens of a layer's queries and of its keys; None where the document's tokens are not those."""
        n_query, n_key = layer.shape
        known = self.tokens if self.tokens is not None and len(self.tokens) == n_key else None
        # Fewer queries than keys are the last rows of the same text.
        return (None if known is None or n_query > n_key else known[n_key - n_query :]), known

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types: where the head is, its statistics, and those of an even spread."""
        return list(self._rows())

    def about(self) -> dict[str, Any]:
        return {"columns": {s.name: {"unit": s.unit, "meaning": s.meaning} for s in STATISTICS}}

    def _rows(self) -> Iterator[dict[str, Any]]:
        for layer in self.layers:
            keys = self.axes(layer)[1]
            for i, head in enumerate(layer.heads):
                top = int(layer.top_key[i])
                yield {
                    "layer": layer.layer,
                    "head": head,
                    "module": layer.name,
                    "queries": layer.shape[0],
                    "keys": layer.shape[1],
                    **{s.name: float(layer.values[s.name][i]) for s in STATISTICS},
                    "top_key": top,
                    "top_key_token": None if keys is None else printable(keys[top]),
                    **{f"even_{s.name}": _of_head(layer.even[s.name], i) for s in STATISTICS},
                }


def _of_head(values: Tensor, head: int) -> float:
    return float(values[min(head, len(values) - 1)])


def effective_rank(maps: Tensor) -> Tensor:
    """Return ``exp(-sum p ln p)`` of each map's singular values, divided by their sum; (head,).

    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality". 0 for a map of zeros.
    """
    (spectrum,) = of_each(lambda few: (torch.linalg.svdvals(few),), maps.double())
    return factors.effective_rank(spectrum).float()
