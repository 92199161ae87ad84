"""Who beats whom: means over prompts with simultaneous intervals, and all pairs of methods on the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas._intervals import Interval, simultaneous
from benchmarks.prompting import MEASURES

BETTER = {"aopc": 1, "comprehensiveness": 1, "sufficiency": -1, "lds": 1, "cue first": 1, "cue precision": 1}
JUDGED = ("aopc", "lds")
"""Measures on which pairs of methods are compared."""

HEADINGS = {
    "aopc": "AOPC over random",
    "comprehensiveness": "comprehensiveness",
    "sufficiency": "sufficiency (less is better)",
    "lds": "LDS",
    "cue first": "cue ranked first",
    "cue precision": "cue precision",
}


@dataclass(frozen=True, eq=False)
class Standings:
    """The methods on prompts of one kind.

    Parameters
    ----------
    methods : tuple of str
        Best AOPC first.
    intervals : mapping
        Measure -> means over prompts, with intervals that hold for all methods at once.
    beats : mapping
        Measure -> (method, method), bool: whether the first is better than the second, by intervals of the paired
        differences that hold for all pairs at once.
    prompts : int
        How many there were.
    """

    methods: tuple[str, ...]
    intervals: Mapping[str, Interval]
    beats: Mapping[str, Tensor]
    prompts: int

    def table(self) -> str:
        """Return the table as Markdown."""
        judged = [f"{HEADINGS[name]}: beats / loses to" for name in JUDGED]
        lines = ["| " + " | ".join(["method", *(HEADINGS[name] for name in MEASURES), *judged]) + " |"]
        lines.append("|---" * (1 + len(MEASURES) + len(JUDGED)) + "|")
        for i, method in enumerate(self.methods):
            cells = [f"`{method}`", *(_cell(self.intervals[name], i) for name in MEASURES)]
            cells += [f"{int(self.beats[name][i].sum())} / {int(self.beats[name][:, i].sum())}" for name in JUDGED]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def verdict(self) -> str:
        """Return in words what the table shows of AOPC."""
        found, lost = self.intervals["aopc"], self.beats["aopc"]
        groups = {
            "Better than random orders": [m for i, m in enumerate(self.methods) if found.low[i] > 0],
            "Cannot be told from random": [m for i, m in enumerate(self.methods) if found.low[i] <= 0 <= found.high[i]],
            "Worse than random": [m for i, m in enumerate(self.methods) if found.high[i] < 0],
            "Beaten by none": [m for i, m in enumerate(self.methods) if not lost[:, i].any()],
        }
        named = [f"{what}: {', '.join(f'`{m}`' for m in those) or 'none'}." for what, those in groups.items()]
        return " ".join(["By AOPC:", *named])


def standings(rows: Sequence[Mapping[str, Mapping[str, float]]], seed: int) -> Standings:
    """Compare methods on prompts; `rows` has one entry a prompt: method -> measure -> number."""
    names = list(rows[0])
    scores = {
        measure: torch.tensor([[row[name][measure] for name in names] for row in rows], dtype=torch.float64)
        for measure in MEASURES
    }
    order = scores["aopc"].mean(0).argsort(descending=True)
    scores = {measure: own[:, order] for measure, own in scores.items()}
    return Standings(
        methods=tuple(names[i] for i in order.tolist()),
        intervals={
            name: simultaneous(own, seed=seed, hits=name in ("cue first", "cue precision"))
            for name, own in scores.items()
        },
        beats={name: beaten(scores[name] * BETTER[name], seed) for name in JUDGED},
        prompts=len(rows),
    )


def beaten(scores: Tensor, seed: int) -> Tensor:
    """Return which method is better than which, (method, method), bool, of scores, (prompt, method): more is better."""
    count = scores.shape[1]
    first, second = torch.triu_indices(count, count, 1)
    found = simultaneous(scores[:, first] - scores[:, second], seed=seed)
    beats = torch.zeros(count, count, dtype=torch.bool)
    beats[first, second], beats[second, first] = found.low > 0, found.high < 0
    return beats


def _cell(found: Interval, place: int) -> str:
    mean, half = float(found.mean[place]), float(found.high[place] - found.mean[place])
    return f"{mean:.2f} ± {half:.2f}"
