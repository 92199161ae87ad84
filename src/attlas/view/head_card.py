"""What the page says of one head: its statistics, its roles, the spectra of its weights, and what patterns would drop.

Each part that cannot be had is None, with the reason beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, AttlasError, complaint
from attlas.heads.statistics import one_head
from attlas.heads.table import STATISTICS, LayerStatistics
from attlas.patterns.spelling import spelling
from attlas.planning.guarding import variations
from attlas.planning.menu import default_patterns
from attlas.projections.reading import LayerWeights
from attlas.view.collecting import random_spectrum, role_cards
from attlas.view.encoding import rounded

if TYPE_CHECKING:
    from attlas.capture import Capture
    from attlas.heads.role_table import HeadTable
    from attlas.patterns import Pattern
    from attlas.projections import Projections

PARTS = ("statistics", "roles", "spectra", "patterns")

ROWS = 256
"""Rows of a head in which it is measured what patterns drop; of a longer text, so many drawn at random."""

_NOT_ASKED = "it was not asked for"


@dataclass(frozen=True)
class HeadSources:
    """What a card is made from, beside the capture.

    Parameters
    ----------
    roles : callable, optional
        Gives what `attlas.heads` measured of the model that made a capture, or raises an `ArgumentError` that says why
        there is nothing.
    projections : callable, optional
        Gives the model's projections; None if the model is not open.
    patterns : sequence of Pattern
        Which patterns are tried.
    """

    roles: Callable[[Capture], HeadTable] | None = None
    projections: Callable[[], Projections] | None = None
    patterns: Sequence[Pattern] = field(default_factory=default_patterns)


def head_card(
    capture: Capture,
    layer: int,
    head: int,
    sources: HeadSources,
    *,
    parts: Sequence[str] = PARTS,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the card of one head as plain types.

    Parameters
    ----------
    capture : Capture
        Whose head it is.
    layer, head : int
        Which.
    sources : HeadSources
        What is known.
    parts : sequence of str
        Which of `PARTS` are made.
    check : callable
        Called between expensive steps: it may raise, when nobody waits any more.

    Returns
    -------
    dict
        ``statistics``: name, label, unit, meaning, value, and `even`, that of an even spread. ``roles``: name, label,
        meaning, score, low, high, baseline, passes, note. ``spectra``: ``qk`` and ``ov``, singular values, the largest
        first, with the gain of the norm in front folded in; ``chance``, their shape for random heads, 1 being the
        largest. ``patterns``: spec, label, mean and max of the share of a row that is dropped, the number of rows that
        were looked at, and `of`, how many there are. ``reasons``: part -> why it is None.

    Raises
    ------
    ArgumentError
        There is no such layer, head or part.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ArgumentError(complaint("parts", wanted=f"some of {', '.join(PARTS)}", got=repr(unknown[0])))
    numbers = capture.heads(layer)
    if head not in numbers:
        raise ArgumentError(
            complaint("head", wanted=f"a captured head of layer {layer} ({_span(numbers)})", got=repr(head))
        )
    index = numbers.index(head)
    makers: dict[str, Callable[[], Any]] = {
        "statistics": lambda: statistics_of(one_head(capture, layer, head, at_each_tile=check), 0),
        "roles": lambda: _roles(sources.roles, capture, layer, head),
        "spectra": lambda: _spectra(sources.projections, layer, head),
        "patterns": lambda: _patterns(capture, layer, index, sources.patterns, check),
    }
    card: dict[str, Any] = dict.fromkeys(PARTS)
    reasons = {part: _NOT_ASKED for part in PARTS if part not in parts}
    for part in parts:
        check()
        try:
            card[part] = makers[part]()
        except AttlasError as error:
            # It stands beside the part's name.
            reasons[part] = str(error).removeprefix(f"{part}: ")
    return {**card, "reasons": reasons}


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def statistics_of(found: LayerStatistics, index: int) -> list[dict[str, Any]]:
    """Return the statistics of one of the heads that were measured, as they stand on its card."""

    def of(values: Mapping[str, Tensor], name: str) -> float | None:
        # Heads that see the same have their even spread in common.
        return rounded(float(values[name].expand(len(found.heads))[index]))

    return [{**vars(one), "value": of(found.values, one.name), "even": of(found.even, one.name)} for one in STATISTICS]


def _roles(
    known: Callable[[Capture], HeadTable] | None, capture: Capture, layer: int, head: int
) -> list[dict[str, Any]]:
    if known is None:
        raise ArgumentError("roles: not measured")
    table = known(capture)
    if (layer, head) not in table.heads:
        raise ArgumentError("roles: not measured of this head")
    return [
        {
            "name": card.name,
            "label": card.label,
            "meaning": card.meaning,
            **{name: _finite(getattr(card, name)[0]) for name in ("score", "low", "high", "baseline")},
            "passes": card.passes[0],
            "note": card.notes[0],
        }
        for card in role_cards(table, [(layer, head)])
    ]


def _finite(value: float | None) -> float | None:
    return None if value is None else rounded(value)


def _spectra(projections: Callable[[], Projections] | None, layer: int, head: int) -> dict[str, list[float | None]]:
    if projections is None:
        raise ArgumentError("spectra: they are of the weights, and the model is not open")
    view = projections()[layer]
    own = view.head(head)
    weights = LayerWeights.of(view, True, slice(own.kv_head, own.kv_head + 1))
    within = head % weights.group
    qk, ov = (product[0, within].svdvals() for product in (weights.qk, weights.ov))
    chance = random_spectrum(weights.query.shape[1], min(len(qk), weights.query.shape[2]))
    return {
        name: [rounded(float(value)) for value in values]
        for name, values in zip(("qk", "ov", "chance"), (qk, ov, chance), strict=True)
    }


def _patterns(
    capture: Capture, layer: int, index: int, patterns: Sequence[Pattern], check: Callable[[], None]
) -> list[dict[str, Any]]:
    matrix = capture[layer].narrow(slice(0, 1), slice(index, index + 1)).detached()
    fitting = [pattern for pattern in patterns if pattern.fits(matrix)]
    if patterns and not fitting:
        raise ArgumentError("patterns: none that is tried can stand in for this kind of attention")
    n_query = matrix.shape[2]
    rows = _drawn(n_query)
    found = []
    with torch.no_grad():
        for pattern in fitting:
            check()
            dropped = variations(matrix, pattern.matrix(matrix), rows)
            found.append(
                {
                    "spec": spelling(pattern),
                    "label": str(pattern),
                    "mean": rounded(float(dropped.mean())),
                    "max": rounded(float(dropped.max())),
                    "rows": len(rows),
                    "of": n_query,
                }
            )
    return found


def _drawn(n_query: int) -> Tensor:
    """Return all rows, or `ROWS` of them, always the same; the last one is among them, for it sees most."""
    if n_query <= ROWS:
        return torch.arange(n_query)
    drawn = torch.randperm(n_query - 1, generator=torch.Generator().manual_seed(0))[: ROWS - 1]
    return torch.cat([drawn.sort().values, torch.tensor([n_query - 1])])
