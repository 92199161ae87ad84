"""What `attlas explain` prints: the target, how far each method holds, the coloured text, its most relevant parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from attlas.cli.colouring import coloured, legend
from attlas.cli.rankings import bar_of, plain_table, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from attlas.explain.attribution import Attribution, Span
    from attlas.explain.faithfulness.record import Measured
    from attlas.explain.targets import Target

BAR = 16
_VERDICTS = {
    "more faithful than chance": "green",
    "less faithful than chance": "red",
    "cannot tell": "yellow",
}
_HERE = "  (where the model answers)"


def print_methods(out: Console) -> None:
    """Print a line for each method, and its presets and source."""
    from rich.text import Text

    from attlas.explain.methods import METHODS

    for method in METHODS.values():
        out.print(Text.assemble((f"{method.name:<22}", "bold"), method.summary), soft_wrap=True)
        beside = [method.paper, f"presets: {', '.join(method.presets)}" if method.presets else ""]
        if line := "; ".join(filter(None, beside)):
            out.print(Text(f"{'':<22}{line}", style="dim"), soft_wrap=True)


def print_explanations(out: Console, found: Sequence[Attribution], top: int) -> None:
    """Print explanations of one text, target by target.

    Parameters
    ----------
    out : Console
        Where to.
    found : sequence of Attribution
        In the order of their targets.
    top : int
        How many of the most relevant spans are listed.
    """
    first = found[0]
    name = first.provenance.model
    out.print(f"{name}: {len(first.tokens):,} tokens in {len(first.spans):,} parts", soft_wrap=True)
    for _, group in groupby(found, lambda one: one.target):
        _print_target(out, list(group), top)


def _print_target(out: Console, found: list[Attribution], top: int) -> None:
    from rich.text import Text

    from attlas.explain.cautions import cautions, most_faithful, strength

    first = found[0]
    out.print()
    out.print(Text.assemble(("Why ", "dim"), (shown(first.target), "bold"), ("? ", "dim"), told(first)), soft_wrap=True)
    ordered = sorted(found, key=strength, reverse=True)
    _print_trust(out, ordered)
    for line in cautions(found):
        out.print(Text(f"! {line}", style="bold yellow"), soft_wrap=True)
    best = most_faithful(found)
    if best.faithfulness is not None and best.faithfulness.summary:
        out.print(Text.assemble((f"{best.name}: ", "dim"), (best.faithfulness.summary, "dim")), soft_wrap=True)
    colours = out.is_terminal and not out.no_color
    out.print()
    out.print(
        Text.assemble(("The text", "bold"), (f"  by {best.name}  ", "dim"), legend(best, colours)), soft_wrap=True
    )
    out.print(coloured(best, out.width, colours=colours, top=top), soft_wrap=True)
    _print_top(out, best, top)


def shown(target: Target) -> str:
    """Return a target's name, fit for a terminal."""
    from attlas.explain.pieces import readable

    return readable(target.name.replace("\n", "⏎")) or "this answer"


def told(one: Attribution) -> str:
    """Return a target's value in words, and where it is answered."""
    from attlas.explain.answering import place

    target = one.target
    value = f"{target.quantity} {one.value:.3g}"
    if target.quantity == "log-probability":
        value = f"{100 * math.exp(one.value):.3g} % ({value})"
    return f"{value}, {place(one)}"


def _print_trust(out: Console, found: Sequence[Attribution]) -> None:
    """Print a line for each method: its verdict, by how much, and the baselines."""
    from rich.text import Text

    measured = [one.faithfulness.measures[0] for one in found if one.faithfulness is not None]
    if not measured:
        out.print(Text("Faithfulness was not measured: nothing here says which method is right.", style="dim"))
        return
    main = measured[0]
    name = main.name.replace("_", " ")
    meaning = f"by how much {name} ({main.unit}) lies above the mean of chance, and how often chance does as well"
    baselines = list(dict.fromkeys(name for one in measured for name in one.baselines))
    tables = (_trust_table(found, name, left) for left in (baselines, [], None))
    unbounded = out.options.update(max_width=1000)
    fits = next((table for table in tables if out.measure(table, options=unbounded).maximum <= out.width), None)
    print_table(out, "How far each method holds", meaning, fits or _trust_table(found, name, None))


