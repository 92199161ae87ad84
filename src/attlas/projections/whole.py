"""`attlas.projections`: the projection matrices of every layer of a model, found in one short run and proved by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from attlas import __version__
from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, NonFiniteError, UnsupportedModelError, by_reason, complaint
from attlas.matrix.indexing import IndexOutOfRange
from attlas.models.progress import Progress
from attlas.projections.counting import ParameterCounts, parameter_counts
from attlas.projections.finding import final_norm_of, rotary_of
from attlas.projections.proving import layer_error, prove_layer
from attlas.projections.tracing import text_inputs, trace
from attlas.projections.views import HeadProjections, LayerProjections, Norm
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.projections.composing import Composition


@dataclass(frozen=True, eq=False, repr=False)
class Projections:
    """The projection matrices of a model.

    ``P[layer]`` is a layer, ``P[layer, head]`` a head; iteration goes over the layers.

    Parameters
    ----------
    views : tuple of LayerProjections
        In the order of their numbers, which are those of a capture.
    model : torch.nn.Module
    lm : LanguageModel, optional
        When it was made from one.
    unrouted : mapping
        Layers without views, and why; empty unless ``unrouted="report"``.
    provenance : Provenance
    inputs : mapping
        What the model was run with.
    embedding, unembedding : Tensor, (vocabulary, d_model), optional
        The model's own weights.
    final_norm : Norm, optional
        The normalisation in front of the unembedding.
    """

    views: tuple[LayerProjections, ...]
    model: nn.Module
    lm: LanguageModel | None
    unrouted: Mapping[str, str]
    provenance: Provenance
    inputs: Mapping[str, Any]
    embedding: Tensor | None = None
    unembedding: Tensor | None = None
    final_norm: Norm | None = None

    @property
    def layers(self) -> list[int]:
        """The layers' numbers."""
        return [view.layer for view in self.views]

    @property
    def names(self) -> list[str]:
        """The names of their attention modules."""
        return [view.name for view in self.views]

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Every (layer, head), in order."""
        return [(view.layer, head) for view in self.views for head in range(view.heads)]

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[LayerProjections]:
        return iter(self.views)

    @overload
    def __getitem__(self, at: int | str) -> LayerProjections: ...

    @overload
    def __getitem__(self, at: tuple[int | str, int]) -> HeadProjections: ...

    def __getitem__(self, at: int | str | tuple[int | str, int]) -> LayerProjections | HeadProjections:
        """Return a layer, by number (negative ones count from the end) or by its module's name, or one of its heads."""
        if isinstance(at, tuple):
            if len(at) != 2:
                raise ArgumentError(complaint("index", wanted="P[layer] or P[layer, head]", got=at))
            return self[at[0]].head(at[1])
        if isinstance(at, str):
            named = [view for view in self.views if view.name == at]
            if not named:
                raise ArgumentError(
                    complaint("layer", wanted=f"one of {', '.join(dict.fromkeys(self.names))}", got=repr(at))
                )
            return named[0]
        if isinstance(at, bool) or not isinstance(at, int):
            raise ArgumentError(complaint("layer", wanted="a number or a module's name", got=repr(at)))
        number = self.layers[at] if -len(self) <= at < 0 else at
        if number not in self.layers:
            span = ", ".join(map(str, self.layers)) if len(self) < 4 else f"{self.layers[0]} to {self.layers[-1]}"
            raise IndexOutOfRange(complaint("layer", wanted=f"one of {span}", got=at))
        return self.views[self.layers.index(number)]

    def verify(self, inputs: Mapping[str, Any] | str | None = None) -> dict[int, float]:
        """Prove the views on a run of the model: project the hidden states, and compare with what a capture recorded.

        Parameters
        ----------
        inputs : mapping or str, optional
            What to call the model with, or a text for a language model; by default what the views were found with.

        Returns
        -------
        dict
            For each layer the worst relative error of queries, keys and values, ``‖made − recorded‖ / ‖recorded‖`` of a
            head, and of what the output projection gave; the projection is computed in float64. Below 1e-6 for float32
            models.

        Notes
        -----
        Cost: a forward pass, with a copy of what the attention's modules are given, so use some hundred tokens.
        """
        given = self.inputs if inputs is None else _inputs(self.lm or self.model, inputs)
        names = {name for view in self.views for name in view.modules.values()}
        traced = trace(self.model, given, list(self.layers), names)
        return {view.layer: layer_error(traced, view) for view in self.views}

    def counts(self) -> ParameterCounts:
        """Return the parameters of each projection, and what share of the model they are."""
        return parameter_counts(self.views, self.model)

    def composition(self, kind: Literal["q", "k", "v"], **options: Any) -> Composition:
        """Return how much each head's output feeds each later head's queries, keys or values.

        `attlas.projections.composition` says what the score is, its chance level and its options.
        """
        from attlas.projections.composing import composition

        return composition(self, kind, **options)

    def __repr__(self) -> str:
        return f"Projections({self.provenance.model}, {len(self)} layers, {len(self.heads)} heads)"


