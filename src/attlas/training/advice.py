"""What a trial advises: a rank for every module within a budget, what each head brought, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from attlas._tables import Table
from attlas.results import Provenance
from attlas.training.settings import LoraSettings, Targets

EVIDENCE = (
    "On two made-up tasks, eight seeds each, such ranks were no better than even ones beyond noise, and the MLP alone "
    "was better on one of them: compare before you rely on them (docs/how-to/advise-lora.md)."
)

COLUMNS: Mapping[str, str] = {
    "module": "whole name of the module",
    "layer": "the number of its layer; null where it belongs to none",
    "role": "what of it is adapted: query, key, value, output, gate, up, down, mlp, or module",
    "fall": "by how many nats a token the loss of fresh examples fell through it in the trial, rank 1",
    "error": "standard error of that over the trial's steps",
    "share": "of what the loss fell by through all modules",
    "per_million": "fall for each million parameters of rank 1",
    "rank": "the rank that it is given; 0 leaves it out",
    "parameters": "how many that makes",
}
HEAD_COLUMNS: Mapping[str, str] = {
    "layer": "number of the layer",
    "head": "number of the query head",
    "query": "by how many nats a token the loss fell through its rows of W_Q in the trial",
    "key": "the same for W_K; heads that share keys have equal parts of it",
    "value": "the same for W_V",
    "output": "the same for its columns of W_O",
    "fall": "the sum of the four",
}


@dataclass(frozen=True)
class Module:
    """What is advised for one module.

    Parameters
    ----------
    name : str
        Its whole name.
    layer : int or None
    roles : tuple of str
        What of it is adapted.
    cost : int
        Parameters of each rank.
    fall : float
        By how many nats a token the loss of fresh examples fell through it in the trial.
    error : float
        Standard error of that, over the trial's steps.
    rank : int
        What it is given.
    """

    name: str
    layer: int | None
    roles: tuple[str, ...]
    cost: int
    fall: float
    error: float
    rank: int

    @property
    def parameters(self) -> int:
        """How many numbers its adapter has."""
        return self.rank * self.cost


@dataclass(frozen=True)
class Head:
    """What one head of the attention brought in the trial, in nats a token; 0 where a projection was no candidate.

    Parameters
    ----------
    layer, head : int
    query, key, value, output : float
        By how much the loss fell through its part of each projection.
    """

    layer: int
    head: int
    query: float
    key: float
    value: float
    output: float

    @property
    def fall(self) -> float:
        """The sum of the four."""
        return self.query + self.key + self.value + self.output


@dataclass(frozen=True, eq=False, repr=False)
class Advice(Table):
    """Which modules to adapt, at which rank, within a budget; and what each head would bring.

    Parameters
    ----------
    modules : tuple of Module
        Every candidate, in the model's order.
    heads : tuple of Head
        Every head of the layers that were candidates, in order.
    budget : int
        How many parameters there might be.
    even : int
        The rank that all candidates would have if they shared the budget evenly, from 1: what alpha is divided by.
    losses : tuple of float
        Of each batch of the trial, before its step.
    targets : Targets
        The candidates.
    notes : tuple of str
        What must be known of it.
    provenance : Provenance
    """

    modules: tuple[Module, ...]
    heads: tuple[Head, ...]
    budget: int
    even: int
    losses: tuple[float, ...]
    targets: Targets
    notes: tuple[str, ...]
    provenance: Provenance = field(repr=False)

    @property
    def ranks(self) -> dict[str, int]:
        """Whole name of each candidate -> its rank, as `LoraSettings` takes them; 0 leaves a module out."""
        return {one.name: one.rank for one in self.modules}

    @property
    def parameters(self) -> int:
        """How many parameters the adapter has; never more than the budget."""
        return sum(one.parameters for one in self.modules)

    def settings(self, *, alpha: float | None = None, **options: Any) -> LoraSettings:
        """Return how an adapter with the advised ranks is made.

        Parameters
        ----------
        alpha : float, optional
            Every product is multiplied with alpha / `even`, whatever its rank; 2 · `even` by default.
        **options
            The others of `LoraSettings`: dropout, variant, init.
        """
        return LoraSettings(
            rank=self.even, alpha=2.0 * self.even if alpha is None else alpha, ranks=self.ranks, **options
        )

    def best_heads(self, count: int) -> list[tuple[int, int]]:
        """Return the heads through which the loss fell most, as (layer, head), the best first.

        They can be the `heads` of `Targets`, which holds an adapter of the attention to them.
        """
        ordered = sorted(self.heads, key=lambda one: -one.fall)
        return [(one.layer, one.head) for one in ordered[:count]]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each module, as plain types; `COLUMNS` says what they mean."""
        total = sum(one.fall for one in self.modules)
        return [
            {
                "module": one.name,
                "layer": one.layer,
                "role": "+".join(one.roles),
                "fall": one.fall,
                "error": one.error,
                "share": one.fall / total,
                "per_million": 1e6 * one.fall / one.cost,
                "rank": one.rank,
                "parameters": one.parameters,
            }
            for one in self.modules
        ]

    def head_rows(self) -> list[dict[str, Any]]:
        """Return a row for each head, as plain types; `HEAD_COLUMNS` says what they mean."""
        return [
            {
                "layer": one.layer,
                "head": one.head,
                "query": one.query,
                "key": one.key,
                "value": one.value,
                "output": one.output,
                "fall": one.fall,
            }
            for one in self.heads
        ]

    def about(self) -> dict[str, Any]:
        return {
            "columns": COLUMNS,
            "evidence": EVIDENCE,
            "budget": self.budget,
            "parameters": self.parameters,
            "losses": list(self.losses),
            "notes": list(self.notes),
        }

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the advice as one readable JSON file, atomically; `open_advice` opens it again.

        Raises
        ------
        StoreError
            The file cannot be written.
        """
        from attlas.training.advice_file import write_advice

        return write_advice(self, Path(path))

    def __repr__(self) -> str:
        kept = sum(one.rank > 0 for one in self.modules)
        return (
            f"Advice({self.provenance.model}: {kept} of {len(self.modules)} modules, {self.parameters:,} of "
            f"{self.budget:,} parameters)"
        )
