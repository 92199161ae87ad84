"""Walks down model families against the models' own eager attention, and its gradients by automatic differentiation.

Eager attention takes its softmax in float32 whatever the model's numbers are, so that is how exactly the two agree.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
from attlas.capture.descent import descend
from attlas.capture.walking import walk_capture
from attlas.explain.attention_walks import RawAttention, Rollout, RolloutNull
from attlas.explain.flow import Flow
from attlas.explain.gradient_walks import AttentionTimesGradient, Chefer, GradSam, Suppression
from attlas.explain.walk import Walker, walk
from attlas.testing.tiny_models import TINY_MODELS

FAMILIES = ["Llama", "Mistral", "Gemma 2", "gpt-oss", "GPT-2", "BERT", "DistilBERT", "T5", "BART"]


class Run:
    """A tiny model, its eager attention with gradients, lowest layer first, and where walks begin."""

    def __init__(self, family: str) -> None:
        tiny = next(one for one in TINY_MODELS if one.family == family)
        # Routed experts run in float32 at most.
        self.model: Any = tiny.build() if family == "gpt-oss" else tiny.build().double()
        self.inputs = tiny.inputs()
        self.two_stacks = tiny.kind == "encoder-decoder"
        asked = self.inputs["decoder_input_ids" if self.two_stacks else "input_ids"].shape[1]
        self.rows = torch.eye(asked, dtype=torch.float64)[[-1, 2]]
        self.reading: Any = SimpleNamespace(rows=self.rows, n=self.inputs["input_ids"].shape[1])
        self._eager()

    def objective(self, output: Any) -> Tensor:
        """Return a number of the last position's, and one of another's."""
        states = getattr(output, "logits", None)
        states = output.last_hidden_state if states is None else states
        return torch.stack([states[0, -1, 7], states[0, 2, 3] - states[0, 2, 5]])

    def _eager(self) -> None:
        implementation = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        output = self.model(**self.inputs, output_attentions=True)
        if self.two_stacks:
            stacks = (output.encoder_attentions, output.decoder_attentions, output.cross_attentions)
        else:
            stacks = (output.attentions, (), ())
        values = self.objective(output)
        # Encoder-only models and the rest of a model that a target does not see have no gradient.
        wanted = [one for stack in stacks for one in stack]
        found = [torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True) for value in values]
        given = {
            id(one): [torch.zeros_like(one) if got[i] is None else got[i] for got in found]
            for i, one in enumerate(wanted)
        }
        self.encoder, self.decoder, self.cross = (
            [(one[0].detach().double(), [gradient[0].double() for gradient in given[id(one)]]) for one in stack]
            for stack in stacks
        )
        self.model.set_attn_implementation(implementation)

    def captured(self, walker: Walker) -> Tensor:
        """Walk over a capture."""
        with torch.no_grad(), attlas.capture(self.model) as cap:
            self.model(**self.inputs)
        return walk(self.reading, [walker], walk_capture(cap))[0].scores

    def descended(self, walker: Walker) -> Tensor:
        """Walk while a backward pass goes down."""
        walker.start(self.reading)
        for attended in descend(self.model, self.inputs, self.objective):
            walker.visit(attended)
        return walker.finish().scores


@pytest.fixture(scope="module")
def runs() -> Callable[[str], Run]:
    known: dict[str, Run] = {}

    def of(family: str) -> Run:
        if family not in known:
            known[family] = Run(family)
        return known[family]

    return of


def agree(answer: Tensor, wanted: Tensor) -> None:
    """As near as float32 is: PyTorch's own tolerances for it."""
    torch.testing.assert_close(answer, wanted, rtol=1.3e-6, atol=1e-5)


