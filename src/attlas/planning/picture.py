"""The picture of a profile: layers × heads, each in the colour of the cheapest pattern that it can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from attlas.patterns import Pattern

if TYPE_CHECKING:
    from attlas.planning.effects import Head

EXACT = "#26364d"
PAPER, INK, FAINT = "#fbfaf6", "#22252b", "#70757f"

COLOURS = ("#f2d8a7", "#eab676", "#df8f55", "#cb6446", "#a63f42", "#76283f", "#b9d7c6", "#7fb69b", "#478f77", "#21655a")
"""In the order of cost, the cheapest first; apart from that of exact heads, dark blue."""

_SIDE, _GAP, _LEFT, _TOP = 18, 2, 46, 58


def picture(
    heads: Sequence[Head], patterns: Mapping[tuple[int, int], Pattern], names: Mapping[Pattern, str], title: str
) -> str:
    """Return a picture as SVG.

    Parameters
    ----------
    heads : sequence of Head
        All heads.
    patterns : mapping
        (layer, head) -> pattern, of those that are not exact.
    names : mapping
        Pattern -> what the legend calls it, the cheapest first.
    title : str
        What stands above it.
    """
    layers = sorted({head.layer for head in heads})
    rows = {layer: index for index, layer in enumerate(layers)}
    columns = max(head.head for head in heads) + 1
    used = [pattern for pattern in names if pattern in set(patterns.values())]
    colours = {pattern: _colour(index, len(used)) for index, pattern in enumerate(used)}
    step = _SIDE + _GAP
    right = _LEFT + columns * step + 28
    parts = []
    for head in heads:
        pattern = patterns.get((head.layer, head.head))
        x, y = _LEFT + head.head * step, _TOP + rows[head.layer] * step
        called = "exact" if pattern is None else names[pattern]
        parts.append(
            f'<rect x="{x}" y="{y}" width="{_SIDE}" height="{_SIDE}" rx="2" '
            f'fill="{EXACT if pattern is None else colours[pattern]}">'
            f"<title>layer {head.layer}, head {head.head}: {escape(called)}</title></rect>"
        )
    parts += [
        _text(_LEFT - 8, _TOP + rows[layer] * step + 13, str(layer), FAINT, anchor="end")
        for layer in layers
        if rows[layer] % _every(len(layers)) == 0
    ]
    parts += [
        _text(_LEFT + head * step + _SIDE / 2, _TOP - 8, str(head), FAINT, anchor="middle")
        for head in range(columns)
        if head % _every(columns) == 0
    ]
    entries = [("exact", EXACT, len(heads) - len(patterns))]
    entries += [(names[one], colours[one], sum(p == one for p in patterns.values())) for one in reversed(used)]
    for index, (called, colour, count) in enumerate(entries):
        y = _TOP + index * 24
        parts.append(f'<rect x="{right}" y="{y}" width="{_SIDE}" height="{_SIDE}" rx="2" fill="{colour}"/>')
        parts.append(_text(right + 26, y + 13, f"{called}  ({count})", INK))
    widest = max(len(called) for called, _, _ in entries)
    width = max(right + 60 + 7 * (widest + 6), _LEFT + 8 * len(title))
    height = _TOP + max(len(layers) * step, len(entries) * 24) + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>'
        f'<text x="{_LEFT}" y="24" font-size="14" fill="{INK}">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, colour: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'


def _colour(index: int, count: int) -> str:
    """Return one of `count` colours, spread over the scale."""
    return COLOURS[index % len(COLOURS)] if count > 6 else COLOURS[:6][index * 6 // count]


def _every(count: int) -> int:
    """Return how far apart labels stand, so that there is room for them."""
    return 1 if count <= 40 else 5
