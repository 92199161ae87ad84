"""What a profile holds, and how plans are chosen from it: the cheapest pattern for every head within an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor

from attlas._tables import Table
from attlas._writing import write_together
from attlas.errors import ArgumentError, complaint
from attlas.patterns import Full, Pattern, SlidingWindow
from attlas.planning.choosing import Choice, cheapest, least
from attlas.planning.costs import CostModel
from attlas.planning.curve import Curve
from attlas.planning.effects import COLUMNS, Effects, Head
from attlas.planning.picture import picture
from attlas.planning.plan import Expected, Plan
from attlas.planning.profile_file import header, write_profile
from attlas.planning.subject import Subject
from attlas.results import Provenance

By = Literal["head", "kv_head"]
"""What gets a pattern of its own: every head, or all heads that share keys and values."""

WORTH = 0.6
"""A pattern that takes a larger share than this of what exact attention takes is not worth what it loses."""


@dataclass(frozen=True)
class Check:
    """One plan that was run as a whole, on some of the texts.

    Parameters
    ----------
    predicted : float
        What was predicted of it, in nats: the sum over heads, averaged over all texts.
    texts : tuple of int
        On which texts it was run.
    there : float
        What was predicted of it there.
    rises : tuple of float
        By how much the loss rose on each of them.
    luck : tuple of float
        What of that was to be expected of these very texts and of no others: the first-order change that was measured
        there. Patterns whose errors happened to help were chosen for it; on other texts that comes to nothing.
    cost : float
        Its attention's cost as a share of exact attention's, by the cost model.
    full : float
        The share of heads that it leaves exact.
    """

    predicted: float
    texts: tuple[int, ...]
    there: float
    rises: tuple[float, ...]
    luck: tuple[float, ...]
    cost: float
    full: float

    @property
    def rise(self) -> float:
        """By how much the loss rises on texts like these: the mean without luck, in proportion to predictions."""
        mean = (math.fsum(self.rises) - math.fsum(self.luck)) / len(self.rises)
        return mean * self.predicted / self.there if self.there > 0 else mean


@dataclass(frozen=True)
class Chosen:
    """A pattern for every head, and what is expected of it.

    Parameters
    ----------
    patterns : mapping
        (layer, head) -> pattern, of the heads that do not stay exact.
    predicted : float
        The sum of what heads are predicted to add to the loss, in nats.
    rise : float or None
        What the whole is expected to add to the loss, by the plans that were run; None beyond what was measured.
    cost : float
        Its cost as a share of exact attention's.
    full : float
        The share of heads that stay exact.
    notes : tuple of str
        What must be known of it.
    settings : mapping
        What it was chosen by: error or cost, units, length and worth.
    """

    patterns: Mapping[tuple[int, int], Pattern]
    predicted: float
    rise: float | None
    cost: float
    full: float
    notes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> float | None:
        """By what share perplexity is expected to rise; None beyond what was measured."""
        return None if self.rise is None else math.expm1(self.rise)


@dataclass(frozen=True, eq=False)
class Profile(Table):
    """What every pattern loses of every head of a model, on some texts, and what it costs on this machine.

    Parameters
    ----------
    effects : Effects
        What patterns lose, by text, head and pattern.
    costs : CostModel
        Seconds, from the work that patterns count.
    checks : tuple of Check
        The plans that were run as a whole.
    subject : Subject
        Which model it is of.
    layers : tuple of str
        The names of its attention layers by number.
    provenance : Provenance
        How it was made.
    """

    effects: Effects
    costs: CostModel
    checks: tuple[Check, ...]
    subject: Subject
    layers: tuple[str, ...]
    provenance: Provenance

    # ---- as a table

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every text, head and pattern, as plain types."""
        return self.effects.rows()

    def summary(self) -> list[dict[str, Any]]:
        """Return a row for every head and pattern: each measure's mean over texts, and on its worst text."""
        return self.effects.summary()

    def about(self) -> dict[str, Any]:
        return {"columns": COLUMNS, "profile": header(self)}

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the profile as one Parquet file, atomically; `open_profile` opens it again.

        Raises
        ------
        StoreError
            The file cannot be written.
        """
        return write_profile(self, Path(path))

    # ---- choosing

    @property
    def curve(self) -> Curve:
        """What plans do to the loss, over what was predicted of them."""
        return Curve.through((check.predicted, check.rise) for check in self.checks)

    def plan(
        self,
        error: float | None = None,
        *,
        cost: float | None = None,
        by: By = "head",
        length: int | None = None,
        worth: float = WORTH,
    ) -> Plan:
        """Return the plan that is cheapest within an error, or loses least within a cost.

        Parameters
        ----------
        error : float, optional
            By what share perplexity may rise over the exact model's, on texts like the profile's: 0.01 is 1 %.
        cost : float, optional
            What share of exact attention's time it may cost: 0.5 is half. One of the two is given.
        by : {"head", "kv_head"}
            Whether each head has a pattern of its own, or heads that share keys and values have one together.
        length : int, optional
            Of how many tokens costs are reckoned; the longest text that was read, by default.
        worth : float
            The largest share of a head's exact time that a pattern may take to be chosen. What a pattern saves that is
            hardly cheaper is soon less than what the prediction of its time is off by, and it loses something for sure;
            with 1, whatever saves anything is chosen.

        Returns
        -------
        Plan
            With what is expected of it. Where nothing cheaper is within the error, all heads stay exact, and it says
            so; and where the error is larger than what was measured, it is the cheapest that was measured.

        Raises
        ------
        ArgumentError
            Not one of `error` and `cost` is given, or one is no such share.
        """
        return self.plan_of(self.choose(error, cost=cost, by=by, length=length, worth=worth))

    def choose(
        self,
        error: float | None = None,
        *,
        cost: float | None = None,
        by: By = "head",
        length: int | None = None,
        worth: float = WORTH,
    ) -> Chosen:
        """Return what `plan` would hold."""
        table = _Choices(self, by, length, _share("worth", worth))
        if (error is None) == (cost is None):
            raise ArgumentError(
                complaint("error, cost", wanted="one of the two", got="neither" if error is None else "both")
            )
        share = _share("cost", cost) if error is None else _share("error", error)
        if table.lowest >= table.exact:
            chosen = table.chosen(table.least(1.0), 0.0, [table.nothing_cheaper])
        else:
            chosen = self._within_cost(table, share) if error is None else self._within_error(table, share)
        settings = {"error": error, "cost": cost, "by": by, "length": length, "worth": worth}
        return replace(chosen, settings=settings)

    def within(self, predicted: float) -> Chosen:
        """Return the cheapest choice of which no more than `predicted` nats are predicted, measured or not."""
        table = _Choices(self, "head", None, 1.0)
        found = table.cheapest(predicted)
        return table.chosen(found, self.curve.rise(found.effect), ())

    def plan_of(self, chosen: Chosen) -> Plan:
        """Return a choice as a plan that can be run and kept."""
        expected = {
            "cost": Expected(chosen.cost, f"share of exact attention's time, by what was timed: {self.costs.machine}"),
            "full": Expected(chosen.full, "share of heads that stay exact"),
        }
        if chosen.error is not None:
            meaning = "share by which perplexity rises on texts like those that it was made from"
            expected["error"] = Expected(chosen.error, meaning)
        made = {**self.provenance.settings, **chosen.settings, "notes": list(chosen.notes)}
        provenance = replace(self.provenance, settings=made)
        return Plan(
            subject=self.subject,
            patterns={place: pattern for place, pattern in chosen.patterns.items()},
            layers=self.layers,
            sizes=tuple(sum(head.layer == layer for head in self.effects.heads) for layer in range(len(self.layers))),
            expected=expected,
            provenance=provenance,
        )

    def _within_error(self, table: _Choices, error: float) -> Chosen:
        allowed = math.log1p(error)
        if not self.checks:
            found = table.cheapest(allowed)
            return table.chosen(found, found.effect, ["What it does to the loss is predicted; no plan was run."])
        curve = self.curve
        budget = curve.reach(allowed)
        found = table.cheapest(budget)
        notes = []
        highest = self.curve.rise(curve.end) or 0.0
        if highest < allowed and found.cost > table.lowest:
            notes.append(
                f"Plans were run up to {_percent(math.expm1(highest))} of perplexity: this is the cheapest within "
                f"that; to go up to {_percent(error)}, profile with larger aims."
            )
        if all(option == 0 for option in found.options):
            notes.append(f"No pattern keeps perplexity within {_percent(error)}: all heads stay exact.")
        return table.chosen(found, curve.rise(found.effect), notes)

    def _within_cost(self, table: _Choices, cost: float) -> Chosen:
        found = table.least(cost)
        notes = []
        if found.cost > cost * table.exact:
            notes.append(f"No plan costs as little as {_percent(cost)}: this is the cheapest that there is.")
        rise = self.curve.rise(found.effect)
        if rise is None:
            end = f"plans were run up to {_percent(math.expm1(self.curve.points[-1][1]))} of perplexity"
            reason = end if self.checks else "no plan was run"
            notes.append(f"What it does to the loss is not known: {reason}; evaluate it.")
        return table.chosen(found, rise, notes)

    # ---- pictures

    def picture(self, path: str | PathLike[str], error: float = 0.01, *, by: By = "head") -> Path:
        """Draw which pattern each head can have within an error, and write it as an SVG file.

        Parameters
        ----------
        path : path
            Where to; ``.svg``.
        error : float
            By what share perplexity may rise.
        by : {"head", "kv_head"}
            As `plan`.

        Raises
        ------
        ArgumentError
            It is named otherwise.
        StoreError
            The file cannot be written.
        """
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise ArgumentError(complaint("path", wanted="a .svg file", got=str(path)))
        write_together({target: self.svg(error, by=by).encode()})
        return target

    def svg(self, error: float = 0.01, *, by: By = "head") -> str:
        """Return the same picture as text."""
        chosen = self.choose(error, by=by)
        n = max(text.tokens for text in self.effects.texts)
        ordered = sorted(self.effects.patterns, key=lambda one: self.costs.of(one, n, causal=True))
        title = f"{self.provenance.model}: the cheapest pattern of each head with perplexity within {_percent(error)}"
        return picture(self.effects.heads, chosen.patterns, {one: str(one) for one in ordered}, title)

    def __repr__(self) -> str:
        effects = self.effects
        return (
            f"Profile({self.provenance.model}: {len(effects.heads)} heads × {len(effects.patterns)} patterns, on "
            f"{len(effects.texts)} texts of {sum(text.tokens for text in effects.texts):,} tokens in all)"
        )

    def _repr_html_(self) -> str:
        return self.svg()

    def with_check(self, check: Check) -> Profile:
        """Return the same with one more plan that was run."""
        return replace(self, checks=(*self.checks, check))


class _Choices:
    """The options of all units: exact attention, and then the patterns."""

    def __init__(self, profile: Profile, by: By, length: int | None, worth: float) -> None:
        if by not in ("head", "kv_head"):
            raise ArgumentError(complaint("by", wanted='"head" or "kv_head"', got=repr(by)))
        effects = profile.effects
        n = max(text.tokens for text in effects.texts) if length is None else length
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ArgumentError(complaint("length", wanted="a whole number of tokens from 1", got=repr(length)))
        self._n, self._worth = n, worth
        self._heads, self._patterns = effects.heads, effects.patterns
        self._unit = units_of(effects.heads, together=by == "kv_head")
        lost, self._costs = options_of(effects, profile.costs, self._unit, n)
        exact = self._costs[:, :1]
        # What is not chosen is what cannot be had; exact attention always can.
        self._effects = torch.where((self._costs <= worth * exact), lost, math.nan)
        self._effects[:, 0] = lost[:, 0]
        self.exact = float(self._costs[:, 0].sum())
        self.lowest = least(self._effects, self._costs, -math.inf).cost

    @property
    def nothing_cheaper(self) -> str:
        limit = "is cheaper than" if self._worth >= 1 else f"takes at most {_percent(self._worth)} of"
        return (
            f"At {self._n:,} tokens no pattern {limit} exact attention, so all heads stay exact: read longer "
            "texts, or choose for them, by a larger length."
        )

    def cheapest(self, budget: float) -> Choice:
        return cheapest(self._effects, self._costs, budget)

    def least(self, cost: float) -> Choice:
        return least(self._effects, self._costs, cost * self.exact)

    def chosen(self, choice: Choice, rise: float | None, notes: Sequence[str]) -> Chosen:
        options = [choice.options[unit] for unit in self._unit]
        patterns = {
            (head.layer, head.head): self._patterns[option - 1]
            for head, option in zip(self._heads, options, strict=True)
            if option
        }
        full = options.count(0) / len(options)
        return Chosen(patterns, choice.effect, rise, choice.cost / self.exact, full, tuple(notes))


def units_of(heads: Sequence[Head], *, together: bool) -> list[int]:
    """Return which unit each head belongs to: one of its own, or `together` that of all which share its keys."""
    keys = [(head.layer, head.kv_head if together else head.head) for head in heads]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [numbers[key] for key in keys]


def options_of(effects: Effects, costs: CostModel, units: Sequence[int], n: int) -> tuple[Tensor, Tensor]:
    """Return what each unit loses and takes at `n` tokens, exactly and by each pattern: (unit, 1 + pattern) both.

    What one head of a unit cannot have, none can: NaN.
    """
    lost = F.pad(effects.loss.mean(0), (1, 0))
    none = torch.zeros(max(units) + 1, lost.shape[1], dtype=torch.float64)
    taken = seconds(costs, effects.heads, effects.patterns, n)
    return none.index_add(0, torch.tensor(units), lost), none.index_add(0, torch.tensor(units), taken)


def seconds(costs: CostModel, heads: Sequence[Head], patterns: Sequence[Pattern], n: int) -> Tensor:
    """Return what each head is predicted to take at `n` tokens, exactly and by each pattern; (head, 1 + pattern)."""
    known: dict[tuple[bool, int | None], list[float]] = {}
    for head in heads:
        alike = (head.causal, head.window)
        if alike not in known:
            # A head with a window of its own costs no more than that, exactly.
            exact = [Full()] if head.window is None else [Full(), SlidingWindow(head.window)]
            taken = [costs.of(one, n, causal=head.causal) for one in (*exact, *patterns)]
            known[alike] = [min(taken[: len(exact)]), *taken[len(exact) :]]
    return torch.tensor([known[head.causal, head.window] for head in heads], dtype=torch.float64)


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ArgumentError(complaint(name, wanted="a share from 0, such as 0.01 for 1 %", got=repr(value)))
    return float(value)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share < 10 else f"{100 * share:,.0f} %"
