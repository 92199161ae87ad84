"""Whether the advice on what to adapt is worth having: the same budget, shared out in seven ways, on two tasks.

Every finished run is a line of a file outside the tree, so that the study can be stopped at any moment and taken up
again by the same command: ``python -m benchmarks --only advice``, or ``python -m benchmarks.lora_advice``, which prints
the same.

How it is kept fair. The budget, the data, their order, the number of steps and what products are multiplied with are
the same for all arms of a seed. The learning rate is chosen for each arm and task from one grid, by the held-out loss
on two development seeds that are not reported. What the advice is made by was chosen on one seed of a third kind of
task and, as to the bound of its ranks, after one run on a development seed of facts; neither is reported. It was
changed once more when it gave up on one of the reported seeds (it had taken the gradient after a step alone), and all
of its runs were made again. EVA gets as many ranks as PEFT gives it, which is another number of parameters; it is
shown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from attlas._intervals import simultaneous
from benchmarks.lora_arms import ARMS, Job, Sizes, run
from benchmarks.measuring import Row, Sheet, seconds
from benchmarks.model import MODEL

RESULTS = Path(tempfile.gettempdir()) / "attlas_lora_advice.jsonl"
NAME = "advice:arms"
AGAINST = "even"
LONGER = "even, longer"


@dataclass(frozen=True)
class Study:
    """What is run.

    Parameters
    ----------
    kinds : tuple of str
        Tasks that are reported.
    arms : tuple of str
    seeds : tuple of int
        Those that are reported; at least 8, for an interval.
    development : tuple of int
        Those that rates are chosen by.
    rates : tuple of float
    sizes : Sizes
    layers : int or None
        Of a random model in the place of the real one.
    """

    kinds: tuple[str, ...] = ("facts", "records")
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = tuple(range(8))
    development: tuple[int, ...] = (100, 101)
    rates: tuple[float, ...] = (2e-3, 4e-3, 6e-3, 9e-3)
    sizes: Sizes = Sizes(steps=32, batch={"facts": 12, "records": 6})  # noqa: RUF009 - it is frozen
    layers: int | None = None

    @property
    def key(self) -> str:
        """Return what tells results of this study from those of another."""
        return json.dumps([asdict(self.sizes), self.layers], sort_keys=True)


TINY = Study(
    kinds=("facts",),
    arms=("advice", AGAINST),
    development=(100,),
    rates=(2e-3,),
    sizes=Sizes(2, {"facts": 4}),
    layers=1,
)


def rows(*, tiny: bool) -> Iterator[Row | Sheet]:
    """Run what is missing, and say for each task whether the advice is better than sharing evenly."""
    study = TINY if tiny else Study()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "results.jsonl") if tiny else RESULTS
        results = finished(study, file, jobs=min(2, os.cpu_count() or 1))
    yield from reported(study, results)


# ---- running


def finished(study: Study, file: Path, jobs: int) -> dict[str, dict[str, Any]]:
    """Return the results of all runs, by their keys; what is not in the file is run and added to it."""
    done = read(study, file)
    with ProcessPoolExecutor(jobs, get_context("spawn"), _ready, (study.layers,)) as pool:

        def complete(wanted: Iterable[Job]) -> None:
            missing = [job for job in wanted if job.key not in done]
            begun = time.perf_counter()
            futures = {pool.submit(_run, job, study.sizes): job for job in missing}
            for count, future in enumerate(as_completed(futures), start=1):
                job = futures[future]
                try:
                    done[job.key] = {**asdict(job), **future.result()}
                except BaseException:
                    # Leaving the pool would wait for all the others, whose results nobody would keep.
                    pool.shutdown(wait=False, cancel_futures=True)
                    print(f"advice: {job.key} failed", file=sys.stderr, flush=True)
                    raise
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"study": study.key, "key": job.key, **done[job.key]}) + "\n")
                left = (time.perf_counter() - begun) / count * (len(missing) - count)
                print(
                    f"advice: {job.key}: loss {done[job.key]['loss']:.3f}, {count} of {len(missing)}, "
                    f"{left / 60:.0f} min left",
                    file=sys.stderr,
                    flush=True,
                )

        complete(development(study))
        complete(reporting(study, rates(study, done)))
    return done


def read(study: Study, file: Path) -> dict[str, dict[str, Any]]:
    """Return the results of this study that a file holds; a line that was cut off is left out."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["study"] == study.key:
            found[entry["key"]] = entry
    return found


def development(study: Study) -> list[Job]:
    """Return the runs that rates are chosen by; training longer has the rate of training evenly."""
    return [
        Job(kind, arm, seed, rate)
        for seed in study.development
        for kind in study.kinds
        for arm in study.arms
        if arm != LONGER
        for rate in study.rates
    ]


