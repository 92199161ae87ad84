"""Occlusion: what the target loses when one part of the text after another is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.explain.attribution import Span
from attlas.explain.faithfulness.removing import Passage, Removal, passage_of, remover
from attlas.explain.faithfulness.running import Runner
from attlas.explain.reading import Reading
from attlas.explain.references import Reference
from attlas.explain.walk import Found
from attlas.models.progress import Progress

LIMIT = 1024
"""Spans above which occlusion refuses, unless it is told otherwise."""


class Occlusion(Reference):
    """What the target loses when one span after another is taken away, each time from the whole text.

    Parameters
    ----------
    removal : {"delete", "mask", "mean", "knockout"}
        What it means to take a span away; see `attlas.faithfulness`.
    neutral : int or str, optional
        The token that ``"mask"`` puts there; the tokenizer's mask token by default.
    limit : int
        Refuse more spans than this: each is a forward pass.

    Notes
    -----
    Zeiler and Fergus, 2014 (arXiv 1311.2901). A span's score is shared evenly by those of its tokens that can be taken
    away; added tokens and the one at which the target is read stay, and so does what a decoder's target cannot see:
    these have score 0. Spans are run in batches.
    """

    signed: bool = True

    def __init__(self, removal: Removal = "delete", neutral: int | str | None = None, *, limit: int = LIMIT) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ArgumentError(complaint("limit", wanted="a whole number from 1", got=repr(limit)))
        self.removal: Removal = removal
        self.neutral, self.limit = neutral, limit

    def explain(self, reading: Reading, spans: Sequence[Span], progress: Progress | None = None) -> Found:
        scores = torch.zeros(len(reading.targets), reading.n, dtype=torch.float64)
        told = _Told(progress)
        for row, target in zip(scores, reading.targets, strict=True):
            passage = passage_of(replace(reading, targets=(target,)))
            parts = self._parts(passage, spans)
            runner = Runner(remover(self.removal, passage, neutral=self.neutral), told.more)
            told.planned = told.done + len(parts) + 1
            present = [passage.without(part) for part in parts]
            shortest = min(present, key=lambda one: int(one.sum()))
            whole, _ = runner.begin(passage.without(passage.free[:0]), shortest)
            told.planned = told.done + runner.count(present)
            runner.run(present)
            for part, one in zip(parts, present, strict=True):
                row[part] = (whole.value - runner[one].value) / len(part)
        return Found(scores, notes={"passes": told.done})

    def _parts(self, passage: Passage, spans: Sequence[Span]) -> list[Tensor]:
        """Return what is taken away of each span: positions."""
        free = passage.free
        parts = [free[(free >= span.start) & (free < span.stop)] for span in spans]
        parts = [part for part in parts if len(part)]
        if len(parts) > self.limit:
            raise ArgumentError(
                complaint(
                    "spans",
                    wanted=f"at most {self.limit:,} for occlusion, which runs the model once for each",
                    got=f"{len(parts):,}",
                    way_out='take larger ones, such as spans="sentence", or allow more with limit=',
                )
            )
        return parts


class _Told:
    """Tells how many texts were run."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self.done, self.planned = progress, 0, 0

    def more(self, count: int) -> None:
        self.done += count
        if self._progress is not None:
            self._progress(self.done, max(self.done, self.planned), "occluding")
