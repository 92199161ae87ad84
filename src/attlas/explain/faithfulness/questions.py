"""One target of a text that is cut into the same parts, for any number of explanations: run once, measured for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.capture.asking import provenance_of
from attlas.errors import ArgumentError, complaint
from attlas.explain.attribution import Attribution
from attlas.explain.faithfulness.curves import Curves
from attlas.explain.faithfulness.measures import CURVE_MEASURES, PROBABILITY, nearest_share
from attlas.explain.faithfulness.orders import POSITIONAL, Parts, by_score, in_reading_order, parts_of, positional
from attlas.explain.faithfulness.planning import DECISIVE, Plan, curve_subsets, plan
from attlas.explain.faithfulness.record import Faithfulness
from attlas.explain.faithfulness.removing import Removal, passage_of, remover
from attlas.explain.faithfulness.running import Runner, key, most_to_begin, runner_of
from attlas.explain.faithfulness.verdicts import Judged, best_by_position, judge_curve, judge_lds, summary
from attlas.explain.reading import Reading
from attlas.explain.targets import Target
from attlas.models import Document

By = Literal["span", "token"]


@dataclass(frozen=True)
class Choices:
    """What a caller of `faithfulness` has chosen; it explains each."""

    budget: int
    removal: Removal
    fractions: tuple[float, ...]
    by: By
    baselines: tuple[str, ...]
    neutral: int | str | None
    layers: Sequence[int | str] | None
    seed: int

    def check(self) -> None:
        """Refuse what makes no sense for any text."""
        if isinstance(self.budget, bool) or not isinstance(self.budget, int) or self.budget < 1:
            raise ArgumentError(complaint("budget", wanted="a whole number of forward passes", got=repr(self.budget)))
        rising = all(a < b for a, b in zip((0.0, *self.fractions), (*self.fractions, 1.0), strict=True))
        if not self.fractions or not rising:
            wanted = "rising shares of the text, above 0 and below 1"
            raise ArgumentError(complaint("fractions", wanted=wanted, got=self.fractions))
        for name in self.baselines:
            if name not in POSITIONAL:
                wanted = f"some of {', '.join(POSITIONAL)}; random orders are always there"
                raise ArgumentError(complaint("baselines", wanted=wanted, got=repr(name)))
        if self.by not in ("span", "token"):
            raise ArgumentError(complaint("by", wanted='"span" or "token"', got=repr(self.by)))


class Ordered(NamedTuple):
    """An explanation, and the order that it gives."""

    attribution: Attribution
    scores: Tensor
    order: Tensor
    tied: int


class Question:
    """What explanations of one target are asked.

    Parameters
    ----------
    lm : LanguageModel
    document : Document
        The text.
    first : Attribution
        One of the explanations: its target and its spans are those of all.
    choices : Choices
    spent : callable
        Called with the number of sequences in each batch that was run.
    """

    def __init__(
        self, lm: LanguageModel, document: Document, first: Attribution, choices: Choices, spent: Callable[[int], None]
    ) -> None:
        reading = Reading(lm, document, (first.target,), first.answer)
        passage = passage_of(reading)
        self._lm, self._choices = lm, choices
        self.parts: Parts = parts_of(passage, first, choices.by)
        self.counts = self.parts.counts(choices.fractions)
        self._positions = {name: positional(name, self.parts) for name in choices.baselines}
        orders = {name: in_reading_order(scores) for name, scores in self._positions.items()}
        self._placed = {name: self.parts.tokens_in(order) for name, order in orders.items() if order is not None}
        way = remover(choices.removal, passage, neutral=choices.neutral, layers=choices.layers)
        self._about = way.about()
        left_open = _is_open(first.target)
        self.planned: Plan = plan(
            self.parts,
            list(self._placed.values()),
            self.counts,
            budget=choices.budget,
            begun=left_open + most_to_begin(way),
            seed=choices.seed,
        )
        if left_open:
            with torch.no_grad():
                passage = replace(passage, reading=reading.resolved(lm.model(**reading.inputs)))
            spent(1)
            way = remover(choices.removal, passage, neutral=choices.neutral, layers=choices.layers)
        [self._target] = passage.reading.targets
        self.runner: Runner = runner_of(way, spent, choices.seed)
        self.full, self.empty = self.runner.begin(self.parts.full, self.parts.empty)
        self._begun = left_open + self.runner.passes

    def ordered(self, attribution: Attribution) -> Ordered:
        """Return the order that an explanation of the same number gives."""
        if not math.isnan(attribution.value) and not self.runner.agree(self.full.value, attribution.value):
            raise ArgumentError(
                complaint(
                    "attribution",
                    wanted=f"one of this model and target, whose value is {self.full.value:.6g}",
                    got=f"{attribution.name}, made where it was {attribution.value:.6g}",
                )
            )
        scores = self.parts.summed(attribution.scores.double().cpu())
        order, tied = by_score(scores, torch.Generator().manual_seed(self._choices.seed + 2))
        return Ordered(attribution, scores, self.parts.tokens_in(order), tied)

    def own_cost(self, ordered: Ordered) -> int:
        """Return how many sequences an explanation needs beside those that are shared."""
        ends = {key(self.parts.full), key(self.parts.empty)}
        return len({key(subset) for subset in self._own(ordered)} - self._shared - ends)

    @cached_property
    def _shared(self) -> set[bytes]:
        return {key(subset) for subset in self.planned.shared} - {key(self.parts.full), key(self.parts.empty)}

    @cached_property
    def _curves(self) -> Curves:
        """What all explanations are compared with; runs it."""
        self.runner.run(self.planned.shared)
        return Curves(self.parts, self.runner, self._choices.fractions, self.counts, self.planned, self._placed)

    @cached_property
    def _ablated(self) -> Tensor:
        """The target's value under each random ablation."""
        values = [self.runner[self.parts.present(keeps)].value for keeps in self.planned.keeps]
        return torch.tensor(values, dtype=torch.float64)

    def _own(self, ordered: Ordered) -> list[Tensor]:
        kinds = self.planned.kinds
        return [one for kind in kinds for one in curve_subsets(self.parts, ordered.order, self.counts, kind)]

    def measure(self, ordered: Ordered) -> Faithfulness:
        """Run what was planned, and say what it shows."""
        name, plan = ordered.attribution.name, self.planned
        curves = self._curves
        self.runner.run(self._own(ordered))
        judged = self._judged(ordered, curves)
        first, *others = sorted(judged, key=lambda one: one.measured.name != self._carrier)
        settings = self._settings
        return Faithfulness(
            method=name,
            verdict=first.verdict,
            summary=summary(first, [other.measured for other in others], self._target, len(plan.keeps)),
            measures=tuple(one.measured for one in (first, *others)),
            curves=curves.records(name, ordered.order),
            value=self.full.value,
            empty=self.empty.value,
            passes=self._begun + len(self._shared) + self.own_cost(ordered),
            settings=settings,
            provenance=provenance_of(self._lm, {"method": name, **settings}),
            notes=self._notes(ordered, first),
        )

    @property
    def _carrier(self) -> str:
        """The measure that carries the verdict; known before anything is measured."""
        return "aopc" if self.planned.deleted >= DECISIVE else "lds"

    def _judged(self, ordered: Ordered, curves: Curves) -> list[Judged]:
        seed, plan, k = self._choices.seed, self.planned, nearest_share(self.counts)
        found = [judge_lds(plan.keeps, ordered.scores, self._ablated, self._positions, seed)]
        for measure in CURVE_MEASURES:
            full, empty = self.full[measure.column], self.empty[measure.column]
            if not len(curves.random.get(measure.kind, ())) or math.isnan(full):
                continue

            def number(traced: Tensor, measure: Any = measure, full: float = full, empty: float = empty) -> Tensor:
                return measure.of(traced[..., measure.column], full, empty, k)

            random = number(curves.random[measure.kind])
            places = {name: float(number(traced)) for name, traced in curves.placed[measure.kind].items()}
            if places:
                # An order that tells nothing apart is a random one.
                places |= {name: float(random.mean()) for name in self._positions if name not in self._placed}
            unit = "" if measure.column == PROBABILITY else _unit(self._target)
            own = float(number(curves.of(ordered.order, measure.kind)))
            found.append(judge_curve(measure, own, random, places, unit or "probability", seed))
        return found

    @property
    def _settings(self) -> Mapping[str, Any]:
        choices, plan = self._choices, self.planned
        return {
            "target": self._target.name,
            "removal": choices.removal,
            **self._about,
            "by": choices.by,
            "parts": len(self.parts),
            "fractions": choices.fractions,
            "tokens_removed": tuple(self.counts),
            "top_k": self.counts[nearest_share(self.counts)],
            "budget": choices.budget,
            "ablations": len(plan.keeps),
            "random_orders": plan.deleted,
            "random_orders_inserted": plan.inserted,
            "seed": choices.seed,
        }

    def _notes(self, ordered: Ordered, first: Judged) -> dict[str, Any]:
        notes: dict[str, Any] = {"tied": ordered.tied}
        if self.planned.needs:
            notes["left_out"] = dict(self.planned.needs)
        best = best_by_position(first.measured)
        if best is not None:
            notes["best_by_position"] = {"order": best[0], "advantage": best[1]}
        return notes


def _is_open(target: Target) -> bool:
    """Whether the target is the model's own prediction, whatever that is."""
    return target.token is None and target.class_index is None and target.function is None


def _unit(target: Target) -> str:
    if target.function is not None:
        return "of the target's own unit"
    tells_probability = target.class_index is None and target.against is None and target.measure == "log_prob"
    return "nats" if tells_probability else "logits"