def rates(study: Study, done: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return the rate with the lowest held-out loss on the development seeds, for each kind and arm."""

    def loss(kind: str, arm: str, rate: float) -> float:
        return mean(done[Job(kind, arm, seed, rate).key]["loss"] for seed in study.development)

    def best(kind: str, arm: str) -> float:
        same = AGAINST if arm == LONGER else arm
        return min(study.rates, key=lambda rate: loss(kind, same, rate))

    return {(kind, arm): best(kind, arm) for kind in study.kinds for arm in study.arms}


def reporting(study: Study, chosen: Mapping[tuple[str, str], float]) -> list[Job]:
    """Return the runs that are reported."""
    return [
        Job(kind, arm, seed, chosen[kind, arm]) for seed in study.seeds for kind in study.kinds for arm in study.arms
    ]


_model: Any = None


def _ready(layers: int | None) -> None:
    """Open the model once in each process, which has one thread: two processes are faster than two threads."""
    global _model
    torch.set_num_threads(1)
    import attlas
    from benchmarks.explaining import random_model

    _model = attlas.load(MODEL) if layers is None else random_model(layers, 512)


def _run(job: Job, sizes: Sizes) -> dict[str, float]:
    return run(_model, job, sizes)


# ---- reporting


@dataclass(frozen=True)
class Outcome:
    """How an arm did on a kind of task, against sharing evenly; every interval holds together with those of all arms.

    Parameters
    ----------
    kind, arm : str
    rate : float
    runs : list of mapping
        A result a seed.
    loss, accuracy : (float, float, float)
        Mean difference from sharing evenly, and the ends of its interval.
    """

    kind: str
    arm: str
    rate: float
    runs: Sequence[Mapping[str, Any]]
    loss: tuple[float, float, float]
    accuracy: tuple[float, float, float]

    def average(self, what: str) -> float:
        """Return the mean over seeds."""
        return mean(one[what] for one in self.runs)

    @property
    def verdict(self) -> str:
        """Say whether the loss differs beyond noise."""
        _, low, high = self.loss
        return "better" if high < 0 else "worse" if low > 0 else "within noise"


def outcomes(study: Study, done: Mapping[str, Mapping[str, Any]]) -> list[Outcome]:
    """Compare every arm with sharing evenly, seed by seed."""
    chosen = rates(study, done)
    found = []
    for kind in study.kinds:
        runs = {arm: [done[Job(kind, arm, seed, chosen[kind, arm]).key] for seed in study.seeds] for arm in study.arms}
        others = [arm for arm in study.arms if arm != AGAINST]
        differences = {
            what: _differences(
                [[a[what] - b[what] for a, b in zip(runs[arm], runs[AGAINST], strict=True)] for arm in others]
            )
            for what in ("loss", "accuracy")
        }
        for arm in study.arms:
            same = (0.0, 0.0, 0.0)
            at = others.index(arm) if arm in others else None
            loss, accuracy = (same if at is None else differences[what][at] for what in ("loss", "accuracy"))
            found.append(Outcome(kind, arm, chosen[kind, arm], runs[arm], loss, accuracy))
    return found


def _apart(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], what: str) -> list[float]:
    return [a[what] - b[what] for a, b in zip(ours, theirs, strict=True)]


def _differences(by_arm: list[list[float]]) -> list[tuple[float, float, float]]:
    """Return mean and interval of each arm's differences; the intervals hold for all arms together."""
    found = simultaneous(torch.tensor(by_arm, dtype=torch.float64).T)
    return list(zip(found.mean.tolist(), found.low.tolist(), found.high.tolist(), strict=True))


def reported(study: Study, done: Mapping[str, Mapping[str, Any]]) -> Iterator[Row | Sheet]:
    """Return the table of all arms, and a row of the advice for each task."""
    found = outcomes(study, done)
    yield Sheet(NAME, table(found))
    for one in found:
        if one.arm != "advice":
            continue
        taken = median(run["chosen_in"] for run in one.runs)
        step = median(run["step_seconds"] for run in one.runs)
        yield Row(
            f"held-out loss of {one.kind} with the advised ranks",
            "even ranks over all linear modules, as many parameters",
            f"{one.loss[0]:+.3f} nats",
            "below 0",
            f"{one.verdict}: {_interval(one.loss)}, 95 % together with the other arms, {len(one.runs)} seeds; accuracy "
            f"{_interval(one.accuracy, 100, 0)} points; the advice took {seconds(taken)}, as long as "
            f"{taken / step:.0f} of the {one.runs[0]['steps']} steps"
            if step
            else f"{one.verdict}",
        )


def table(found: Sequence[Outcome]) -> str:
    """Return all arms in Markdown."""
    lines = [
        "| task | arm | modules | parameters | learning rate | held-out loss | answered right | loss against even | "
        "right against even | step |",
        "|---|---|--:|--:|--:|--:|--:|---|---|--:|",
    ]
    for one in found:
        against = ("–", "–")
        if one.arm != AGAINST:
            against = (f"{_interval(one.loss)}, {one.verdict}", f"{_interval(one.accuracy, 100, 0)} points")
        lines.append(
            f"| {one.kind} | {one.arm} | {one.average('modules'):.0f} | {one.average('parameters'):,.0f} | "
            f"{one.rate:g} | {one.average('loss'):.3f} | {100 * one.average('accuracy'):.0f} % | {against[0]} | "
            f"{against[1]} | {seconds(median(run['step_seconds'] for run in one.runs))} |"
        )
    return "\n".join(lines)


def _interval(value: tuple[float, float, float], factor: float = 1.0, digits: int = 3) -> str:
    middle, low, high = (f"{factor * number:+.{digits}f}" for number in value)
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Run the study, or what is missing of it, and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lora_advice", description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help=f"where finished runs are kept (default {RESULTS})"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each (default 2)")
    arguments = parser.parse_args()
    study = Study()
    for one in reported(study, finished(study, arguments.results, arguments.jobs)):
        print(one.text if isinstance(one, Sheet) else one.markdown(), end="\n\n")


if __name__ == "__main__":
    main()
