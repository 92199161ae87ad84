"""The vectors that tokens pass on to each other in each layer of a model, on one text, proved against the model itself.

W_O and what stands around the attention come from the model's own weights and a short run; the residual stream and what
norms divide by, from one forward pass over the text. Biases that belong to no token (of the output projection, of
norms) are left out of the vectors, as in the papers; a value's own bias is part of what its head writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from attlas.capture.attended import Attended
from attlas.capture.language_model import reader_of, run_on
from attlas.capture.states import State, states
from attlas.errors import UnsupportedModelError
from attlas.explain.reading import Reading
from attlas.explain.surroundings import Surroundings, made_by, surroundings
from attlas.explain.walk import value_of
from attlas.matrix.contributions import Contributions
from attlas.projections import LayerProjections, Norm, Projections, projections
from attlas.projections.tracing import trace

PROVED_ROWS = 6
"""Rows of every layer whose vectors are added up and compared with what the model made of them."""

Extent = Literal["attention", "residual", "state", "block"]
"""How far vectors reach: what attention writes; with the residual stream beside it; with the norm behind both, where a
model has one there; with the norm at the block's end, the feed-forward part left out."""


@dataclass(frozen=True, eq=False)
class LayerVectors:
    """One layer's vectors.

    Parameters
    ----------
    vectors : Contributions
        T.
    state : Tensor, (1, n, width)
        What the layer's attention makes of each token, every bias and norm included: what the model goes on with. With
        extent "attention", what attention gives.
    error : float
        The worst relative difference between vectors that were added up and what the model made.
    """

    vectors: Contributions
    state: Tensor
    error: float


class TextVectors:
    """Gives the layers' vectors of one text.

    Parameters
    ----------
    reading : Reading
        The text and the model.

    Notes
    -----
    Costs the proof of the projections, and one forward pass over the text; holds the residual stream in front of every
    layer, n × width numbers each, if vectors reach so far.
    """

    def __init__(self, reading: Reading) -> None:
        lm = reading.lm
        if lm.facts.kind == "encoder-decoder":
            raise UnsupportedModelError(
                f"{lm.name}: norms of what is passed on are for models of one stack, got an encoder and a decoder; "
                'take method "rollout" or "chefer"'
            )
        self._lm = lm
        self._ids = reading.ids[None]
        self._rows = _sample(reading.n)
        self._projections: Projections | None = None
        self._around: dict[int, Surroundings] = {}
        self._states: dict[State, list[Tensor]] = {}

    @staticmethod
    def of(reading: Reading) -> TextVectors:
        """Return those of a reading: methods that walk together share them."""
        if reading not in _SHARED:
            _SHARED[reading] = TextVectors(reading)
        return _SHARED[reading]

    @property
    def views(self) -> Projections:
        """The model's projections, found on first use."""
        if self._projections is None:
            self._projections = projections(self._lm)
        return self._projections

    def around(self, layer: int) -> Surroundings:
        """Return what stands around a layer's attention.

        Raises
        ------
        UnsupportedModelError
            Its residual stream could not be told.
        """
        if not self._around:
            run = trace(self._lm.model, self.views.inputs)
            self._around = {view.layer: surroundings(run, view, self._lm.model) for view in self.views}
        return self._around[layer]

    def need(self, extent: Extent) -> None:
        """Run the model over the text, if what vectors of this extent need is not known yet."""
        wanted: dict[State, Callable[[Tensor], Tensor]] = {}
        for view in self.views:
            if view.gate is not None:
                raise UnsupportedModelError(
                    f"{view.name}: multiplies each head's output with a gate of the asking token, so what a token "
                    "passes on has no norm of its own"
                )
            wanted[made_by(view, self._lm.model)] = self._sampled
            if extent == "attention":
                continue
            around = self.around(view.layer)
            wanted[around.stream] = _copied
            if extent == "block" and around.end is not None and around.second is not None:
                wanted[around.end] = _divided_by(around.second)
        missing = {state: keep for state, keep in wanted.items() if state not in self._states}
        if missing:
            reader = reader_of(self._lm.model)
            self._states |= states(self._lm.model, lambda: run_on(reader, self._ids), missing)

    def layer(self, attended: Attended, extent: Extent) -> LayerVectors:
        """Return a layer's vectors, after `need`.

        Raises
        ------
        UnsupportedModelError
            They do not add up to what the model made: it is not made of them.
        CaptureError
            The values were not kept.
        """
        view = self._view(attended)
        matrix, value = attended.matrix, value_of(attended)
        dtype, device = matrix.accumulator, matrix.device
        written = view.output.detach().to(device, dtype)
        plain = Contributions(matrix, value, written)
        heads = matrix @ value if attended.output is None else attended.output
        bias = None if view.output_bias is None else view.output_bias.detach().to(device, dtype)
        part = _plus(plain.of_heads(heads.to(dtype)), bias)
        own = self._state(made_by(view, self._lm.model), view.turn).to(device, dtype)
        error = _error(_plus(plain.gathered(self._rows), bias)[0], own)
        self._check(view, error, matrix.dtype, "what its attention gives")
        if extent == "attention":
            return LayerVectors(plain, part, error)
        around = self.around(view.layer)
        stream = self._state(around.stream, view.turn).to(device, dtype).reshape(part.shape)
        vectors, state = _joined(plain, stream, part, around)
        constant = _joined_constant(bias, state, vectors, around)
        model = _passed(stream[:, self._rows], own.unsqueeze(0), around)
        added = vectors.gathered(self._rows) + constant[:, self._rows]
        error = max(error, _error(added, model))
        self._check(view, error, matrix.dtype, "what the model goes on with")
        if extent == "residual" and around.outer is not None:
            vectors = replace(plain, residual=stream)
        elif extent == "block":
            vectors = self._to_the_end(vectors, view, around)
        return LayerVectors(vectors, state, error)

    def _view(self, attended: Attended) -> LayerProjections:
        name = attended.name.partition(" (turn ")[0]
        view = next((view for view in self.views if view.layer == attended.layer), None)
        if view is None or view.name != name:
            raise UnsupportedModelError(f"{attended.name}: the projections of layer {attended.layer} are not known")
        return view

    def _state(self, state: State, turn: int) -> Tensor:
        found = self._states[state]
        return found[min(turn, len(found) - 1)]

    def _sampled(self, given: Tensor) -> Tensor:
        return given.reshape(self._ids.shape[1], -1)[self._rows].clone()

    def _to_the_end(self, vectors: Contributions, view: LayerProjections, around: Surroundings) -> Contributions:
        if around.second is None or around.end is None:
            return vectors
        divided = self._state(around.end, view.turn).to(vectors.matrix.device, vectors.output.dtype)
        outer = divided.reshape(1, -1) if vectors.outer is None else vectors.outer * divided.reshape(1, -1)
        residual = None if vectors.residual is None else _linear(vectors.residual, around.second)
        return replace(vectors, output=_linear(vectors.output, around.second), residual=residual, outer=outer)

    def _check(self, view: LayerProjections, error: float, dtype: torch.dtype, what: str) -> None:
        if error > (1e-3 if dtype in (torch.float32, torch.float64) else 5e-2):
            raise UnsupportedModelError(
                f"{view.name}: the vectors that tokens pass on do not add up to {what} (relative error {error:.1e}), "
                "so their norms would not be this model's"
            )


