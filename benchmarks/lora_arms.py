"""Ways of sharing out one budget of parameters over linear modules, the advice among them; and a run of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import median

from attlas import LanguageModel
from attlas.training import Examples, LoraSettings, Targets, TrainingSettings, adapt, advise, examples_of, fit
from attlas.training.allotting import Candidate, allot
from attlas.training.batches import step_batch
from attlas.training.sites import Site, find_sites
from attlas.training.tasks import make_task, score

RANK = 2
"""The rank that all linear modules have when they share the budget evenly."""

ALPHA = 16.0
EVERYTHING = Targets(("all",))
BEFORE = 4
"""Batches that EVA looks at."""


@dataclass(frozen=True)
class Sizes:
    """How long a run is.

    Parameters
    ----------
    steps : int
    batch : mapping
        Kind of task -> examples a step.
    trial : int
        Examples of a step of the advice's trial.
    """

    steps: int
    batch: Mapping[str, int]
    trial: int = 8


@dataclass(frozen=True)
class Job:
    """One run: everything that it depends on beside the sizes.

    Parameters
    ----------
    kind : str
        Of the task.
    arm : str
        One of `ARMS`.
    seed : int
        Of the task, the trial, random choices, the adapter's first values and the order of the examples; all arms of a
        seed share them.
    rate : float
        The highest learning rate.
    """

    kind: str
    arm: str
    seed: int
    rate: float

    @property
    def key(self) -> str:
        """Return what names it in a file of results."""
        return f"{self.kind}/{self.arm}/{self.seed}/{self.rate:g}"


@dataclass(frozen=True)
class Way:
    """How the budget is shared out.

    Parameters
    ----------
    lora : LoraSettings
    chosen_in : float
        Seconds that the choice took.
    extra : int
        Steps of training beyond those of the others.
    """

    lora: LoraSettings
    chosen_in: float = 0.0
    extra: int = 0


def advised(lm: LanguageModel, job: Job, examples: Examples, sizes: Sizes) -> Way:
    begun = time.perf_counter()
    advice = advise(lm, examples, rank=RANK, batch=sizes.trial, seed=job.seed)
    return Way(advice.settings(alpha=ALPHA), time.perf_counter() - begun)


def evenly(*ends: str) -> Callable[[LanguageModel, Job, Examples, Sizes], Way]:
    """Return how modules with such names, or all, share the budget: one rank for all, and the rest by lot."""

    def way(lm: LanguageModel, job: Job, examples: Examples, sizes: Sizes) -> Way:
        sites = find_sites(lm, EVERYTHING)
        budget = RANK * sum(map(cost, sites))
        meant = [site for site in sites if not ends or site.name.endswith(ends)]
        Random(job.seed).shuffle(meant)  # noqa: S311 - the same again, not secret
        # As much worth as it costs: all claims are alike.
        ranks = allot([Candidate(cost(site), cost(site), min(site.shape)) for site in meant], budget)
        return Way(ranked(sites, dict(zip([site.name for site in meant], ranks, strict=True))))

    return way


def at_random(lm: LanguageModel, job: Job, examples: Examples, sizes: Sizes) -> Way:
    """Give each next rank to any module, by lot."""
    sites = find_sites(lm, EVERYTHING)
    left, ranks, random = RANK * sum(map(cost, sites)), {site.name: 0 for site in sites}, Random(job.seed)  # noqa: S311
    while fitting := [site for site in sites if cost(site) <= left]:
        site = random.choice(fitting)
        ranks[site.name] += 1
        left -= cost(site)
    return Way(ranked(sites, ranks))


def by_eva(lm: LanguageModel, job: Job, examples: Examples, sizes: Sizes) -> Way:
    """Let PEFT's EVA share out as many ranks as all modules have evenly, and begin from its directions."""
    return Way(LoraSettings(rank=RANK, alpha=ALPHA, init="eva"))


def longer(lm: LanguageModel, job: Job, examples: Examples, sizes: Sizes) -> Way:
    """Share evenly, and train for as many steps more as the advice's trial takes."""
    return Way(LoraSettings(rank=RANK, alpha=ALPHA), extra=min(16, len(examples) // sizes.trial))


ARMS: dict[str, Callable[[LanguageModel, Job, Examples, Sizes], Way]] = {
    "advice": advised,
    "even": evenly(),
    "query and value": evenly("q_proj", "v_proj"),
    "MLP": evenly("gate_proj", "up_proj", "down_proj"),
    "EVA": by_eva,
    "random": at_random,
    "even, longer": longer,
}


def cost(site: Site) -> int:
    """Return the parameters of each rank."""
    return sum(site.shape)


def ranked(sites: list[Site], ranks: Mapping[str, int]) -> LoraSettings:
    """Return an adapter of these ranks; what is multiplied with the products is the same for all arms."""
    return LoraSettings(rank=RANK, alpha=ALPHA, ranks={site.name: ranks.get(site.name, 0) for site in sites})


def run(lm: LanguageModel, job: Job, sizes: Sizes) -> dict[str, float]:
    """Train one adapter, and return what it cost and how it answers the held-out items."""
    task = make_task(job.kind, job.seed)
    examples = examples_of(lm, task.examples())
    way = ARMS[job.arm](lm, job, examples, sizes)
    settings = TrainingSettings(
        steps=sizes.steps + way.extra,
        batch=sizes.batch[job.kind],
        learning_rate=job.rate,
        warmup=0.1,
        decay="linear",
        held_out=0,
        seed=job.seed,
    )
    looked_at = [step_batch(examples, settings.batch, job.seed, step) for step in range(BEFORE)]
    seen: list[float] = []
    with adapt(lm, EVERYTHING, way.lora, seed=job.seed, batches=looked_at) as adapted:
        course = fit(adapted, examples, settings, progress=lambda *_: seen.append(time.perf_counter()))
        found = score(lm, task.held_out, model=adapted.of)
        return {
            "loss": found.loss,
            "accuracy": found.accuracy,
            "training_loss": course.losses[-1],
            "parameters": adapted.trainable,
            "modules": len(adapted.sites),
            "steps": settings.steps,
            "step_seconds": median(b - a for a, b in pairwise(seen)),
            "chosen_in": way.chosen_in,
        }
