"""Integrated gradients, through Captum: gradients averaged on the way from a baseline to the text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from attlas.capture.differentiable import check_differentiable
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.explain.attribution import Span
from attlas.explain.reading import Reading
from attlas.explain.references import Reference
from attlas.explain.walk import Found
from attlas.models.progress import Progress

RULES = ("gausslegendre", "riemann_trapezoid", "riemann_middle", "riemann_left", "riemann_right")


class IntegratedGradients(Reference):
    """Integrated gradients over the embeddings, summed over their width.

    Parameters
    ----------
    steps : int
        Points on the way, each a forward and a backward pass.
    baseline : {"padding", "zero"} or int
        Where the way begins: at the embedding of the tokenizer's padding token (or else of the one that ends a text, or
        of the unknown one), at zeros, or at the embedding of a token.
    rule : str
        How Captum weighs the points: ``"gausslegendre"``, ``"riemann_trapezoid"`` …

    Notes
    -----
    Sundararajan, Taly and Yan, 2017 (arXiv 1703.01365). Complete: with enough steps, scores sum to the target's value
    on the text less its value on the baseline; ``completeness_gap`` in the notes is what they have too much. Added
    tokens keep their place on the way, and so have score 0. The points are run one at a time, so memory is that of one
    backward pass.
    """

    signed: bool = True

    def __init__(
        self, steps: int = 32, baseline: Literal["padding", "zero"] | int = "padding", rule: str = "gausslegendre"
    ) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
            raise ArgumentError(complaint("steps", wanted="a whole number from 2", got=repr(steps)))
        if rule not in RULES:
            raise ArgumentError(complaint("rule", wanted=f"one of {', '.join(RULES)}", got=repr(rule)))
        if isinstance(baseline, bool) or not (isinstance(baseline, int) or baseline in ("padding", "zero")):
            raise ArgumentError(complaint("baseline", wanted='"padding", "zero" or a token id', got=repr(baseline)))
        self.steps, self.baseline, self.rule = steps, baseline, rule
        self._captum = _captum()

    def explain(self, reading: Reading, spans: Sequence[Span], progress: Progress | None = None) -> Found:
        del spans
        model: Any = reading.lm.model
        check_differentiable(model)
        if "inputs_embeds" not in inspect.signature(model.forward).parameters:
            raise UnsupportedModelError(
                f"{type(model).__name__}: takes no embeddings (inputs_embeds), between which integrated gradients go; "
                "use another method, such as occlusion"
            )
        with torch.no_grad():
            embeddings = model.get_input_embeddings()(reading.ids[None])
            start = self._start(reading, embeddings)
        found, gaps = [], []
        for i in range(len(reading.targets)):
            alone = replace(reading, targets=reading.targets[i : i + 1])
            scores, gap = self._integrate(alone, embeddings, start, _Steps(progress, i, self.steps, reading))
            found.append(scores)
            gaps.append(gap)
        return Found(torch.stack(found), notes={"completeness_gap": gaps})

    def _integrate(self, reading: Reading, embeddings: Tensor, start: Tensor, steps: _Steps) -> tuple[Tensor, float]:
        """Return the scores of a reading's one target, (n,), and how far their sum is from what it should be."""
        model: Any = reading.lm.model
        inputs = {name: value for name, value in reading.inputs.items() if name != "input_ids"}

        def value(states: Tensor) -> Tensor:
            steps.tell()
            return reading.objective(model(inputs_embeds=states, **inputs))

        with torch.no_grad():
            one, other = float(value(embeddings)), float(reading.objective(model(**reading.inputs)))
        # Rounding adds up over layers, so half of the dtype's digits have to agree.
        if not abs(one - other) <= torch.finfo(embeddings.dtype).eps ** 0.5 * max(1.0, abs(other)):
            raise UnsupportedModelError(
                f"{type(model).__name__}: answers otherwise when it is given the text's embeddings ({one:.6g}) than "
                f"when it is given its tokens ({other:.6g}), so integrated gradients would be of another answer"
            )
        scores, gap = self._captum.IntegratedGradients(value).attribute(
            embeddings,
            start,
            n_steps=self.steps,
            method=self.rule,
            internal_batch_size=1,
            return_convergence_delta=True,
        )
        return scores.detach().double().sum(-1)[0].cpu(), float(gap)

    def _start(self, reading: Reading, embeddings: Tensor) -> Tensor:
        """Return where the way begins, (1, n, width)."""
        model: Any = reading.lm.model
        start = torch.zeros_like(embeddings)
        if self.baseline != "zero":
            index = self.baseline if isinstance(self.baseline, int) else _neutral(reading)
            if not 0 <= index < len(model.get_input_embeddings().weight):
                raise ArgumentError(complaint("baseline", wanted="a token of the vocabulary", got=index))
            start += model.get_input_embeddings()(torch.tensor([[index]], device=embeddings.device))
        front, behind = reading.document.added
        for kept in (slice(front), slice(reading.n - behind, reading.n)):
            start[:, kept] = embeddings[:, kept]
        return start


class _Steps:
    """Tells how many points of the way were visited."""

    def __init__(self, progress: Progress | None, before: int, steps: int, reading: Reading) -> None:
        self._progress, self._total = progress, steps * len(reading.targets)
        self._done, self._last = steps * before, steps * (before + 1)

    def tell(self) -> None:
        if self._progress is not None:
            self._done = min(self._done + 1, self._last)
            self._progress(self._done, self._total, "integrating gradients")


def _neutral(reading: Reading) -> int:
    tokenizer: Any = reading.lm.tokenizer
    for name in ("pad", "eos", "unk"):
        index = getattr(tokenizer, f"{name}_token_id", None)
        if isinstance(index, int):
            return index
    raise ArgumentError(
        complaint(
            "baseline",
            wanted='"zero" or a token id for a model without a token for padding or for the end of a text',
            got='"padding"',
        )
    )


def _captum() -> Any:
    try:
        return import_module("captum.attr")
    except ImportError as error:
        raise UnsupportedModelError(
            "method: integrated_gradients is computed by the package captum, which is not installed; pip install captum"
        ) from error
