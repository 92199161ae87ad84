"""How well a plan finds planted facts again: the same haystacks for the exact model and for the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from attlas._tables import Table
from attlas.capture import LanguageModel
from attlas.capture.asking import provenance_of
from attlas.models.progress import Progress
from attlas.planning.continuing import greedy
from attlas.planning.haystacks import Grid, Haystack, haystacks
from attlas.results import Provenance

LEVEL = 0.95
"""The probability that the intervals of all cells hold together."""


@dataclass(frozen=True)
class Found:
    """What a model made of one haystack.

    Parameters
    ----------
    rank : int
        Of the right value among those that the text names, by the log-probability of its first token; 1 is right.
    margin : float
        Its log-probability less that of the best other value, in nats.
    said : bool
        Whether the model, saying what is likeliest of all words, says the right value.
    """

    rank: int
    margin: float
    said: bool


@dataclass(frozen=True)
class Trial:
    """One haystack, put to the exact model, and to the plan if the exact model has found its fact.

    Parameters
    ----------
    haystack : Haystack
    exact : Found
    planned : Found or None
    """

    haystack: Haystack
    exact: Found
    planned: Found | None


@dataclass(frozen=True)
class Cell:
    """Facts of one task at one depth in texts of one length.

    Parameters
    ----------
    task : str
    length : int
    depth : float
    asked : int
        Haystacks that were put to the exact model.
    exact : int
        Those in which it found the fact; the others say nothing about the plan.
    kept : int
        Those of them in which the plan found it as well.
    said, said_kept : int
        Likewise, where finding means that the model says the value, whatever else it could have said.
    low, high : float
        95 % interval of `kept` / `exact`, which holds for all cells at once; 0 and 1 where nothing is known.
    """

    task: str
    length: int
    depth: float
    asked: int
    exact: int
    kept: int
    said: int
    said_kept: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share of what the exact model finds that the plan finds as well; NaN where the model finds nothing."""
        return self.kept / self.exact if self.exact else math.nan

    @property
    def lost(self) -> float:
        """Percentage points by which the plan finds fewer of all facts than the exact model."""
        return 100 * (self.exact - self.kept) / self.asked


@dataclass(frozen=True, eq=False)
class Retrieval(Table):
    """How well a plan finds planted facts again.

    Parameters
    ----------
    trials : tuple of Trial
        Every haystack.
    cells : tuple of Cell
        The same, by task, length and depth.
    provenance : Provenance
        How it was made.
    """

    trials: tuple[Trial, ...]
    cells: tuple[Cell, ...]
    provenance: Provenance

    @property
    def answerable(self) -> float:
        """The share of facts that the exact model finds: only these can be lost."""
        return sum(cell.exact for cell in self.cells) / len(self.trials)

    @property
    def worst(self) -> Cell | None:
        """The cell with the smallest share of facts found again; None where the exact model finds none anywhere."""
        known = [cell for cell in self.cells if cell.exact]
        return min(known, key=lambda cell: (cell.share, -cell.exact), default=None)

    def task(self, name: str) -> Cell:
        """Return all cells of a task as one; its depth and length are NaN and 0."""
        return _cell(name, 0, math.nan, [trial for trial in self.trials if trial.haystack.task == name], 1)

    @property
    def worst_task(self) -> Cell | None:
        """The task with the smallest share of facts found again."""
        tasks = [self.task(name) for name in dict.fromkeys(cell.task for cell in self.cells)]
        return min((task for task in tasks if task.exact), key=lambda task: task.share, default=None)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types, a row a cell."""
        return [
            {
                "task": cell.task, "length": cell.length, "depth": cell.depth, "asked": cell.asked,
                "exact": cell.exact, "kept": cell.kept, "share": cell.share, "low": cell.low, "high": cell.high,
                "said": cell.said, "said_kept": cell.said_kept,
            }
            for cell in self.cells
        ]  # fmt: skip


def retrieval(
    lm: LanguageModel,
    applied: Callable[[], AbstractContextManager[Any]],
    grid: Grid | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Retrieval:
    """Put haystacks to a model as it is, and under a plan.

    Parameters
    ----------
    lm : LanguageModel
        A model that predicts next tokens.
    applied : callable
        Returns a context inside of which the model runs by the plan.
    grid : Grid, optional
        Which haystacks.
    seed : int
        What they are drawn from.
    progress : callable, optional
        Called as ``progress(done, total, "looking for planted facts")``.

    Returns
    -------
    Retrieval

    Raises
    ------
    ArgumentError
        As `haystacks`.
    UnsupportedModelError
        The model predicts no next token.

    Notes
    -----
    A forward pass for each haystack, and another one for those whose fact the exact model has found.
    """
    grid = grid or Grid()
    made = haystacks(lm, grid, seed)
    done = 0

    def tell(steps: int) -> None:
        nonlocal done
        done += steps
        if progress is not None:
            progress(done, 2 * len(made), "looking for planted facts")

    exact = []
    for haystack in made:
        exact.append(found_in(lm, haystack))
        tell(1 if _counts(exact[-1]) else 2)
    planned: list[Found | None] = [None] * len(made)
    with applied():
        for i, (haystack, found) in enumerate(zip(made, exact, strict=True)):
            if _counts(found):
                planned[i] = found_in(lm, haystack)
                tell(1)
    trials = tuple(Trial(*parts) for parts in zip(made, exact, planned, strict=True))
    cells = list(grid.cells())
    parts = [trials[i * grid.each : (i + 1) * grid.each] for i in range(len(cells))]
    return Retrieval(
        trials,
        tuple(_cell(*cell, part, len(cells)) for cell, part in zip(cells, parts, strict=True)),
        provenance_of(lm, {"lengths": grid.lengths, "depths": grid.depths, "each": grid.each, "tasks": grid.tasks,
                           "seed": seed}),
    )  # fmt: skip


def found_in(lm: LanguageModel, haystack: Haystack) -> Found:
    """Return what a model, as it runs now, makes of a haystack."""
    tokens, first = greedy(lm, haystack.ids, len(haystack.answer))
    chances = first.double().log_softmax(-1)
    right = float(chances[haystack.answer[0]])
    others = chances[list(haystack.others)]
    # Whoever is level with another value has not told them apart.
    return Found(1 + int((others >= right).sum()), right - float(others.max()), tokens == haystack.answer)


def _counts(found: Found) -> bool:
    return found.rank == 1 or found.said


def _cell(task: str, length: int, depth: float, trials: Sequence[Trial], together: int) -> Cell:
    exact = [trial for trial in trials if trial.exact.rank == 1]
    said = [trial for trial in trials if trial.exact.said]
    kept = sum(trial.planned is not None and trial.planned.rank == 1 for trial in exact)
    low, high = wilson(kept, len(exact), 1 - (1 - LEVEL) / together)
    said_kept = sum(trial.planned is not None and trial.planned.said for trial in said)
    return Cell(task, length, depth, len(trials), len(exact), kept, len(said), said_kept, low, high)


def wilson(hits: int, tries: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a share of which `hits` of `tries` are known; (0, 1) where nothing was tried.

    Notes
    -----
    Wilson 1927, "Probable inference, the law of succession, and statistical inference": it holds for few tries too, and
    does not shrink to a point where all of them hit.
    """
    if not tries:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, room = hits / tries, z * z / tries
    middle = (share + room / 2) / (1 + room)
    half = math.sqrt(share * (1 - share) * room + room * room / 4) / (1 + room)
    return max(0.0, middle - half), min(1.0, middle + half)
