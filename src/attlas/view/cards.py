"""What a page shows of a head beside its map: spectra, preferred offsets, compositions, and what it was seen to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attlas.projections.composing import Edge
from attlas.projections.table import Column
from attlas.view.encoding import Codes, packed, rounded, to_codes
from attlas.view.glyphs import visible


@dataclass(frozen=True)
class RoleCard:
    """One role, and how well each head plays it; None where it was not measured.

    Parameters
    ----------
    name, label, meaning : str
        Its key; what people call it; one sentence.
    score, low, high, baseline : sequence of float or None
        A number each head.
    passes : sequence of bool
        Whether the score is above the baseline beyond doubt.
    notes : sequence of str or None
        What belongs behind the label, for example which offset.
    telling : bool
        Whether the role says more than that a head looks somewhere broad, or rests.
    """

    name: str
    label: str
    meaning: str
    score: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]
    baseline: Sequence[float | None]
    passes: Sequence[bool]
    notes: Sequence[str | None]
    telling: bool = True


@dataclass(frozen=True)
class PredictionCard:
    """How far one number of the weights tells the heads that have a role.

    Parameters
    ----------
    predictor, role : str
        What people call them.
    auc, low, high : float
        The area under the curve, 0.5 being a coin, and its interval.
    heads : int
        How many heads have the role.
    """

    predictor: str
    role: str
    auc: float
    low: float
    high: float
    heads: int


@dataclass(frozen=True, eq=False)
class Cards:
    """What is known of heads, in the order of `heads`.

    Parameters
    ----------
    heads : sequence of (int, int)
        Layer and head of each card.
    columns : sequence of Column
        The numbers, in the order in which they are shown.
    values, chance : mapping
        Name of a column -> a value each head, and the level that chance would give.
    tracks : mapping
        ``qk``, ``ov``, ``qk_chance``, ``ov_chance`` (singular values), ``kernel``, ``measured`` (shares by offset) ->
        Tensor, (heads or 1, width).
    edges : sequence of Edge
        The strongest compositions of two heads, the strongest first.
    level : float, optional
        The root mean square of the score of two heads that have nothing to do with each other.
    roles : sequence of RoleCard
        What the heads were seen to do.
    role : sequence of str or None
        Each head's role in a word, if it has one.
    predictions : sequence of PredictionCard
        How far weights alone tell the roles.
    """

    heads: Sequence[tuple[int, int]]
    columns: Sequence[Column] = ()
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    chance: Mapping[str, Sequence[float | str | None]] = field(default_factory=dict)
    tracks: Mapping[str, Tensor] = field(default_factory=dict)
    edges: Sequence[Edge] = ()
    level: float | None = None
    roles: Sequence[RoleCard] = ()
    role: Sequence[str | None] = ()
    predictions: Sequence[PredictionCard] = ()

    def content(self) -> dict[str, Any]:
        """Return plain types, for the page's script."""
        at = {head: i for i, head in enumerate(self.heads)}
        codes: list[Codes] = []
        tracks = []
        for name, values in self.tracks.items():
            scaled = values.double()
            if name.startswith(("qk", "ov")):  # a spectrum is shown by its shape
                scaled = scaled / scaled.amax(-1, keepdim=True).clamp(min=1e-300)
            codes.append(to_codes(scaled.clamp(0, 1)))
            tracks.append({"name": name, "rows": values.shape[0], "width": values.shape[1]})
        known = [edge for edge in self.edges if edge.source in at and edge.target in at]
        return {
            "heads": [list(head) for head in self.heads],
            "columns": [{part: visible_words(text) for part, text in vars(column).items()} for column in self.columns],
            "values": {column.name: _plain(self.values[column.name]) for column in self.columns},
            "chance": {name: _plain(values) for name, values in self.chance.items()},
            "tracks": tracks,
            "edges": [[at[e.source], at[e.target], e.kind, _number(e.score), _number(e.z)] for e in known],
            "level": _number(self.level),
            "roles": [
                {
                    **{name: visible_words(getattr(role, name)) for name in ("name", "label", "meaning")},
                    **{name: _plain(getattr(role, name)) for name in ("score", "low", "high", "baseline")},
                    "passes": list(map(bool, role.passes)),
                    "notes": _plain(role.notes),
                    "telling": role.telling,
                }
                for role in self.roles
            ],
            "role": _plain(self.role) if self.role else [None] * len(self.heads),
            "predictions": [dict(zip(vars(one), _plain(vars(one).values()), strict=True)) for one in self.predictions],
            "codes": packed(codes) if codes else packed([to_codes(Tensor([[0.0]]))]),
        }


def visible_words(text: str) -> str:
    """Return text in which every character can be seen, and spaces stay spaces."""
    return " ".join(visible(word) for word in text.split(" "))


def _plain(values: Iterable[Any]) -> list[Any]:
    return [visible_words(value) if isinstance(value, str) else _number(value) for value in values]


def _number(value: Any) -> Any:
    """Round what is not whole."""
    return value if value is None or isinstance(value, (bool, int)) else rounded(value)
