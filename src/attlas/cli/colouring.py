"""A text coloured by relevance in a terminal, or marked with brackets where there are no colours.

The shades are equally light and differ in how vivid they are, with black letters, so that they read the same on a dark
and on a light ground. Of a long text only the passages around the most relevant spans are shown, with line numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attlas.explain.pieces import pieces, readable
from attlas.explain.shading import ends, shade

if TYPE_CHECKING:
    from rich.text import Text

    from attlas.explain.attribution import Attribution

_STEPS = (0.15, 0.35, 0.6, 0.85)
_FOR = ("#c7b3a5", "#daad8b", "#eca56f", "#ff9b45")
_AGAINST = ("#a9b9ca", "#96bbe3", "#80bdfb", "#62bdff")

WHOLE = 40
"""A text of at most so many lines on the screen is shown whole."""

_AROUND = 90
"""Characters on either side of a relevant span, where a line is too long to be shown whole."""


@dataclass(frozen=True)
class Fragment:
    """A stretch of one line that is shown alike.

    Parameters
    ----------
    text : str
        What it says, readable.
    level : int
        How strongly it is shown: 0 not at all, 1 to 4 for, −1 to −4 against.
    span : int
        Which span it is of; −1 for none.
    """

    text: str
    level: int
    span: int


def legend(attribution: Attribution, colours: bool) -> Text:
    """Return what the colours or the brackets mean."""
    from rich.text import Text

    _, end = ends(attribution)
    line = Text()
    if colours:
        line.append_text(_swatches("speaks for" if attribution.signed else "relevant", _FOR))
        if attribution.signed:
            line.append("  ")
            line.append_text(_swatches("speaks against", _AGAINST))
    else:
        line.append("[for] [[most for]]" if attribution.signed else "[relevant] [[most relevant]]")
        if attribution.signed:
            line.append(" {against} {{most against}}")
    line.append(f"  full from {end:.3g}", style="dim")
    return line


def coloured(attribution: Attribution, width: int, *, colours: bool, top: int) -> Text:
    """Return the text, or its most relevant passages if it is long.

    Parameters
    ----------
    attribution : Attribution
        What colours it: its spans' scores.
    width : int
        Characters in a line of the screen.
    colours : bool
        Whether to use them; brackets otherwise.
    top : int
        Around how many of the most relevant spans passages are shown.
    """
    lines = _lines(attribution)
    if sum(max(1, -(-_length(line) // width)) for line in lines) <= WHOLE:
        return _joined([_drawn(line, colours) for line in lines])
    wanted = {attribution.spans.index(span) for span, score in attribution.top(top) if score}
    return _passages(lines, wanted, width, colours)


def _passages(lines: Sequence[list[Fragment]], wanted: set[int], width: int, colours: bool) -> Text:
    """Return the lines that hold some of the wanted spans, each with its number."""
    from rich.text import Text

    digits = len(str(len(lines)))
    shown: list[Text] = []
    last = -1
    for number, line in enumerate(lines):
        if not any(fragment.span in wanted and fragment.text.strip() for fragment in line):
            continue
        if number > last + 1:
            shown.append(Text("…".rjust(digits), style="dim"))
        last = number
        cut = line if _length(line) <= 2 * width else _cut(line, wanted)
        shown.append(Text.assemble((f"{number + 1:>{digits}}  ", "dim"), _drawn(cut, colours)))
    if 0 <= last < len(lines) - 1:
        shown.append(Text("…".rjust(digits), style="dim"))
    return _joined(shown)


def _cut(line: Sequence[Fragment], wanted: set[int]) -> list[Fragment]:
    """Return a long line's fragments around the wanted spans, with … where others are left out."""
    around: list[tuple[int, int]] = []
    at = 0
    for fragment in line:
        if fragment.span in wanted:
            around.append((at - _AROUND, at + len(fragment.text) + _AROUND))
        at += len(fragment.text)
    stretches = list(_united(around))
    kept: list[Fragment] = []
    at, gap = 0, False
    for fragment in line:
        begin, at = at, at + len(fragment.text)
        parts = [
            fragment.text[max(low - begin, 0) : high - begin] for low, high in stretches if low < at and high > begin
        ]
        if not parts and not gap:
            kept.append(Fragment(" … ", 0, -1))
        gap = not parts
        kept += [replace(fragment, text=part) for part in parts]
    return kept


def _united(stretches: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ascending stretches, at least one, those that meet as one."""
    low, high = stretches[0]
    for start, stop in stretches[1:]:
        if start <= high:
            high = max(high, stop)
        else:
            yield low, high
            low, high = start, stop
    yield low, high


def _lines(attribution: Attribution) -> list[list[Fragment]]:
    """Return the text's lines as fragments."""
    scores, (_, end) = attribution.span_scores.tolist(), ends(attribution)
    homes = {token: i for i, span in enumerate(attribution.spans) for token in range(span.start, span.stop)}
    lines: list[list[Fragment]] = [[]]
    for piece in pieces(attribution.tokens, attribution.text):
        span = homes.get(piece.start, -1) if piece.stop > piece.start else -1
        level = _level(shade(scores[span], end)) if span >= 0 else 0
        for i, part in enumerate(readable(piece.text).split("\n")):
            if i:
                lines.append([])
            if part:
                lines[-1].append(Fragment(part.replace("\t", "    "), level, span))
    return lines if lines[-1] or len(lines) == 1 else lines[:-1]


def _level(strength: float) -> int:
    size = sum(abs(strength) >= step for step in _STEPS)
    return size if strength > 0 else -size


def _length(line: Sequence[Fragment]) -> int:
    return sum(len(fragment.text) for fragment in line)


def _drawn(line: Sequence[Fragment], colours: bool) -> Text:
    """Return one line; neighbours of one span are marked together, white space at its ends is not."""
    from rich.text import Text

    shown = Text()
    at = 0
    while at < len(line):
        stop = at + 1
        while stop < len(line) and line[stop].span == line[at].span >= 0:
            stop += 1
        text = "".join(fragment.text for fragment in line[at:stop])
        _append(shown, text, line[at].level, colours)
        at = stop
    return shown


def _append(shown: Text, text: str, level: int, colours: bool) -> None:
    body = text.strip(" ")
    if not level or not body:
        shown.append(text)
        return
    front, behind = text[: text.index(body)], text[text.index(body) + len(body) :]
    shown.append(front)
    if colours:
        shown.append(body, style=_style(level))
    else:
        opening, closing = "[]" if level > 0 else "{}"
        count = abs(level) // 2  # none for the faintest, two for the strongest
        shown.append(f"{opening * count}{body}{closing * count}")
    shown.append(behind)


def _style(level: int) -> str:
    colour = (_FOR if level > 0 else _AGAINST)[abs(level) - 1]
    return f"{'bold ' if abs(level) == len(_STEPS) else ''}#000000 on {colour}"


def _swatches(word: str, colours: Sequence[str]) -> Text:
    """Return a word on its shades, the faintest first."""
    from rich.text import Text

    width = -(-(len(word) + 2) // len(colours))
    padded = word.center(width * len(colours))
    parts = [padded[i * width : (i + 1) * width] for i in range(len(colours))]
    return Text.assemble(*[(part, f"#000000 on {colour}") for part, colour in zip(parts, colours, strict=True)])


def _joined(lines: Sequence[Text]) -> Text:
    from rich.text import Text

    return Text("\n").join(lines)
