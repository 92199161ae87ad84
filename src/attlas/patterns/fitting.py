"""Feature maps fitted to captured matrices: one a head, all heads of a layer at once, on a few rows at a time.

A map is trained as in Hedgehog, by the divergence between a row's own distribution and the one that the map gives it,
and, where values are given, by the error of the output too, as in LoLCATs. A step sees some rows drawn at random and
the keys before them, so that memory is O(rows · n), and the matrices themselves are never there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import Progress
from attlas.matrix.softmax import AttentionMatrix
from attlas.patterns.features import Elu, Favor, FeatureMap, Features
from attlas.patterns.fitting_rows import FittedText, prototypes
from attlas.patterns.linear import Linear

CHECK = 20
"""Steps between two looks at the rows that are held out."""

BETTER = 0.995
"""Below this part of its best so far, a head's loss counts as better."""


@dataclass(frozen=True)
class Fitted:
    """Fitted maps, and how far from exact they are beside others; on rows that no step has seen.

    Parameters
    ----------
    map : FeatureMap
        Of all heads.
    window, sinks : int
        What was exact beside it.
    variation : mapping
        Name -> (head,): the mean total variation between a row and what stands in for it, 0 for equal rows, 1 for rows
        that share no key. The names are ``"elu"``, ``"favor"`` (with as many features; not with a soft cap),
        ``"start"`` (before the first step) and ``"fitted"``.
    output : mapping
        The same names -> (head,): the error of the heads' outputs relative to their size, in the Euclidean norm over
        all these rows; empty where no values were given.
    loss : mapping
        ``"start"`` and ``"fitted"`` -> (head,): what was made small, the mean Kullback–Leibler divergence of a row in
        nats, and with values the mean squared relative error of outputs added to it.
    steps : int
        How many were taken.
    rows : int
        On how many rows of each batch element all this was measured, texts together.
    """

    map: FeatureMap
    window: int
    sinks: int
    variation: Mapping[str, Tensor]
    output: Mapping[str, Tensor]
    loss: Mapping[str, Tensor]
    steps: int
    rows: int

    @property
    def pattern(self) -> Linear:
        """The heads' pattern."""
        return Linear(self.map, self.window, self.sinks)


