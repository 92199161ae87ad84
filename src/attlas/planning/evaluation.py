"""What a plan costs and gains on texts that it was not made from: the record that `attlas.evaluate` returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from attlas._tables import Table
from attlas.planning.retrieval import Cell, Retrieval
from attlas.planning.speed import Speed
from attlas.results import Provenance


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; both ends are NaN where there is too little to give one.

    Parameters
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float

    def spans(self, number: float) -> bool:
        """Whether the interval does not exclude a number; True where there is none."""
        return not (self.low > number or self.high < number)


@dataclass(frozen=True)
class Judged:
    """One text under the plan, against the exact model; losses and divergences are in nats for a token.

    Parameters
    ----------
    text : int
        Which of the texts, from 0.
    tokens : int
    exact, planned : float
        The mean next-token loss.
    ratio : Estimate
        The plan's perplexity over the exact one; the interval draws stretches of the text, and holds for all texts at
        once.
    divergence, divergence_p95, divergence_worst : float
        Kullback–Leibler divergence of the plan's predictions from the exact ones: the mean over positions, the 95th
        percentile, the worst.
    worst_at : int
        Where it is worst, a token's position.
    same : float
        The share of positions at which both find the same next token the likeliest.
    """

    text: int
    tokens: int
    exact: float
    planned: float
    ratio: Estimate
    divergence: float
    divergence_p95: float
    divergence_worst: float
    worst_at: int
    same: float


@dataclass(frozen=True)
class Continued:
    """How both go on with a text, always by the likeliest token.

    Parameters
    ----------
    text : int
        Which of the texts, from 0.
    read : int
        Tokens that were read first.
    tokens : int
        How many were written.
    parted : int
        How many are the same before the first that is not; `tokens` if all are.
    same : float
        The share of places with the same token.
    exact, planned : str
        What was written.
    """

    text: int
    read: int
    tokens: int
    parted: int
    same: float
    exact: str
    planned: str


@dataclass(frozen=True)
class Flip:
    """A head that would get another pattern on these texts than the plan has for it.

    Parameters
    ----------
    layer, head : int
    planned, here : str
        The two patterns.
    """

    layer: int
    head: int
    planned: str
    here: str


@dataclass(frozen=True)
class Flips:
    """How far the choice of patterns hangs on the texts; see `attlas.planning.flipping`.

    Parameters
    ----------
    heads : tuple of Flip
        The heads that would get another pattern.
    share : float
        Their share of all heads.
    dearer : float
        The share of all heads that would get a dearer one: what the plan has for them keeps too little here.
    """

    heads: tuple[Flip, ...]
    share: float
    dearer: float


@dataclass(frozen=True)
class Held:
    """Keys and values that have to be held to go on reading after some tokens.

    Parameters
    ----------
    tokens : int
    exact, planned : int
        Bytes of one text: of everything, and of what the plan's patterns can still look at. Heads that share keys hold
        what any of them needs.
    """

    tokens: int
    exact: int
    planned: int

    @property
    def share(self) -> float:
        """What the plan has to hold, as a share of everything."""
        return self.planned / self.exact if self.exact else math.nan


@dataclass(frozen=True, eq=False)
class Evaluation(Table):
    """What a plan costs and gains on texts that it was not made from.

    Parameters
    ----------
    texts : tuple of Judged
        Each text.
    ratio : Estimate
        The plan's perplexity over the exact one, of all tokens.
    units : {"texts", "stretches"}
        What its interval draws: whole texts, or, where there are fewer than eight, stretches of them. In the latter
        case it says how sure the number is on these texts, not on others.
    retrieval : Retrieval or None
        Planted facts; None if they were not asked for.
    continued : tuple of Continued
        Generated text; empty if it was not asked for.
    flips : Flips or None
        Heads that would get another pattern here; None if it was not asked for or cannot be told.
    speed : Speed or None
        None if it was not asked for.
    held : Held
        Keys and values.
    heads : int
        All heads that the plan knows.
    full : int
        Those that it leaves full.
    routed : int
        Those that ran by another pattern than full.
    stayed : mapping
        What could not be routed and ran exactly, and why.
    strayed : int
        Heads that the guard made exact in some call.
    ahead : int
        Heads whose pattern chooses a row's keys by later rows too: where a text is read at once, as here, the loss of a
        token may then hang on tokens behind it.
    provenance : Provenance
        How it was made.
    """

    texts: tuple[Judged, ...]
    ratio: Estimate
    units: Literal["texts", "stretches"]
    retrieval: Retrieval | None
    continued: tuple[Continued, ...]
    flips: Flips | None
    speed: Speed | None
    held: Held
    heads: int
    full: int
    routed: int
    stayed: Mapping[str, str]
    strayed: int
    ahead: int
    provenance: Provenance

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(text.tokens for text in self.texts)

    @property
    def worst(self) -> Judged:
        """The text on which perplexity rises most."""
        return max(self.texts, key=lambda text: text.ratio.value)

    @property
    def worst_cell(self) -> Cell | None:
        """The task, length and depth at which most planted facts are lost."""
        return None if self.retrieval is None else self.retrieval.worst

    @property
    def summary(self) -> str:
        """What is known, in a sentence or two."""
        many = len(self.texts) > 1
        on = f"On {len(self.texts)} held-out texts" if many else "On one held-out text"
        told = f"{on} ({self.tokens:,} tokens) {self._quality()}"
        if many:
            told += f"; on the worst text it is {percent(self.worst.ratio)}"
        parts = [f"{told}."]
        if self.retrieval is not None:
            parts.append(self._finding(self.retrieval))
        if self.ahead:
            parts.append(f"{self.ahead:,} heads choose keys by later tokens too, so perplexity may flatter the plan.")
        return " ".join(parts)

    def _quality(self) -> str:
        if self.full == self.heads:
            return f"the plan leaves every head exact: perplexity {percent(self.ratio)}"
        if math.isnan(self.ratio.low):
            return (
                f"the plan's perplexity is {percent(self.ratio)} against exact, too few tokens to tell how sure that is"
            )
        if self.ratio.spans(1):
            return f"cannot tell whether the plan changes perplexity: {percent(self.ratio)} against exact"
        side = "raises" if self.ratio.value > 1 else "lowers"
        return f"the plan {side} perplexity: {percent(self.ratio)} against exact"

    @staticmethod
    def _finding(found: Retrieval) -> str:
        worst = found.worst
        if worst is None:
            return "Whether it finds planted facts cannot be told: the exact model finds none of them."
        exact = sum(cell.exact for cell in found.cells)
        kept = sum(cell.kept for cell in found.cells)
        told = f"Of {exact} planted facts that the exact model finds ({found.answerable:.0%} of all) it finds {kept}"
        if kept == exact:
            return f"{told}: at least {worst.low:.0%} in every cell, with 95 % certainty."
        where = f"{worst.task}, {worst.length:,} tokens, depth {worst.depth:g}"
        sure = f"{worst.low:.0%} to {worst.high:.0%} with 95 % certainty"
        return f"{told}; in the worst cell ({where}) {worst.kept} of {worst.exact}, {sure}."

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types, a row a text."""
        table = []
        for text in self.texts:
            row = asdict(text)
            ratio = row.pop("ratio")
            table.append({**row, "ratio": ratio["value"], "ratio_low": ratio["low"], "ratio_high": ratio["high"]})
        return table

    def about(self) -> Mapping[str, Any]:
        """Return all that is not about a single text, as plain types."""
        retrieval, flips = self.retrieval, self.flips
        return {
            "summary": self.summary,
            "ratio": {**asdict(self.ratio), "units": self.units},
            "needles": None if retrieval is None else {"answerable": retrieval.answerable, "cells": retrieval.rows()},
            "continued": [asdict(one) for one in self.continued],
            "flips": None if flips is None else asdict(flips),
            "speed": None if self.speed is None else self._timed(self.speed),
            "held": {**asdict(self.held), "share": self.held.share},
            "heads": {
                "all": self.heads,
                "full": self.full,
                "routed": self.routed,
                "stayed": dict(self.stayed),
                "strayed": self.strayed,
                "ahead": self.ahead,
            },
        }

    @staticmethod
    def _timed(speed: Speed) -> dict[str, Any]:
        return {"tokens": speed.tokens, "threads": speed.threads, "rows": speed.rows()}

    def __repr__(self) -> str:
        return f"Evaluation({self.provenance.model}: {self.summary})"


def percent(ratio: Estimate) -> str:
    """Return a ratio as a change for people, with its interval if there is one."""
    change = f"{100 * (ratio.value - 1):+.2f} %"
    if math.isnan(ratio.low):
        return change
    return f"{change} ({100 * (ratio.low - 1):+.2f} to {100 * (ratio.high - 1):+.2f})"
