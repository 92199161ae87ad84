"""Walks that look at what attention passes on, not only at its weights: value norms, GlobEnc, ALTI.

A token that is much attended to may have next to nothing to say: its value is short. So these methods measure vectors:
``T_ij``, all that a layer hands from token j to token i. The vectors themselves, n × n × width numbers, are never made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from attlas.capture.attended import Attended
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.explain.layer_vectors import Extent, LayerVectors, TextVectors
from attlas.explain.mixing import mixing_ratio
from attlas.explain.passing import passed
from attlas.explain.reading import Reading
from attlas.explain.shares import passed_shares
from attlas.explain.walk import Found, RowWalker
from attlas.matrix import AttentionOperator, HeadMean, Scaled
from attlas.matrix.contributions import Contributions
from attlas.matrix.gram import GramNorm
from attlas.matrix.proximity import Proximity

Of = Literal["heads", "sum", "residual", "residual-norm"]

_OF: dict[Of, Extent] = {"heads": "attention", "sum": "attention", "residual": "residual", "residual-norm": "state"}


class VectorWalker(RowWalker):
    """A walk over a matrix of numbers that are made of the vectors ``T_ij``.

    `start` proves the model's projections, which takes a few short runs, and runs the model over the text once more for
    what the vectors need besides attention and values; methods that walk together share both.
    """

    needs_values = True

    extent: Extent = "state"
    """How far the vectors reach."""

    def start(self, reading: Reading) -> None:
        super().start(reading)
        self._texts = TextVectors.of(reading)
        self.check(self._texts)
        self._texts.need(self.extent)
        self._errors: dict[int, float] = {}
        self._mixing: dict[int, float] = {}

    def check(self, texts: TextVectors) -> None:
        """Raise `UnsupportedModelError` if the method has no meaning for the model."""
        del texts

    @abstractmethod
    def matrix(self, layer: LayerVectors) -> AttentionOperator:
        """Return the method's numbers, (1, 1, n, n), of a layer's vectors."""

    def map(self, attended: Attended) -> AttentionOperator:
        """Return what the method sees of an attention call, (1, 1, n, n): a matrix as any other, to be asked and seen.

        Rows are as the formula has them, not yet divided by their sums.
        """
        layer = self._texts.layer(attended, self.extent)
        self._errors[attended.layer] = layer.error
        if layer.vectors.residual is not None:
            self._mixing[attended.layer] = float(mixing_ratio(layer.vectors, attended.output).mean())
        return self.matrix(layer)

    @torch.no_grad()
    def visit(self, attended: Attended) -> None:
        super().visit(attended)

    def step(self, rows: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        return passed_shares(self.map(attended), rows), torch.zeros_like(rows)

    def finish(self) -> Found:
        found = super().finish()
        return replace(found, notes={**found.notes, **self._told()})

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"vectors_error": max(self._errors.values(), default=0.0)}
        if self._mixing:
            told["mixing_ratio"] = {str(layer): self._mixing[layer] for layer in sorted(self._mixing)}
        return told


class ValueNorm(VectorWalker):
    """How long the vectors are that the target's position is given, averaged over layers.

    Parameters
    ----------
    of : {"sum", "heads", "residual", "residual-norm"}
        Which vectors:

        * "sum", ``‖Σ_h α^h_ij f^h(x_j)‖``: what attention passes on, all heads together (Kobayashi et al. 2020);
        * "heads", ``Σ_h ‖α^h_ij f^h(x_j)‖``: each head by itself;
        * "residual", ``‖Σ_h α^h_ij f^h(x_j) + [i = j] x_i‖``: with the residual connection (Kobayashi et al. 2021). A
          norm between the attention and the residual stream (Gemma 2, OLMo 2) is part of it;
        * "residual-norm": with the layer norm behind them, too, its bias dropped (Kobayashi et al. 2021), for models
          that normalise there, such as BERT.

        ``f^h(x)`` is the value, its bias included, times W_O; the output projection's bias is dropped.
    layers : int or sequence of int, optional
        Which layers; negative ones count from the top. All by default.
    rollout : bool
        Multiply the layers' matrices, rows divided by their sums, instead of averaging the target's rows. Vectors
        without the residual stream are mixed with it half and half then, as in attention rollout.
    normalise : bool
        Divide a row by its sum before layers are averaged: states grow from layer to layer, and later ones would
        outweigh the others.

    Notes
    -----
    Kobayashi et al., Attention is Not Only a Weight (2020, arXiv 2004.10102) and Incorporating Residual and
    Normalization Layers into Analysis of Masked Language Models (2021, arXiv 2109.07152). Averaging costs a row a
    layer, and O(n · head² · width) for the tokens' vectors; rollout a pass of O(n² · head · (dim + head)) a layer.
    """

    def __init__(
        self,
        of: Of = "sum",
        layers: int | Sequence[int] | None = None,
        *,
        rollout: bool = False,
        normalise: bool = True,
    ) -> None:
        if of not in _OF:
            raise ArgumentError(complaint("of", wanted=" or ".join(map(repr, _OF)), got=repr(of)))
        if rollout and layers is not None:
            raise ArgumentError(
                complaint("layers", wanted="all of them for a rollout", got=layers, way_out="leave it out")
            )
        self.of: Of = of
        self.layers = [layers] if isinstance(layers, int) else None if layers is None else list(layers)
        self.rollout = rollout
        self.normalise = normalise
        self.extent = _OF[of]

    def start(self, reading: Reading) -> None:
        super().start(reading)
        self._met: list[int] = []
        self._rows_met: list[Tensor] = []

    def check(self, texts: TextVectors) -> None:
        if self.of == "residual-norm":
            _require_post_norm(texts, "value_norm", 'take preset="residual", the same without a norm')

    def visit(self, attended: Attended) -> None:
        self._met.append(attended.layer)
        if self.layers is None or {attended.layer, -len(self._met)} & set(self.layers):
            super().visit(attended)

    def step(self, rows: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        if self.rollout:
            moved = passed_shares(self.map(attended), rows)
            return (moved, torch.zeros_like(rows)) if self.extent != "attention" else (moved / 2, rows / 2)
        operator = self.map(attended)
        self._rows_met.append(passed_shares(operator, rows) if self.normalise else passed(operator, rows)[:, 0])
        return torch.zeros_like(rows), rows

    def matrix(self, layer: LayerVectors) -> AttentionOperator:
        if self.of != "heads":
            return GramNorm(layer.vectors)
        attention = layer.vectors.matrix
        lengths = _lengths(layer.vectors)
        return HeadMean(Scaled(attention, columns=lengths), torch.ones_like(lengths[0, :, 0]))

    def finish(self) -> Found:
        if self.rollout:
            return super().finish()
        missing = [one for one in self.layers or [] if one not in self._met and not -len(self._met) <= one < 0]
        if missing or not self._rows_met:
            wanted = f"layers {min(self._met, default=0)} to {max(self._met, default=0)}, or negative ones from the top"
            raise ArgumentError(complaint("layers", wanted=wanted, got=missing or "none"))
        layers = torch.stack(self._rows_met[::-1], dim=1)
        return Found(layers.mean(1), layers=layers, notes=self._told())


class GlobEnc(VectorWalker):
    """Norms of what attention, residual streams and layer norms pass on, multiplied over the layers.

    Parameters
    ----------
    norms : bool
        Whether vectors pass the block's two layer norms, the feed-forward part left out (but for its size, which is in
        what the second one divides by): the published method, for models that normalise behind the residual
        connection, such as BERT. Without them, for models that normalise in front of the attention, where the residual
        stream itself is not normalised: ours, for the paper has none.
    normalise : bool
        Divide rows by their sums, as the paper does; the released code has that line commented out.

    Notes
    -----
    Modarressi et al., GlobEnc: Quantifying Global Token Attribution by Incorporating the Whole Encoder Layer in
    Transformers, 2022 (arXiv 2205.03286). No identity is added: the residual streams are in the vectors. Costs a pass
    of O(n² · head · (dim + head)) a layer.
    """

    def __init__(self, *, norms: bool = True, normalise: bool = True) -> None:
        self.norms = norms
        self.normalise = normalise
        self.extent = "block" if norms else "residual"

    def check(self, texts: TextVectors) -> None:
        if self.norms:
            _require_post_norm(texts, "globenc", 'take preset="pre-norm", norms with the residual stream alone')
            return
        behind = [view.name for view in texts.views if texts.around(view.layer).outer is not None]
        if behind:
            raise UnsupportedModelError(
                f'{behind[0]}: preset "pre-norm" of globenc is for models that normalise in front of the attention, '
                'got a layer norm behind it; take preset="paper"'
            )

    def step(self, rows: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        if self.normalise:
            return super().step(rows, attended)
        return passed(self.map(attended), rows)[:, 0], torch.zeros_like(rows)

    def matrix(self, layer: LayerVectors) -> AttentionOperator:
        return GramNorm(layer.vectors)


class Alti(VectorWalker):
    """How near each token's part brings a token to what the layer makes of it, multiplied over the layers.

    Parameters
    ----------
    order : {1, 2}
        Which norm: the sum of absolute values, as published, or the Euclidean length, which is far cheaper, and less
        faithful in its own paper.

    Notes
    -----
    Ferrando, Gállego and Costa-jussà, Measuring the Mixing of Contextual Information in the Transformer, 2022 (arXiv
    2203.04212): ``c_ij = max(0, ‖y_i‖ − ‖y_i − T_ij‖)``, rows divided by their sums. y is the state behind the
    attention's residual connection, and behind its layer norm in models that have one there; in others T has none, as
    in Ferrando et al. 2023 (arXiv 2305.12535). Biases are in y, not in T. The share of a token that no part brings
    nearer is lost, and the notes say how much. Order 1 costs O(n² · head · width) a layer:
    minutes a layer for ten thousand tokens; order 2 O(n² · head · (dim + head)), in float64.
    """

    def __init__(self, order: Literal[1, 2] = 1) -> None:
        if order not in (1, 2):
            raise ArgumentError(complaint("order", wanted="1 or 2", got=repr(order)))
        self.order: Literal[1, 2] = order

    def matrix(self, layer: LayerVectors) -> AttentionOperator:
        return Proximity(layer.vectors, layer.state, self.order)

    def finish(self) -> Found:
        found = super().finish()
        # A token that no part brings nearer to what it becomes has nobody to pass its share on to.
        lost = 1 - found.scores.sum(1)
        lost[lost < 1e-6] = 0  # rows are shares in float32: less than this is rounding
        return replace(found, notes={**found.notes, "lost": lost.tolist()})


def _require_post_norm(texts: TextVectors, method: str, way_out: str) -> None:
    """Refuse a model that does not normalise behind the attention, and again behind the feed-forward part."""
    for view in texts.views:
        around = texts.around(view.layer)
        missing = around.outer is None or (method == "globenc" and around.second is None)
        if missing:
            raise UnsupportedModelError(
                f"{view.name}: this preset of {method} is for models that normalise behind the residual connection, "
                f"such as BERT, got a block that does not; {way_out}"
            )


def _lengths(vectors: Contributions, strip: int = 256) -> Tensor:
    """Return the length of what each head writes of each token, ``‖f^h(x_j)‖``; (1, head, n_key)."""
    n_key = vectors.matrix.shape[3]
    parts = [vectors.written(slice(first, min(first + strip, n_key))).norm(dim=-1) for first in range(0, n_key, strip)]
    return torch.cat(parts, dim=-1)