def fit_features(
    exact: AttentionMatrix | Sequence[AttentionMatrix],
    value: Tensor | Sequence[Tensor] | None = None,
    *,
    features: int = 128,
    window: int = 0,
    sinks: int = 0,
    steps: int = 100,
    rows: int = 64,
    rate: float = 0.02,
    patience: int = 3,
    tested: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fitted:
    """Fit a feature map to each head.

    Parameters
    ----------
    exact : AttentionMatrix or sequence of them, (batch, head, n_query, n_key)
        The heads on one text, or on several.
    value : Tensor or sequence of them, (batch, kv_head, n_key, value_dim), optional
        Their values. With them the error of the outputs counts beside that of the rows.
    features : int
        How many features a map has.
    window, sinks : int
        What will be exact beside the maps, as of `Linear`.
    steps : int
        How many at most; 0 leaves the maps as they start, at queries that stand for groups of similar ones.
    rows : int
        How many rows a step sees.
    rate : float
        Adam's first rate; it falls to 0 along half a cosine.
    patience : int
        Stop after so many looks at the rows held out, one every 20 steps, at which no head is better than ever.
    tested : int
        How many rows of each text are held out: for when to stop, for which of its maps a head keeps, and for the
        errors in the record.
    seed : int
        Of all that is random.
    progress : callable, optional
        Called as ``progress(step, steps)``.

    Returns
    -------
    Fitted

    Raises
    ------
    ArgumentError
        A text is too short for its rows to have far keys, or an argument does not fit; and as `Linear.check`.

    Notes
    -----
    A step costs O((n + rows) · features · dim + rows · n · features) a head; memory is O(n · features + rows · n).
    """
    least = {"features": (features, 1), "steps": (steps, 0), "rows": (rows, 1), "patience": (patience, 1)}
    for name, (number, lowest) in {**least, "tested": (tested, 1)}.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < lowest:
            raise ArgumentError(complaint(name, wanted=f"a whole number of at least {lowest}", got=number))
    generator = torch.Generator().manual_seed(seed)
    beside = Linear("elu", window, sinks)
    texts = [FittedText(matrix, values, beside, tested, generator) for matrix, values in _texts(exact, value)]
    best = _Best(*prototypes([text.exact for text in texts], features, generator))
    best.look(_held_out_loss(texts, best.query, best.key))
    start, at_start = best.map, best.loss.clone()
    taken = _descend(texts, best, steps, rows, rate, patience, generator, progress)
    compared: dict[str, Features] = {"elu": Elu(), "start": start, "fitted": best.map}
    if all(text.exact.softcap is None and text.exact.scale >= 0 for text in texts):
        compared["favor"] = Favor(features, seed)
    errors = {name: _errors(texts, Linear(maps, window, sinks)) for name, maps in compared.items()}
    return Fitted(
        map=best.map,
        window=window,
        sinks=sinks,
        variation=MappingProxyType({name: variation for name, (variation, _) in errors.items()}),
        output=MappingProxyType({name: output for name, (_, output) in errors.items() if output is not None}),
        loss=MappingProxyType({"start": at_start, "fitted": best.loss}),
        steps=taken,
        rows=sum(len(text.tested) for text in texts),
    )


class _Best:
    """Each head's best weights so far."""

    def __init__(self, query: Tensor, key: Tensor) -> None:
        self.query, self.key = query.requires_grad_(), key.requires_grad_()
        self.loss = query.new_full((len(query),), math.inf).detach()
        self.kept = (query.detach().clone(), key.detach().clone())
        self.idle = 0

    @property
    def map(self) -> FeatureMap:
        return FeatureMap(*(weights.clone() for weights in self.kept))

    def look(self, loss: Tensor) -> None:
        """Keep the weights of those heads that are better than ever."""
        better = loss < self.loss
        self.idle = 0 if bool((loss < BETTER * self.loss).any()) else self.idle + 1
        self.loss = torch.where(better, loss, self.loss)
        for kept, weights in zip(self.kept, (self.query, self.key), strict=True):
            kept[better] = weights.detach()[better]


def _descend(
    texts: Sequence[FittedText],
    best: _Best,
    steps: int,
    rows: int,
    rate: float,
    patience: int,
    generator: torch.Generator,
    progress: Progress | None,
) -> int:
    """Take steps until all are taken or no head gets better; return how many."""
    optimiser = torch.optim.Adam([best.query, best.key], lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad(set_to_none=True)
        text = texts[step % len(texts)]
        # Heads share nothing, so the gradient of their sum is that of each.
        with torch.enable_grad():
            text.loss(best.query, best.key, *text.draw(rows, generator)).sum().backward()
        optimiser.step()
        if progress is not None:
            progress(step + 1, steps)
        if (step + 1) % CHECK == 0 or step + 1 == steps:
            best.look(_held_out_loss(texts, best.query, best.key))
            if best.idle >= patience:
                return step + 1
    return steps


def _held_out_loss(texts: Sequence[FittedText], query: Tensor, key: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([text.held_out_loss(query, key) for text in texts]).mean(0)


def _errors(texts: Sequence[FittedText], pattern: Linear) -> tuple[Tensor, Tensor | None]:
    """Return the mean total variation and the relative error of outputs on the rows held out, (head,) each."""
    found = [text.errors(pattern) for text in texts]
    variation = torch.cat([one.variation for one in found], dim=-1).mean(-1)
    if any(one.missed is None or one.size is None for one in found):
        return variation, None
    missed, size = (torch.stack([getattr(one, name) for one in found]).sum(0) for name in ("missed", "size"))
    return variation, (missed / torch.where(size > 0, size, 1.0)).sqrt()


def _texts(
    exact: AttentionMatrix | Sequence[AttentionMatrix], value: Tensor | Sequence[Tensor] | None
) -> list[tuple[AttentionMatrix, Tensor | None]]:
    """Return each text's matrix and values; check that they are of the same heads."""
    matrices = [exact] if isinstance(exact, AttentionMatrix) else list(exact)
    if not matrices or not all(isinstance(matrix, AttentionMatrix) for matrix in matrices):
        got = "none" if not matrices else ", ".join(type(matrix).__name__ for matrix in matrices)
        raise ArgumentError(complaint("exact", wanted="an AttentionMatrix, or several", got=got))
    heads = {(matrix.shape[1], matrix.query.shape[3]) for matrix in matrices}
    if len(heads) > 1:
        got = " and ".join(f"{head} heads of dim {dim}" for head, dim in sorted(heads))
        raise ArgumentError(complaint("exact", wanted="the same heads on every text", got=got))
    values: list[Tensor | None] = [None] * len(matrices)
    if value is not None:
        values = [value] if isinstance(value, Tensor) else list(value)
    if len(values) != len(matrices):
        raise ArgumentError(complaint("value", wanted=f"values of {len(matrices)} texts", got=len(values)))
    return list(zip(matrices, values, strict=True))
