"""What each head gives on average over a reference: what a mean ablation puts in the place of its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture.hearing import Place
from attlas.capture.interface import Scoring, all_deaf, changers, listeners
from attlas.capture.intervention import Editor, Means, editing, module_of
from attlas.capture.language_model import LanguageModel, reader_of, run_on
from attlas.errors import ArgumentError, complaint
from attlas.models import check_length

Reference = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""A text, the inputs of one forward call, or several of these."""


class Averaging(Editor):
    """Adds up each head's output over batch and positions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def given(self, place: Place, scoring: Scoring) -> Scoring:
        """Change nothing."""
        return scoring

    def gave(self, place: Place, output: Tensor) -> Tensor:
        """Add the output up."""
        layer, total = (place.name, place.turn), output.detach().sum((0, 2), dtype=torch.float64)
        self._sums[layer] = self._sums[layer] + total if layer in self._sums else total
        self._counts[layer] = self._counts.get(layer, 0) + output.shape[0] * output.shape[2]
        return output

    def means(self) -> Means:
        """Return the mean of each head, float64."""
        return {layer: total / self._counts[layer] for layer, total in self._sums.items()}


def mean_outputs(model: LanguageModel | nn.Module, reference: Reference) -> Means:
    """Return each head's mean output over all positions of a reference.

    Parameters
    ----------
    model : LanguageModel or torch.nn.Module
        The model.
    reference : str, dict, or sequence of these
        As for `ablate`.

    Returns
    -------
    mapping
        Module name and turn -> Tensor (head, value_dim), float64. Every position counts alike, whatever text it is in.
    """
    module = module_of(model)
    runs = [_run_of(model, module, one) for one in _several(reference)]
    averaging = Averaging(module)
    # Nobody else on this thread takes part.
    with all_deaf([*listeners(), *changers()]), editing(module, averaging), torch.no_grad():
        for run in runs:
            run()
    return averaging.means()


def _several(reference: Reference) -> Sequence[str | Mapping[str, Any]]:
    several = [reference] if isinstance(reference, str | Mapping) else reference
    if not isinstance(several, Sequence) or not len(several):
        raise ArgumentError(complaint("reference", wanted="a text, inputs of the model, or a list", got=repr(several)))
    return several


def _run_of(
    model: LanguageModel | nn.Module, module: nn.Module, reference: str | Mapping[str, Any]
) -> Callable[[], object]:
    if isinstance(reference, Mapping):
        padding = reference.get("attention_mask")
        if isinstance(padding, Tensor) and not bool(padding.all()):
            raise ArgumentError(
                complaint(
                    "reference", wanted="inputs without padding", got="some", way_out="give a list, one text each"
                )
            )
        return partial(module, **reference)
    if not isinstance(model, LanguageModel) or not isinstance(reference, str):
        wanted = "texts or inputs" if isinstance(model, LanguageModel) else "inputs (a dict) for a bare module"
        raise ArgumentError(complaint("reference", wanted=wanted, got=f"a {type(reference).__name__}"))
    document = model.tokenize(reference)
    check_length(document, model.facts.positions)
    return partial(run_on, reader_of(module), torch.tensor([document.ids]))
