"""What was measured of an explanation's faithfulness, on the very text that it explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        Shares of the text taken away or put back, rising.
    values : tuple of float
        The target's value at each.
    """

    kind: Literal["deletion", "insertion"]
    order: str
    fractions: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """One measure of faithfulness, beside its baselines.

    Parameters
    ----------
    name : str
        ``"aopc"``, ``"comprehensiveness"``, ``"sufficiency"``, ``"top_k_drop"``, ``"lds"`` …
    value : float
        Of the method; more is better, except for sufficiency.
    baselines : mapping
        The same for the orders ``"random"`` (their mean), ``"recency"``, ``"first_token"``, ``"null_attention"``.
    advantage : float
        How much better the method is than random, in the measure's unit, positive where it is better.
    low, high : float
        The 95 % interval of the advantage.
    unit : str
        ``"nats"``, ``"correlation"`` …
    """

    name: str
    value: float
    baselines: Mapping[str, float]
    advantage: float
    low: float
    high: float
    unit: str


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
        Its value with all of the text taken away.
    passes : int
        Forward passes that this took, those that were shared included.
    settings : mapping
        Every choice that can change the numbers.
    provenance : Provenance
        How it was made.
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

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "method": self.method,
                "measure": measured.name,
                "value": measured.value,
                "advantage": measured.advantage,
                "low": measured.low,
                "high": measured.high,
                "unit": measured.unit,
                **{f"baseline_{name}": value for name, value in measured.baselines.items()},
                "verdict": self.verdict,
            }
            for measured in self.measures
        ]
