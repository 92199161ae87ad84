"""How far every method of explanation can be trusted, on prompts of which it is known what decides the answer.

Run it as ``python -m benchmarks.faithfulness``; with ``--write``, each table goes into the documentation as soon as it
is there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

import attlas
from attlas.explain.prompts import KINDS, LABELLED, Answered, answered
from attlas.testing.classifiers import classifier
from benchmarks.measuring import machine, put
from benchmarks.prompting import ABLATIONS, FRACTIONS, ORDERS, SETTINGS, candidates, measured, usable
from benchmarks.standings import Standings, standings

PAGE = Path("docs/reference/faithfulness.md")
MODELS = {"smollm2-135m": tuple(KINDS), "minilm-l6": tuple(LABELLED)}
TEXTS = {"agreement": 2000, "facts": 400, "sentiment": 400}
"""How many texts a classifier is trained on."""

TRAINING_SEED = 1
FEW = ("attention", "rollout", "attention_gradient", "gradient_input")


@dataclass(frozen=True)
class Study:
    """What became of the prompts of one kind, on one model.

    Parameters
    ----------
    model, kind : str
    found : Answered
        The prompts, and how many were dropped.
    held_out : float or None
        Accuracy of the classifier on texts that it was not trained on.
    standings : Standings
    refused : mapping
        Methods that do not work on this model -> why.
    """

    model: str
    kind: str
    found: Answered
    held_out: float | None
    standings: Standings
    refused: dict[str, str]

    def markdown(self) -> str:
        """Return what the page says of it."""
        asked = len(self.found.prompts) + self.found.wrong
        drawn = (
            f"{len(self.found.prompts)} prompts, of {asked} that the model was asked; {self.found.wrong} were left out "
            f"because it answers them wrongly"
        )
        drawn += f", {self.found.unfit} because an answer is not one token. " if self.found.unfit else ". "
        if self.held_out is not None:
            drawn += f"The classifier's accuracy on texts that it was not trained on is {self.held_out:.2f}. "
        refused = [f"`{name}` ({reason.split(';')[0]})" for name, reason in self.refused.items()]
        without = f"\n\nNot for this model: {'; '.join(refused)}." if refused else ""
        made = f"Measured on {machine()}."
        return f"{drawn}{self.standings.verdict()}\n\n{self.standings.table()}{without}\n\n{made}"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithfulness", description=__doc__)
    parser.add_argument("--prompts", type=int, default=24, help="prompts of each kind (default 24; at least 8)")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="only these models")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="only these kinds")
    parser.add_argument("--seed", type=int, default=0, help="what everything is drawn from (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--tiny", action="store_true", help="few prompts and methods, to see that everything runs")
    parser.add_argument("--write", action="store_true", help=f"put each table into {PAGE} once it is there")
    arguments = parser.parse_args()
    if arguments.write and (arguments.tiny or arguments.prompts < 20):
        parser.error("--write: wanted all methods and at least 20 prompts of each kind, got fewer")
    if arguments.jobs < 1:
        parser.error(f"--jobs: wanted at least 1, got {arguments.jobs}")
    if arguments.prompts < 8:
        parser.error(f"--prompts: wanted at least 8, for an interval, got {arguments.prompts}")
    prompts = 8 if arguments.tiny else arguments.prompts
    print(f"{settings()}\n")
    if arguments.write:
        put(PAGE, "study:settings", settings())
    for model in arguments.models:
        for kind in (kind for kind in MODELS[model] if kind in arguments.kinds):
            text = study(Wanted(model, kind, prompts, arguments.seed, arguments.tiny), arguments.jobs).markdown()
            print(f"### {kind.capitalize()}, {model}\n\n{text}\n", flush=True)
            if arguments.write:
                put(PAGE, f"study:{kind}, {model}", text)


@dataclass(frozen=True)
class Wanted:
    """Which prompts are to be explained, and how.

    Parameters
    ----------
    model, kind : str
    prompts : int
    seed : int
    tiny : bool
        Whether only to see that everything runs.
    """

    model: str
    kind: str
    prompts: int
    seed: int
    tiny: bool


@dataclass(frozen=True)
class Share:
    """What one process has found: every so manieth prompt.

    Parameters
    ----------
    found : Answered
        All prompts.
    held_out : float or None
        Accuracy of the classifier on texts that it was not trained on.
    refused : mapping
        Methods that do not work on this model -> why.
    rows : list
        Of its prompts: method -> measure -> number.
    """

    found: Answered
    held_out: float | None
    refused: dict[str, str]
    rows: list[Mapping[str, Mapping[str, float]]]


def study(wanted: Wanted, jobs: int) -> Study:
    """Put prompts of a kind to a model, explain those that it answers rightly, and measure the explanations."""
    begun = time.perf_counter()
    if jobs == 1:
        shares = [share(wanted, 0, 1)]
    else:
        # Matrices of short prompts are too small to be shared between cores; prompts are not.
        with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            shares = list(pool.map(share, [wanted] * jobs, range(jobs), [jobs] * jobs))
    took = time.perf_counter() - begun
    print(f"{wanted.model}, {wanted.kind}: {wanted.prompts} prompts in {took:.0f} s", file=sys.stderr, flush=True)
    first, rows = shares[0], [shares[i % jobs].rows[i // jobs] for i in range(wanted.prompts)]
    found = standings(rows, wanted.seed)
    return Study(wanted.model, wanted.kind, first.found, first.held_out, found, first.refused)


def share(wanted: Wanted, number: int, shares: int) -> Share:
    """Do one share of a study; all that the shares have in common comes out alike in each."""
    lm = attlas.load(wanted.model)
    made = None
    if lm.facts.kind != "decoder":
        texts, held_out = (40, 20) if wanted.tiny else (TEXTS[wanted.kind], 200)
        made = classifier(lm, wanted.kind, texts=texts, held_out=held_out, seed=TRAINING_SEED)
        lm = made.lm
    found = answered(lm, wanted.kind, wanted.prompts, wanted.seed)
    names = list(FEW) if wanted.tiny else candidates()
    kept, refused = usable(lm, found.prompts[0], found.targets[0], names)
    rows = [
        measured(lm, found.prompts[i], found.targets[i], kept, wanted.seed + i)
        for i in range(number, wanted.prompts, shares)
    ]
    return Share(found, None if made is None else made.accuracy, refused, rows)


def settings() -> str:
    """Return how everything is measured, as Markdown."""
    return (
        f"Intervals are 95 %, over prompts, and hold for all methods of a table at once; comparisons of pairs hold for "
        f"all pairs at once. Words are taken away in token ids, at {', '.join(f'{f:.0%}' for f in FRACTIONS)} of the "
        f"tokens; AOPC is in nats, or in logits of a class, less its mean over {ORDERS} random orders of the same "
        f"words; LDS is over {ABLATIONS} random ablations; comprehensiveness and sufficiency are of the answer's "
        f"probability, among the two that are compared where there are two. A cue is ranked first if its word (of "
        f"planted facts: its sentence) has the highest score. Integrated gradients take {SETTINGS['steps']} steps."
    )


if __name__ == "__main__":
    main()