def rollout(run: Run, step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Walk densely: `step` gives what a row passes down through an attention, and what it keeps."""
    rows, crossed = run.rows, None
    if run.two_stacks:
        crossed = torch.zeros(2, run.reading.n, dtype=torch.float64)
        for (own, _), (cross, _) in zip(reversed(run.decoder), reversed(run.cross), strict=True):
            moved, rows = step(rows, cross)
            crossed = crossed + moved
            moved, kept = step(rows, own)
            rows = moved + kept
        rows = crossed
    for attention, _ in reversed(run.encoder):
        moved, kept = step(rows, attention)
        rows = moved + kept
    return rows


def keys_scored(run: Run) -> list[tuple[Tensor, list[Tensor]]]:
    return [*run.encoder, *run.cross]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_rollout(runs: Callable[[str], Run], family: str) -> None:
    run = runs(family)
    wanted = rollout(run, lambda rows, attention: (rows @ attention.mean(0) / 2, rows / 2))
    agree(run.captured(Rollout()), wanted)
    agree(run.descended(Rollout()), wanted)
    raw = torch.stack([run.rows @ attention.mean(0) for attention, _ in run.cross or run.encoder]).mean(0)
    agree(run.captured(RawAttention()), raw)


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_against_its_null(runs: Callable[[str], Run], family: str) -> None:
    run = runs(family)

    def evenly(rows: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        seen = (attention[:1] > 0).double().mean(0)
        return rows @ (seen / seen.sum(1, keepdim=True)) / 2, rows / 2

    real = rollout(run, lambda rows, attention: (rows @ attention.mean(0) / 2, rows / 2))
    agree(run.captured(RolloutNull(sinks=0, by="difference")), real - rollout(run, evenly))


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_times_gradient(runs: Callable[[str], Run], family: str) -> None:
    run = runs(family)
    parts = [torch.stack([(a * g).sum((0, 1)) for g in given]) for a, given in keys_scored(run)]
    agree(run.descended(AttentionTimesGradient()), torch.stack(parts).sum(0))
    parts = [torch.stack([(a * g).clamp(min=0).mean((0, 1)) for g in given]) for a, given in keys_scored(run)]
    agree(run.descended(GradSam()), torch.stack(parts).mean(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_suppression(runs: Callable[[str], Run], family: str) -> None:
    run = runs(family)
    parts = []
    for attention, given in keys_scored(run):
        products = [attention * gradient for gradient in given]
        parts.append(torch.stack([(one - attention * one.sum(-1, keepdim=True)).sum((0, 1)) for one in products]))
    agree(run.descended(Suppression()), torch.stack(parts).sum(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_chefer(runs: Callable[[str], Run], family: str) -> None:
    run = runs(family)
    rows = []
    for target in range(2):

        def edges(one: tuple[Tensor, list[Tensor]], target: int = target) -> Tensor:
            return (one[0] * one[1][target]).clamp(min=0).mean(0)

        below = torch.eye(run.reading.n, dtype=torch.float64)
        for one in run.encoder:
            below = below + edges(one) @ below
        if not run.two_stacks:
            rows.append(run.rows[target] @ below)
            continue
        crossed = torch.zeros(run.rows.shape[1], run.reading.n, dtype=torch.float64)
        for own, cross in zip(run.decoder, run.cross, strict=True):
            crossed = crossed + edges(own) @ crossed
            crossed = crossed + edges(cross) @ below
        rows.append(run.rows[target] @ crossed)
    agree(run.descended(Chefer(crossing="row")), torch.stack(rows))


@pytest.mark.parametrize("family", ["Llama", "BERT", "T5"])
def test_flow_lies_between_its_bounds_and_above_rollout(runs: Callable[[str], Run], family: str) -> None:
    run = runs(family)
    with torch.no_grad(), attlas.capture(run.model) as cap:
        run.model(**run.inputs)
    walkers = [Flow(99, 99, 99, normalised=False), Flow(3, 5, 4, normalised=False), Rollout()]
    whole, some, rolled = walk(run.reading, walkers, walk_capture(cap))
    assert whole.low is not None
    assert whole.high is not None
    assert some.low is not None
    assert some.high is not None
    torch.testing.assert_close(whole.low, whole.high)
    for least, most in ((some.low, whole.low), (whole.low, some.high), (rolled.scores, whole.low)):
        assert bool((least <= most + 1e-9).all())