def projections(
    lm: LanguageModel | nn.Module,
    inputs: Mapping[str, Any] | None = None,
    *,
    layers: Sequence[int | str] | None = None,
    unrouted: Literal["error", "report"] = "error",
    progress: Progress | None = None,
) -> Projections:
    """View W_Q, W_K, W_V and W_O of every layer and head of a model.

    The model runs once on a few tokens. Which module makes the queries, where each head lies in its weight, how
    queries are normalised and rotated: of all the ways in which models do this, the one is taken that reproduces, in
    float64, what the attention kernel was given in that run. A layer for which none does is refused.

    Parameters
    ----------
    lm : LanguageModel or torch.nn.Module
        What `attlas.load` returned, or any module whose attention `attlas.capture` can record.
    inputs : mapping, optional
        What to call the model with; made up of a few token ids for a model that reads text.
    layers : sequence of int or str, optional
        Which layers, by a capture's numbers or module names; all by default.
    unrouted : {"error", "report"}
        What to do about a layer that cannot be viewed: raise, or list it in `Projections.unrouted`.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Projections

    Raises
    ------
    UnsupportedModelError
        A layer cannot be viewed: its module and the reason are named.
    NonFiniteError
        A weight holds NaN or infinity.
    ArgumentError
        The inputs or layers do not fit the model.

    Notes
    -----
    Cost: one forward pass over 16 tokens, and each projection of them in float64. The weights are not copied, except
    where `LayerProjections.shared` says so.

    Examples
    --------
    >>> P = attlas.projections(attlas.load("smollm2-135m"))  # doctest: +SKIP
    >>> P[16, 0].qk.svdvals()  # doctest: +SKIP
    """
    if unrouted not in ("error", "report"):
        raise ArgumentError(complaint("unrouted", wanted='"error" or "report"', got=repr(unrouted)))
    model = lm.model if isinstance(lm, LanguageModel) else lm
    if not isinstance(model, nn.Module):
        raise ArgumentError(complaint("lm", wanted="a LanguageModel or a torch.nn.Module", got=type(lm).__name__))
    given = _inputs(lm, inputs)
    try:
        traced = trace(model, given, None if layers is None else list(layers))
    except NonFiniteError as error:
        broken = next((name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())), None)
        if broken is None:
            raise
        raise NonFiniteError(complaint(broken, wanted="finite weights", got="NaN or infinity in them")) from error
    missed = dict(traced.unrouted)
    numbers = traced.captured.layers
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    rotary = rotary_of(model)
    found = []
    for done, number in enumerate(numbers):
        name = traced.captured.names[done]
        if progress is not None:
            progress(done, len(numbers), f"proving the projections of {name}")
        try:
            found.append(prove_layer(model, traced, number, rotary))
        except UnsupportedModelError as error:
            module = name.partition(" (turn ")[0]
            missed[name] = str(error).removeprefix(f"{module}: ").removeprefix(f"{module}.")
    if progress is not None:
        progress(len(numbers), len(numbers), "proved")
    if missed and (unrouted == "error" or not found):
        raise UnsupportedModelError(_refusal(missed, bool(found)))
    config: Any = getattr(model, "config", None)
    embedding, unembedding, head = _vocabulary(model)
    return Projections(
        views=tuple(found),
        model=model,
        lm=lm if isinstance(lm, LanguageModel) else None,
        unrouted=missed,
        provenance=Provenance(
            __version__,
            lm.name if isinstance(lm, LanguageModel) else type(model).__name__,
            lm.facts.fingerprint if isinstance(lm, LanguageModel) else "",
            {
                "layers": "all" if layers is None else list(layers),
                "inputs": "made up" if inputs is None else sorted(inputs),
                "model_dtype": str(dtype).removeprefix("torch."),
                "kernel": getattr(config, "_attn_implementation", None) or "torch",
                "torch": torch.__version__,
            },
        ),
        inputs=given,
        embedding=embedding,
        unembedding=unembedding,
        final_norm=final_norm_of(traced, head),
    )


def _inputs(lm: LanguageModel | nn.Module, inputs: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return what to call the model with."""
    model = lm.model if isinstance(lm, LanguageModel) else lm
    if inputs is None:
        return text_inputs(model)
    if isinstance(inputs, str):
        if not isinstance(lm, LanguageModel):
            way_out = "pass its inputs as a dictionary"
            raise ArgumentError(complaint("inputs", wanted="no text for a bare module", got="a text", way_out=way_out))
        ids = torch.tensor([lm.tokenize(inputs).ids], device=next(model.parameters()).device)
        return {**text_inputs(model), "input_ids": ids}
    if not isinstance(inputs, Mapping):
        raise ArgumentError(complaint("inputs", wanted="a dictionary of arguments", got=type(inputs).__name__))
    return dict(inputs)


def _refusal(missed: Mapping[str, str], some: bool) -> str:
    way_out = '. To view the other layers, pass unrouted="report"; `P.unrouted` then names these' if some else ""
    return by_reason(missed) + way_out


def _vocabulary(model: Any) -> tuple[Tensor | None, Tensor | None, nn.Module | None]:
    """Return the embedding, the unembedding, and the module of the latter."""
    found = []
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        try:
            module = getattr(model, getter)() if hasattr(model, getter) else None
        except NotImplementedError:  # a model of sound or images, or of two parts
            module = None
        weight = getattr(module, "weight", None)
        plain = isinstance(weight, Tensor) and weight.dim() == 2 and weight.is_floating_point()
        found.append((weight.detach() if plain and isinstance(weight, Tensor) else None, module))
    return found[0][0], found[1][0], found[1][1]
