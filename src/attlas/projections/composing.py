"""Which heads feed which: Q-, K- and V-composition of all pairs of heads, with the exact chance level."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.indexing import IndexOutOfRange
from attlas.models.progress import Progress
from attlas.projections.chance import rotation_variance
from attlas.projections.pairs import pair_scores, tails, writers
from attlas.projections.reading import LayerWeights, layers_of
from attlas.projections.streams import common_width, fed
from attlas.projections.subspaces import basis
from attlas.results import Provenance

Kind = Literal["q", "k", "v"]
Measure = Literal["product", "subspace"]
KINDS: tuple[Kind, ...] = ("q", "k", "v")
MEMORY = 2**28
"""Bytes that may be used beyond the weights, unless said otherwise."""


@dataclass(frozen=True)
class Edge:
    """One head that feeds another.

    Parameters
    ----------
    source, target : (int, int)
        Layer and head: the one that writes, and the later one that reads.
    kind : str
        What the target makes of it: "q", "k" or "v".
    score : float
        Its composition score.
    z : float
        How many standard deviations the squared score lies above that of randomly rotated heads.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    kind: Kind
    score: float
    z: float


@dataclass(frozen=True, eq=False, repr=False)
class Composition:
    """The composition scores of all pairs of heads; ``composition[l1, h1, l2, h2]`` is one of them.

    Parameters
    ----------
    kind : str
        "q", "k" or "v".
    measure : str
        "product": ``‖OV₁M₂‖ / (‖OV₁‖ ‖M₂‖)`` with M₂ = QK₂, QK₂ᵀ, OV₂ (Elhage et al. 2021). "subspace": the same with
        orthonormal bases in place of W_O and of W_Q, W_K or W_V, so that only directions count.
    layers : tuple of int
        The numbers of the layers, in the order of the axes.
    heads : tuple of int
        How many heads each layer has; scores beyond that are 0.
    d_model : int
        The width of the residual stream.
    scores : Tensor, (layer, head, layer, head), float32 (float64 for float64 weights)
        From 0 to 1; 0 where the first head cannot feed the second, and for heads whose weights are all 0.
    paired : Tensor, (layer, layer), bool
        Where the first layer can feed the second: it comes earlier and writes the stream that the second reads.
    shares : (Tensor, Tensor), each (layer, head), float64
        ``Σσ⁴ / (Σσ²)²`` of what each head writes, and of what it reads.
    provenance : Provenance
        How it was made.
    """

    kind: Kind
    measure: Measure
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    d_model: int
    scores: Tensor
    paired: Tensor
    shares: tuple[Tensor, Tensor]
    provenance: Provenance

    def __getitem__(self, index: Any) -> Tensor:
        """Return scores; an integer on the first and third axis is a layer's number."""
        parts = list(index) if isinstance(index, tuple) else [index]
        for axis in (0, 2):
            if axis < len(parts) and isinstance(parts[axis], int):
                parts[axis] = self._position(parts[axis])
        return self.scores[tuple(parts)]

    @property
    def chance(self) -> float:
        """The root mean square of a score over all rotations of one head against the other: ``1/√d_model``, exactly."""
        return 1 / math.sqrt(self.d_model)

    @cached_property
    def z(self) -> Tensor:
        """How many standard deviations each squared score lies above its mean over all rotations, like `scores`.

        Notes
        -----
        Mean and variance are exact for the spectra of the two heads; see `rotation_variance`. The distribution is
        skewed to the right, so a z is not a p-value. 0 where the scores are 0 by definition, and where no rotation
        changes the score.
        """
        writes, reads = self.shares
        deviation = rotation_variance(self.d_model, writes[:, :, None, None], reads).sqrt().to(self.scores)
        above = self.scores.square() - 1 / self.d_model
        real = self.paired[:, None, :, None] & (deviation > 0)
        return torch.where(real, above / torch.where(deviation > 0, deviation, 1.0), 0.0)

    @property
    def overlap(self) -> Tensor:
        """Of measure "subspace": the projection kernel ``‖U₁ᵀU₂‖²``; its chance level is r₁r₂/d.

        Raises
        ------
        ArgumentError
            The measure is another one.
        """
        if self.measure != "subspace":
            raise ArgumentError(complaint("measure", wanted="'subspace' for overlaps", got=repr(self.measure)))
        writes, reads = (torch.where(share > 0, 1 / share, 0.0).to(self.scores) for share in self.shares)
        return self.scores.square() * writes[:, :, None, None] * reads

    def __repr__(self) -> str:
        heads = f"{sum(self.heads)} heads of {len(self.layers)} layers"
        return (
            f"Composition({self.kind}, {heads}, largest score {float(self.scores.max()):.3f}, chance {self.chance:.3f})"
        )

    def strongest(self, k: int = 20, by: Literal["z", "score"] = "z") -> tuple[Edge, ...]:
        """Return the k pairs with the largest z or score, largest first; fewer where there are fewer pairs."""
        if k < 1:
            raise ArgumentError(complaint("k", wanted="at least 1", got=k))
        if by not in ("z", "score"):
            raise ArgumentError(complaint("by", wanted="'z' or 'score'", got=repr(by)))
        present = torch.arange(self.scores.shape[1]) < torch.tensor(self.heads)[:, None]
        there = self.paired.cpu()[:, None, :, None] & present[:, :, None, None] & present
        ranked = (self.z if by == "z" else self.scores).cpu().masked_fill(~there, -math.inf).flatten()
        best = ranked.topk(min(k, int(there.sum()))).indices
        places = torch.stack(torch.unravel_index(best, self.scores.shape), 1).tolist()
        return tuple(
            Edge(
                source=(self.layers[l1], h1),
                target=(self.layers[l2], h2),
                kind=self.kind,
                score=float(self.scores[l1, h1, l2, h2]),
                z=float(self.z[l1, h1, l2, h2]),
            )
            for l1, h1, l2, h2 in places
        )

    def _position(self, layer: int) -> int:
        if layer not in self.layers:
            raise IndexOutOfRange(complaint("layer", wanted=f"one of {list(self.layers)}", got=layer))
        return self.layers.index(layer)