_SHARED: WeakKeyDictionary[Reading, TextVectors] = WeakKeyDictionary()


def _joined(plain: Contributions, stream: Tensor, part: Tensor, around: Surroundings) -> tuple[Contributions, Tensor]:
    """Add the residual stream and the norms behind the attention; return what the layer makes of each token, too."""
    output, residual, inner, outer = plain.output, stream, None, None
    if around.inner is not None:
        output, inner = _linear(output, around.inner), _divisor(part, around.inner)
    if around.outer is not None:
        output, residual = _linear(output, around.outer), _linear(stream, around.outer)
        outer = _divisor(stream + part, around.outer)
    vectors = replace(plain, output=output, residual=residual, inner=inner, outer=outer)
    return vectors, _passed(stream, part, around)


def _passed(stream: Tensor, part: Tensor, around: Surroundings) -> Tensor:
    """Do what the model does with its residual stream and what attention gives."""
    joined = stream + (part if around.inner is None else around.inner(part))
    return joined if around.outer is None else around.outer(joined)


def _joined_constant(bias: Tensor | None, state: Tensor, vectors: Contributions, around: Surroundings) -> Tensor:
    """Return what a layer adds to each token that comes of no token: the biases, as they end up."""
    constant = torch.zeros_like(state)
    if bias is not None:
        constant += bias
    if around.inner is not None and vectors.inner is not None:
        constant = _plus(_linear(constant, around.inner) * vectors.inner.unsqueeze(-1), around.inner.bias)
    if around.outer is not None and vectors.outer is not None:
        constant = _plus(_linear(constant, around.outer) * vectors.outer.unsqueeze(-1), around.outer.bias)
    return constant


def _linear(x: Tensor, norm: Norm) -> Tensor:
    """Do what a norm does that is linear: centre and multiply with the gain."""
    x = x - x.mean(-1, keepdim=True) if norm.centred else x
    return x * norm.gain.detach().to(x)


def _divisor(x: Tensor, norm: Norm) -> Tensor:
    """Return what a norm multiplies vectors (…, width) with: one over their root mean square."""
    exact = x.double()
    exact = exact - exact.mean(-1, keepdim=True) if norm.centred else exact
    return torch.rsqrt(exact.square().mean(-1) + norm.eps).to(x.dtype)


def _divided_by(norm: Norm) -> Callable[[Tensor], Tensor]:
    return lambda given: _divisor(given.float() if given.dtype != torch.float64 else given, norm)


def _copied(given: Tensor) -> Tensor:
    return given.clone()


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias.detach().to(x)


def _error(found: Tensor, wanted: Tensor) -> float:
    size = float(wanted.double().norm())
    difference = float((found.double() - wanted.double()).norm())
    error = difference / size if size > 0 else difference
    return error if error == error else float("inf")


def _sample(n: int) -> Tensor:
    """Return the first and the last row, and some between."""
    return torch.linspace(0, n - 1, min(n, PROVED_ROWS)).round().long().unique()