def _trust_table(found: Sequence[Attribution], name: str, baselines: Sequence[str] | None) -> Any:
    """Return a table with columns for the measure of this name and some baselines; for None, without the measure."""
    from rich.text import Text

    table = plain_table()
    table.add_column("method", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("by", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True, style="dim")
    table.add_column("chance", justify="right", no_wrap=True, style="dim")
    for i, beside in enumerate([] if baselines is None else [name, *baselines]):
        table.add_column(beside.replace("_", " "), justify="right", no_wrap=True, style="dim" if i else "")
    for one in found:
        if one.faithfulness is None:
            table.add_row(one.name, Text("not measured", style="dim"))
            continue
        verdict, main = one.faithfulness.verdict, one.faithfulness.measures[0]
        values = [] if baselines is None else [main.value, *(main.baselines.get(other) for other in baselines)]
        table.add_row(one.name, Text(verdict, style=_VERDICTS[verdict]), *_numbers(main), *map(_plain, values))
    return table


def _numbers(measured: Measured) -> tuple[str, str, str]:
    interval = f"{measured.low:+.2f} to {measured.high:+.2f}" if math.isfinite(measured.low) else "–"
    chance = f"{100 * measured.p:.2g} %" if math.isfinite(measured.p) else "–"
    return f"{measured.advantage:+.2f}", interval, chance


def _plain(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _print_top(out: Console, best: Attribution, top: int) -> None:
    from rich.text import Text

    from attlas.explain.answering import answering

    ranked = [(span, score) for span, score in best.top(top) if score]
    if not ranked:
        return
    total = float(best.span_scores.abs().sum())
    at = answering(best)
    # Where attention rests and where the model answers would leave the other bars no length.
    counted = [abs(score) for span, score in ranked if span.start > 0 and not _answers(span, at)]
    most = max(counted, default=abs(ranked[0][1]))
    table = plain_table()
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True, style="dim")
    table.add_column("", width=BAR, no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True, style="dim")
    table.add_column("part", no_wrap=True, overflow="ellipsis")
    for span, score in ranked:
        colour = "dark_orange" if score > 0 else "dodger_blue1"
        where = str(span.start) if span.stop == span.start + 1 else f"{span.start}–{span.stop - 1}"
        table.add_row(
            f"{score:.3g}",
            f"{100 * abs(score) / total:.1f} %",
            Text(bar_of(abs(score) / most, BAR), style=colour),
            where,
            Text.assemble(in_line(span.text), (_HERE if _answers(span, at) else "", "dim")),
        )
    print_table(out, "Most relevant", "", table)


def _answers(span: Span, at: int | None) -> bool:
    return at is not None and span.start <= at < span.stop


def in_line(text: str) -> str:
    """Return a part of a text in one line."""
    from attlas.explain.pieces import readable

    short = text.strip() or text
    return readable(short.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", "⇥")).replace(
        " ", "·" if short.isspace() else " "
    )


def as_plain(found: Sequence[Attribution], top: int) -> dict[str, Any]:
    """Return explanations of one text as plain types for machines."""
    from attlas.explain.cautions import cautions, most_faithful

    first = found[0]
    targets = []
    for _, group in groupby(found, lambda one: one.target):
        same = list(group)
        target = same[0].target
        targets.append(
            {
                "target": {"name": target.name, "position": target.position, "quantity": target.quantity},
                "value": same[0].value,
                "most_faithful": most_faithful(same).name,
                "cautions": cautions(same),
                "methods": [_method(one, top) for one in same],
            }
        )
    return {
        "model": first.provenance.model,
        "fingerprint": first.provenance.fingerprint,
        "tokens": list(first.tokens),
        "spans": [{"start": span.start, "stop": span.stop, "text": span.text} for span in first.spans],
        "targets": targets,
    }


def _method(one: Attribution, top: int) -> dict[str, Any]:
    trust = one.faithfulness
    return {
        "method": one.method,
        "preset": one.preset,
        "signed": one.signed,
        "verdict": None if trust is None else trust.verdict,
        "summary": None if trust is None else trust.summary,
        "measures": [] if trust is None else trust.rows(),
        "passes": 0 if trust is None else trust.passes,
        "scores": one.scores.tolist(),
        "span_scores": one.span_scores.tolist(),
        "top": [
            {"text": span.text, "start": span.start, "stop": span.stop, "score": score} for span, score in one.top(top)
        ],
        "settings": plain(one.settings),
        "notes": plain(one.notes),
    }


def plain(value: Any) -> Any:
    """Return settings as types that JSON can hold."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
