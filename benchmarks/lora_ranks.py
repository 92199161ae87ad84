"""What LoRA's paper found of rank (Hu et al. 2021, arXiv 2106.09685, section 7), on a real model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from torch import Tensor

import attlas
from attlas.compare.sides import open_sides
from attlas.training import LoraSettings, Targets, train
from attlas.training.tasks import make_task
from benchmarks.lora import Sizes as Run
from benchmarks.measuring import Row
from benchmarks.model import MODEL

PROJECTIONS = {"query": "W_Q", "value": "W_V"}
PAPER = {
    "amplification": "GPT-3's W_Q: 21.5 at rank 4, 1.9 at rank 64",
    "overlap": "GPT-3: the first direction of two ranks alike, the others hardly",
}


@dataclass(frozen=True)
class Sizes:
    """How much is done: the adapters' ranks, the largest last; and the steps of each."""

    ranks: tuple[int, ...] = (1, 4, 16, 64)
    steps: int = 60
    batch: int = 16


TINY = Sizes((1, 2), 2, 2)


@dataclass(frozen=True)
class Trained:
    """An adapter: each module's amplification by what it makes, and what it reads, (rank, in), strongest first."""

    rank: int
    loss: float
    amplification: dict[str, list[float]]
    directions: dict[str, Tensor]


def rows(*, tiny: bool) -> Iterator[Row]:
    """Teach the same facts at several ranks, and compare what was added."""
    sizes, lm = TINY if tiny else Sizes(), attlas.load(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        found = [_trained(lm, rank, sizes, Path(folder, str(rank))) for rank in sizes.ranks]
    for one in found:
        reached = ", ".join(f"{name} {_figure(median(one.amplification[role]))}" for role, name in PROJECTIONS.items())
        spread = ", ".join(
            f"{name} {_figure(min(one.amplification[role]))}–{_figure(max(one.amplification[role]))}"
            for role, name in PROJECTIONS.items()
        )
        what = f"amplification at rank {one.rank}, median over layers"
        detail = f"over layers {spread}; {sizes.steps} steps, loss of the last batch {one.loss:.2f}"
        yield Row(what, PAPER["amplification"], reached, "falls with the rank", detail)
    largest = found[-1]
    for one in found[1:-1] or found[:1]:
        first, later = slice(0, 1), slice(one.rank // 2, one.rank)
        shared, unshared = ([_alike(one, largest, name, part) for name in one.directions] for part in (first, later))
        yield Row(
            f"overlap φ of rank {one.rank} with rank {largest.rank}: the first direction of each",
            PAPER["overlap"],
            f"{median(shared):.2f}",
            "above the others'",
            f"median over {len(shared)} modules; of the later half of its directions {median(unshared):.2f}; "
            f"of random ones {_chance(one, later):.3f}",
        )


def _trained(lm: attlas.LanguageModel, rank: int, sizes: Sizes, folder: Path) -> Trained:
    settings = Run(batch=sizes.batch).settings(sizes.steps, save_every=0)
    lora = LoraSettings(rank, alpha=2.0 * rank)
    done = train(
        lm, make_task("facts").examples(), folder, targets=Targets(("query", "value")), lora=lora, settings=settings
    )
    modules = attlas.compare(lm, folder, intruders=0).modules.rows()
    amplification = {
        role: [row["amplification"] for row in modules if row["role"] == role and row["amplification"]]
        for role in PROJECTIONS
    }
    directions = {name: change.svd()[2] for name, change in open_sides(lm, folder, {}).changes.items()}
    return Trained(rank, done.losses[-1], amplification, directions)


def _alike(one: Trained, other: Trained, name: str, part: slice) -> float:
    """Return φ of the same part of what two changes of a module read, from 0 to 1 (section 7.2)."""
    first, second = one.directions[name][part], other.directions[name][part]
    return float((first @ second.T).square().sum()) / len(first)


def _figure(value: float) -> str:
    """Return two figures, without an exponent."""
    return f"{float(f'{value:.2g}'):,g}"


def _chance(one: Trained, part: slice) -> float:
    """Return φ of as many random directions: their number over the width."""
    some = next(iter(one.directions.values()))
    return len(some[part]) / some.shape[1]
