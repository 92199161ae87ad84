"""One prompt of the study: explained by every method, and each explanation held against what the model then misses.

The same measures as `attlas.faithfulness` has, from the same parts; but intervals here are over prompts, so each prompt
needs few random orders, and all methods share what is run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import attlas
from attlas import AttlasError, LanguageModel
from attlas.explain import METHODS, Attribution, Target, spans_of
from attlas.explain.faithfulness.measures import CURVE_MEASURES, PROBABILITY, lds
from attlas.explain.faithfulness.orders import (
    POSITIONAL,
    Parts,
    by_score,
    parts_of,
    positional,
    random_halves,
    random_orders,
)
from attlas.explain.faithfulness.planning import curve_subsets
from attlas.explain.faithfulness.removing import passage_of, remover
from attlas.explain.faithfulness.running import Runner, Value, runner_of
from attlas.explain.prompts import Prompt
from attlas.explain.reading import reading_of

FRACTIONS = (0.1, 0.2, 0.5)
ABLATIONS = 16
ORDERS = 3
RANDOM = "random"
MEASURES = ("aopc", "comprehensiveness", "sufficiency", "lds", "cue first", "cue precision")
SENTENCES = ("facts",)
"""Kinds whose cue is a sentence; that of others is a word."""

PRESETS = (
    "chefer:released-bert",
    "value_norm:paper-2021",
    "globenc:pre-norm",
    "suppression:multiplicative",
)
"""Beside each method's own first one."""

SETTINGS = {"steps": 8}
"""Settings of methods that would take long otherwise."""


def candidates() -> list[str]:
    """Return every method and preset that is compared; baselines by position come from elsewhere."""
    return [*(name for name in METHODS if METHODS[name].needs != "nothing"), *PRESETS]