@dataclass(frozen=True)
class CompositionGraph:
    """The strongest compositions of a model, as a graph.

    Parameters
    ----------
    nodes : tuple of (int, int)
        The heads that take part, as layer and head, in order.
    edges : tuple of Edge
        Largest z first.
    chance : float
        The root mean square of a score of randomly rotated heads.
    provenance : Provenance
        How it was made.
    """

    nodes: tuple[tuple[int, int], ...]
    edges: tuple[Edge, ...]
    chance: float
    provenance: Provenance

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every edge, as plain types."""
        return [
            {
                "source_layer": edge.source[0],
                "source_head": edge.source[1],
                "target_layer": edge.target[0],
                "target_head": edge.target[1],
                "kind": edge.kind,
                "score": edge.score,
                "z": edge.z,
            }
            for edge in self.edges
        ]


def composition_graph(
    projections: Any,
    k: int = 60,
    *,
    kinds: Sequence[Kind] = KINDS,
    normed: bool = False,
    measure: Measure = "product",
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> CompositionGraph:
    """Return the k strongest edges, by z, over the kinds of composition; for the arguments see `composition`."""
    each = [
        composition(projections, kind, normed=normed, measure=measure, memory=memory, progress=progress)
        for kind in kinds
    ]
    edges = sorted((edge for one in each for edge in one.strongest(k)), key=lambda edge: -edge.z)[:k]
    nodes = sorted({head for edge in edges for head in (edge.source, edge.target)})
    settings = {**each[0].provenance.settings, "kind": "".join(kinds), "edges": k}
    known = projections.provenance
    provenance = Provenance(known.attlas, known.model, known.fingerprint, settings)
    return CompositionGraph(tuple(nodes), tuple(edges), each[0].chance, provenance)


def composition(
    projections: Any,
    kind: Kind,
    *,
    normed: bool = False,
    measure: Measure = "product",
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Composition:
    """Return the composition scores of all pairs of heads of a model.

    Parameters
    ----------
    projections : Projections
        From `attlas.projections`.
    kind : str
        "q", "k" or "v": what a later head makes of what an earlier one writes.
    normed : bool
        Whether to fold the gain of the norm in front of each layer, and its centring, into what its heads read.
    measure : str
        "product": ``‖OV₁M₂‖_F / (‖OV₁‖ ‖M₂‖)``. "subspace": the same for orthonormal bases of what W_O writes
        and of what W_Q, W_K or W_V reads.
    memory : int
        About how many bytes may be used beyond the weights and the result; what one layer needs is always used.
    progress : callable, optional
        Called as ``progress(done, total, what)`` after each pair of layers.

    Raises
    ------
    ArgumentError
        No such kind or measure.
    UnsupportedModelError
        Layers that feed each other have streams of different widths.

    Notes
    -----
    A first layer's OV₁ = W_V·W_O is reduced to R·W_O by W_V = QR, and each M₂ likewise from the right, so that a pair
    of layers costs one product of (heads · dim) × d_model with d_model × (kv heads · dim), or heads · dim for "q", in
    float32 (float64 for float64 weights). Layers are taken a few at a time, as `memory` allows.

    In a model with an encoder and a decoder, heads feed the heads of their own stack, and the encoder's heads feed the
    keys and values of cross-attention.

    References
    ----------
    Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; arXiv 2601.10266 (2026) for the measure
    "subspace".
    """
    if kind not in KINDS:
        raise ArgumentError(complaint("kind", wanted="'q', 'k' or 'v'", got=repr(kind)))
    if measure not in ("product", "subspace"):
        raise ArgumentError(complaint("measure", wanted="'product' or 'subspace'", got=repr(measure)))
    if memory < 1:
        raise ArgumentError(complaint("memory", wanted="at least 1 byte", got=memory))
    layers = list(layers_of(projections))
    paired = fed(layers, across=kind != "q")
    d_model = common_width(layers, paired, {"q": "query", "k": "key", "v": "value"}[kind])
    with torch.no_grad(), torch.autocast(layers[0].query.device.type, enabled=False):
        scores, shares = _scored(layers, paired, kind, measure, normed, memory, progress)
    known = projections.provenance
    settings = {**known.settings, "kind": kind, "normed": normed, "measure": measure}
    return Composition(
        kind=kind,
        measure=measure,
        layers=tuple(layer.layer for layer in layers),
        heads=tuple(len(layer.query) for layer in layers),
        d_model=d_model,
        scores=scores,
        paired=paired.to(scores.device),
        shares=shares,
        provenance=Provenance(known.attlas, known.model, known.fingerprint, settings),
    )


def _scored(
    layers: Sequence[Any],
    paired: Tensor,
    kind: Kind,
    measure: Measure,
    normed: bool,
    memory: int,
    progress: Progress | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the scores of all pairs, and the shares of what each head writes and reads."""
    heads = [len(layer.query) for layer in layers]
    device, dtype = layers[0].query.device, layers[0].query.dtype
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    scores = torch.zeros(len(layers), max(heads), len(layers), max(heads), dtype=dtype, device=device)
    writes = torch.zeros(len(layers), max(heads), dtype=torch.float64, device=device)
    reads = writes.clone()
    behind: list[Tensor | None] = []
    for i, layer in enumerate(layers):
        tail, share = _tail(LayerWeights.of(layer, normed), kind, measure, dtype)
        behind.append(tail)
        reads[i, : heads[i]] = share.to(reads)
    done, total = 0, int(paired.sum())
    for span in _spans(layers, dtype, memory):
        written = []
        for i in span:
            writer, share = _written(LayerWeights.of(layers[i], normed), measure, dtype)
            written.append(writer.to(device))
            writes[i, : heads[i]] = share.to(writes)
        first = [0, *itertools.accumulate(len(writer) for writer in written)]
        together = torch.cat(written) if len(written) > 1 else written[0]
        del written
        for j in range(span.start + 1, len(layers)):
            runs = list(_runs([i for i in span if paired[i, j]]))
            if not runs:
                continue
            face = _face(LayerWeights.of(layers[j], normed), kind, measure)
            for run in runs:
                those = together[first[run.start - span.start] : first[run.stop - span.start]]
                found = pair_scores(those, face, behind[j], memory // 2)
                found = found.repeat_interleave(heads[j] // found.shape[1], 1)
                for i, part in zip(run, found.split([heads[i] for i in run]), strict=True):
                    scores[i, : heads[i], j, : heads[j]] = part
                done += len(run)
                if progress is not None:
                    progress(done, total, f"{kind}-composition")
    return scores, (writes, reads)


def _sides(weights: LayerWeights, kind: Kind) -> tuple[Tensor, Tensor]:
    """Return what M₂ reads with, and what stands behind it: ``M₂ = face · behindᵀ``."""
    if kind == "v":
        return weights.value, weights.output.mT
    return (weights.query, weights.key) if kind == "q" else (weights.key, weights.query)


def _face(weights: LayerWeights, kind: Kind, measure: Measure) -> Tensor:
    face = _sides(weights, kind)[0]
    if measure == "product":
        return face
    known = basis(face)
    return known * _ranks(known)[1].sqrt()[:, None, None]


def _tail(weights: LayerWeights, kind: Kind, measure: Measure, dtype: torch.dtype) -> tuple[Tensor | None, Tensor]:
    face, behind = _sides(weights, kind)
    if measure == "product":
        return tails(face, behind, dtype)
    share = _ranks(basis(face))[1]
    return None, share.repeat_interleave(len(weights.query) // len(share))


def _written(weights: LayerWeights, measure: Measure, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if measure == "product":
        return writers(weights.value, weights.output, dtype)
    known = basis(weights.output.mT)
    share = _ranks(known)[1]
    return (known.mT * share.sqrt()[:, None, None]).to(dtype), share


def _ranks(known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the dimension of each basis, and the share of each of its directions; 0 for an empty one."""
    rank = known.square().sum((-2, -1)).round()
    return rank, torch.where(rank > 0, 1 / rank, 0.0)


def _spans(layers: Sequence[Any], dtype: torch.dtype, memory: int) -> Iterator[range]:
    """Divide the layers into spans of equally shaped ones, whose writers take a quarter of the memory at most."""
    start, held = 0, 0
    for i, one in enumerate(layers):
        size = one.output.numel() * dtype.itemsize
        before = layers[start]
        alike = (before.value.shape[1:], before.output.shape[1:]) == (one.value.shape[1:], one.output.shape[1:])
        if i > start and (held + size > memory // 4 or not alike):
            yield range(start, i)
            start, held = i, 0
        held += size
    yield range(start, len(layers))


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Divide increasing numbers into runs of consecutive ones."""
    for _, run in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield range(members[0], members[-1] + 1)
