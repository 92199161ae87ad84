"""Spectra of every head's query-key and output-value products, beside those of random heads of the same shape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas.matrix.threads import each
from attlas.models.progress import Progress
from attlas.projections.chance import Chance, of_random_heads, summary
from attlas.projections.factors import Factors
from attlas.projections.low_rank import LowRank
from attlas.projections.reading import LayerWeights, layers_of
from attlas.results import Provenance


@dataclass(frozen=True, eq=False)
class CircuitSpectra:
    """The spectra of one product, W_Q·W_Kᵀ or W_V·W_O, for the heads of a layer; float64 unless said otherwise.

    Parameters
    ----------
    singular_values : Tensor, (head, k)
        Largest first.
    norm : Tensor, (head,)
        Frobenius.
    numbers : dict
        Name -> Tensor, (head,): "effective_rank" (Roy and Vetterli 2007), "stable_rank", "rank_90" (how many singular
        values hold 90 % of the squared norm), and, where the product is square, "positivity": ``Σ Re λ / Σ |λ|`` of its
        eigenvalues (Elhage et al. 2021), in the residual stream, without rotation.
    chance : Chance
        The same numbers of random heads: products of Gaussian factors of the same shape.
    """

    singular_values: Tensor
    norm: Tensor
    numbers: dict[str, Tensor]
    chance: Chance


@dataclass(frozen=True, eq=False)
class LayerSpectra:
    """The spectra of a layer's heads.

    Parameters
    ----------
    layer : int
        Its number.
    qk, ov : CircuitSpectra
        Of W_Q·W_Kᵀ (no scale, no rotation) and of W_V·W_O.
    """

    layer: int
    qk: CircuitSpectra
    ov: CircuitSpectra


@dataclass(frozen=True, eq=False)
class Spectra:
    """The spectra of all heads of a model.

    Parameters
    ----------
    layers : tuple of LayerSpectra
        In the order of the layers.
    provenance : Provenance
        How they were made.
    """

    layers: tuple[LayerSpectra, ...]
    provenance: Provenance

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every head as plain types, with the mean of random heads beside each number."""
        return [
            {"layer": layer.layer, "head": head, **_columns("qk", layer.qk, head), **_columns("ov", layer.ov, head)}
            for layer in self.layers
            for head in range(len(layer.qk.norm))
        ]


def spectra(projections: Any, *, normed: bool = False, progress: Progress | None = None) -> Spectra:
    """Return the spectra of every head's W_Q·W_Kᵀ and W_V·W_O.

    Parameters
    ----------
    projections : Projections
        From `attlas.projections`.
    normed : bool
        Whether to fold the gain of the norm in front of each layer into what its heads read.
    progress : callable, optional
        Called as ``progress(done, total, "spectra")`` after each key head.

    Notes
    -----
    O(d_model · dim² + dim³) per head, in float64, one key head a thread; no d_model × d_model matrix is made. A key or
    value head that several query heads share is decomposed once.
    """
    layers = list(layers_of(projections))
    jobs = [(layer, slice(i, i + 1)) for layer in layers for i in range(len(layer.key))]

    def work(job: tuple[Any, slice]) -> tuple[CircuitSpectra, CircuitSpectra]:
        weights = LayerWeights.of(job[0], normed, job[1])
        return circuit_spectra(weights.qk), circuit_spectra(weights.ov)

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, "spectra")

    parts = iter(each(work, jobs, layers[0].query.device, tell))
    found = []
    for layer in layers:
        qk, ov = zip(*itertools.islice(parts, len(layer.key)), strict=True)
        found.append(LayerSpectra(layer.layer, _joined(qk), _joined(ov)))
    known = projections.provenance
    provenance = Provenance(known.attlas, known.model, known.fingerprint, {**known.settings, "normed": normed})
    return Spectra(tuple(found), provenance)


def circuit_spectra(product: LowRank) -> CircuitSpectra:
    """Return the spectra of a stack of factored matrices, their leading axes flattened to one of heads."""
    scaled = Factors.of(product.left, product.right)
    rows, cols = product.shape[-2:]
    singular = scaled.svdvals()
    numbers = summary(singular, scaled.eigvals() if rows == cols else None)
    real = scaled.unscaled(singular, axes=1).flatten(0, -2)
    return CircuitSpectra(
        singular_values=real,
        norm=real.norm(dim=-1),
        numbers={name: value.flatten() for name, value in numbers.items()},
        chance=of_random_heads(rows, product.width, cols),
    )


def _joined(parts: Sequence[CircuitSpectra]) -> CircuitSpectra:
    return CircuitSpectra(
        singular_values=torch.cat([part.singular_values for part in parts]),
        norm=torch.cat([part.norm for part in parts]),
        numbers={name: torch.cat([part.numbers[name] for part in parts]) for name in parts[0].numbers},
        chance=parts[0].chance,
    )


def _columns(name: str, circuit: CircuitSpectra, head: int) -> dict[str, float]:
    columns = {f"{name}_norm": float(circuit.norm[head])}
    for number, values in circuit.numbers.items():
        columns[f"{name}_{number}"] = float(values[head])
        columns[f"{name}_{number}_chance"] = circuit.chance.mean[number]
    return columns