def usable(lm: LanguageModel, prompt: Prompt, target: Target, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return which methods explain a prompt on this model, and why others do not."""
    kept, refused = [], {}
    for name in names:
        try:
            explained(lm, prompt, target, [name])
        except AttlasError as error:
            refused[name] = str(error)
        else:
            kept.append(name)
    return kept, refused


def explained(lm: LanguageModel, prompt: Prompt, target: Target, names: Sequence[str]) -> tuple[Attribution, ...]:
    """Explain a prompt by several methods at once; nothing is measured of them yet."""
    known = {name for one in names for name in METHODS[one.partition(":")[0]].settings}
    settings: dict[str, Any] = {name: value for name, value in SETTINGS.items() if name in known}
    return attlas.explain(lm, prompt.text, list(names), target, spans="word", budget=0, **settings)


@dataclass(frozen=True, eq=False)
class Subject:
    """A prompt whose parts can be taken away.

    Parameters
    ----------
    parts : Parts
        Its words.
    sentences : Parts
        Its sentences.
    runner : Runner
        What the model says without some of them.
    cue : Tensor, (n,), bool
        Which tokens that can be taken away the cue covers.
    """

    parts: Parts
    sentences: Parts
    runner: Runner
    cue: Tensor


def measured(
    lm: LanguageModel, prompt: Prompt, target: Target, names: Sequence[str], seed: int
) -> Mapping[str, Mapping[str, float]]:
    """Return each method's measures on one prompt: method -> measure -> number; "aopc" is the advantage over random."""
    found = explained(lm, prompt, target, names)
    subject = _subject(lm, prompt, found[0], seed)
    parts, generator = subject.parts, torch.Generator().manual_seed(seed)
    scores = {name: one.scores.double().cpu() for name, one in zip(names, found, strict=True)}
    n = len(found[0].scores)
    # Baselines are of words; a word's score is spread over its tokens.
    placed = {RANDOM: torch.rand(len(parts), generator=generator, dtype=torch.float64)}
    placed |= {name: positional(name, parts) for name in POSITIONAL}
    scores |= {name: _spread(parts, own, n) for name, own in placed.items()}
    orders = {name: parts.tokens_in(by_score(parts.summed(own), generator)[0]) for name, own in scores.items()}
    chances = [parts.tokens_in(order) for order in random_orders(len(parts), ORDERS, generator)]
    keeps, counts, runner = random_halves(len(parts), ABLATIONS, generator), parts.counts(FRACTIONS), subject.runner
    full, empty = runner.begin(parts.full, parts.empty)
    wanted = [parts.present(some) for some in keeps]
    for kind in ("deletion", "insertion"):
        wanted += [s for order in orders.values() for s in curve_subsets(parts, order, counts, kind)]
    wanted += [s for order in chances for s in curve_subsets(parts, order, counts, "deletion")]
    runner.run(wanted)
    ablated = torch.tensor([runner[parts.present(some)].value for some in keeps], dtype=torch.float64)

    def number(name: str, order: Tensor) -> float:
        [measure] = [one for one in CURVE_MEASURES if one.name == name]
        values = [runner[subset] for subset in curve_subsets(parts, order, counts, measure.kind)]
        column = torch.tensor([_column(value, measure.column) for value in values], dtype=torch.float64)
        return float(measure.of(column, _column(full, measure.column), _column(empty, measure.column), 0))

    chance = sum(number("aopc", order) for order in chances) / ORDERS
    rows: dict[str, dict[str, float]] = {}
    for name, order in orders.items():
        rows[name] = {one: number(one, order) for one in ("aopc", "comprehensiveness", "sufficiency")}
        rows[name]["aopc"] -= chance
        rows[name]["lds"] = lds(keeps, parts.summed(scores[name]), ablated)
        by_kind = subject.sentences if prompt.kind in SENTENCES else parts
        rows[name]["cue first"] = _cue_first(by_kind, scores[name], subject.cue)
        rows[name]["cue precision"] = _cue_precision(parts, scores[name], subject.cue, generator)
    return rows


def _subject(lm: LanguageModel, prompt: Prompt, attribution: Attribution, seed: int) -> Subject:
    reading = reading_of(lm, prompt.text, attribution.target)
    passage = passage_of(reading)
    parts = parts_of(passage, attribution, "span")
    free = torch.zeros(passage.n, dtype=torch.bool)
    free[passage.free] = True
    spans = spans_of("sentence", reading.document, lm.tokenizer)
    whole = [torch.arange(span.start, min(span.stop, passage.n)) for span in spans]
    sentences = Parts(passage, tuple(kept for one in whole if len(kept := one[free[one]])))
    offsets = reading.document.offsets
    if offsets is None:
        raise ValueError(f"{lm.name}: its tokenizer cannot tell where a cue lies")
    inside = [
        bool(free[i]) and any(start < stop_ and start_ < stop for start_, stop_ in prompt.cue)
        for i, (start, stop) in enumerate(offsets[: passage.n])
    ]
    return Subject(parts, sentences, runner_of(remover("delete", passage), None, seed), torch.tensor(inside))


def _spread(parts: Parts, scores: Tensor, n: int) -> Tensor:
    spread = torch.zeros(n, dtype=torch.float64)
    for member, score in zip(parts.members, scores, strict=True):
        spread[member] = score / len(member)
    return spread


def _column(value: Value, column: int) -> float:
    if column != PROBABILITY:
        return value.value
    # Of two answers that are set against each other, the share of the first.
    return value.probability if not math.isnan(value.probability) else 1 / (1 + math.exp(-value.value))


def _cue_first(parts: Parts, scores: Tensor, cue: Tensor) -> float:
    """Return whether the part with the highest score has the cue in it; of several highest ones, the share."""
    summed = parts.summed(scores)
    best = (summed == summed.max()).nonzero().flatten().tolist()
    return sum(bool(cue[parts.members[part]].any()) for part in best) / len(best)


def _cue_precision(parts: Parts, scores: Tensor, cue: Tensor, generator: torch.Generator) -> float:
    """Return which share of the tokens with the highest scores, as many as the cue has, lie in the cue."""
    free = parts.passage.free
    order, _ = by_score(scores[free], generator)
    count = int(cue.sum())
    return float(cue[free[order[:count]]].sum()) / count
