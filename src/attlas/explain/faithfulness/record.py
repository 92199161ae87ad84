"""What was measured of an explanation's faithfulness, on the very text that it explains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from attlas._tables import Table
from attlas.results import Provenance

Verdict = Literal["more faithful than chance", "less faithful than chance", "cannot tell"]


@dataclass(frozen=True)
class Curve:
    """What becomes of the target while more and more of the text is taken away, or put back.

    Parameters
    ----------
    kind : {"deletion", "insertion"}
        Whether the most relevant parts go first, or come first.
    order : str
        Whose order: the method's name, or a baseline's.
    fractions : tuple of float
        Shares of the text taken away or put back, rising; 0 and 1 are among them.
    values : tuple of float
        The target's value at each; of ``"random"``, the mean over random orders.
    low, high : tuple of float, optional
        Between which values 95 % of the random orders lie, at each.
    """

    kind: Literal["deletion", "insertion"]
    order: str
    fractions: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Measured:
    """One measure of faithfulness, beside its baselines.

    Parameters
    ----------
    name : str
        ``"aopc"``, ``"lds"``, ``"comprehensiveness"`` …; `attlas.faithfulness` explains each.
    value : float
        Of the method; more is better, except for sufficiency.
    baselines : mapping
        The same for the orders ``"random"`` (their mean), ``"recency"``, ``"first_token"``, ``"null_attention"``.
    advantage : float
        How much better the method is than random, in the measure's unit, positive where it is better.
    low, high : float
        The 95 % interval of the advantage over the mean of random.
    unit : str
        ``"nats"``, ``"correlation"`` …
    p : float
        How often chance alone does as well: the share of random orders, or of shuffled scores, that are at least as
        good, the method itself counted among them.
    chances : int
        How many random orders, or shufflings, `p` was counted over.
    """

    name: str
    value: float
    baselines: Mapping[str, float]
    advantage: float
    low: float
    high: float
    unit: str
    p: float = math.nan
    chances: int = 0


@dataclass(frozen=True)
class Faithfulness(Table):
    """How faithful one explanation is.

    Parameters
    ----------
    method : str
        Which explanation; with its preset where it has one.
    verdict : str
        ``"more faithful than chance"``, ``"less faithful than chance"`` or ``"cannot tell"``.
    summary : str
        One sentence for people: by how much, against what, and how sure that is.
    measures : tuple of Measured
        The first is the one that the verdict is about.
    curves : tuple of Curve
        Of the method and of every baseline.
    value : float
        The target's value on the whole text.
    empty : float
        Its value with all of the text taken away that may be.
    passes : int
        Forward passes that this took, those that were shared with other explanations included.
    settings : mapping
        Every choice that can change the numbers.
    provenance : Provenance
        How it was made.
    notes : mapping
        What a reader must know beside the settings: scores that are alike, measures that the budget left out.
    """

    method: str
    verdict: Verdict
    summary: str
    measures: tuple[Measured, ...]
    curves: tuple[Curve, ...]
    value: float
    empty: float
    passes: int
    settings: Mapping[str, Any]
    provenance: Provenance
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Measured:
        """Return one measure by its name.

        Raises
        ------
        KeyError
            It was not measured; `notes["left_out"]` says why, if the budget did not reach.
        """
        for measured in self.measures:
            if measured.name == name:
                return measured
        raise KeyError(f"{name}: not measured; there are {', '.join(measured.name for measured in self.measures)}")

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a measure, as plain types."""
        return [
            {
                "method": self.method,
                "measure": measured.name,
                "value": measured.value,
                "advantage": measured.advantage,
                "low": measured.low,
                "high": measured.high,
                "unit": measured.unit,
                "p": measured.p,
                **{f"baseline_{name}": value for name, value in measured.baselines.items()},
                "verdict": self.verdict,
            }
            for measured in self.measures
        ]

    def about(self) -> Mapping[str, Any]:
        """Return the verdict in words."""
        return {"summary": self.summary, "notes": dict(self.notes)}

    def __repr__(self) -> str:
        return f"Faithfulness({self.method}: {self.summary})"
