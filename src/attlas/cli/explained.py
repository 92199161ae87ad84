"""What `attlas explain` prints: the target, how far each method holds, the coloured text, its most relevant parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    for same in _by_target(found):
        _print_target(out, same, top)


def _by_target(found: Sequence[Attribution]) -> Iterator[list[Attribution]]:
    """Yield the explanations of each target, which follow one another."""
    for _, same in groupby(found, lambda one: one.target):
        yield list(same)


def _print_target(out: Console, found: list[Attribution], top: int) -> None:
    from rich.text import Text

    from attlas.explain.cautions import cautions, most_faithful, strength

    first = found[0]
    out.print()
    why = (("Why ", "dim"), (_name(first.target), "bold"), ("? ", "dim"), _answer(first))
    out.print(Text.assemble(*why), soft_wrap=True)
    _print_trust(out, sorted(found, key=strength, reverse=True))
    for line in cautions(found):
        out.print(Text(f"! {line}", style="bold yellow"), soft_wrap=True)
    best = most_faithful(found)
    if best.faithfulness is not None and best.faithfulness.summary:
        out.print(Text(f"{best.name}: {best.faithfulness.summary}", style="dim"), soft_wrap=True)
    colours = out.is_terminal and not out.no_color
    out.print()
    heading = Text.assemble(("The text", "bold"), (f"  by {best.name}  ", "dim"), legend(best, colours))
    out.print(heading, soft_wrap=True)
    out.print(coloured(best, out.width, colours=colours, top=top), soft_wrap=True)
    _print_top(out, best, top)


def _name(target: Target) -> str:
    """Return a target's name, fit for a terminal."""
    from attlas.explain.pieces import readable

    return readable(target.name.replace("\n", "⏎")) or "this answer"


def _answer(one: Attribution) -> str:
    """Return a target's value in words, and where the model answers."""
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
    name = _spaced(main.name)
    meaning = f"by how much {name} ({main.unit}) lies above the mean of chance, and how often chance does as well"
    baselines = dict.fromkeys(order for one in measured for order in one.baselines)
    tables = [_trust_table(found, beside) for beside in ([main.name, *baselines], [main.name], [])]
    unbounded = out.options.update(max_width=1000)
    fitting = (table for table in tables if out.measure(table, options=unbounded).maximum <= out.width)
    print_table(out, "How far each method holds", meaning, next(fitting, tables[-1]))


def _trust_table(found: Sequence[Attribution], beside: Sequence[str]) -> Any:
    """Return a table of verdicts, with columns for the main measure and some of its baselines, or for neither."""
    from rich.text import Text

    table = plain_table()
    table.add_column("method", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("by", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True, style="dim")
    table.add_column("chance", justify="right", no_wrap=True, style="dim")
    for i, name in enumerate(beside):
        table.add_column(_spaced(name), justify="right", no_wrap=True, style="dim" if i else "")
    for one in found:
        if one.faithfulness is None:
            table.add_row(one.name, Text("not measured", style="dim"))
            continue
        verdict, main = one.faithfulness.verdict, one.faithfulness.measures[0]
        values = [main.baselines.get(name) if i else main.value for i, name in enumerate(beside)]
        table.add_row(one.name, Text(verdict, style=_VERDICTS[verdict]), *_gain(main), *map(_decimals, values))
    return table


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _gain(measured: Measured) -> tuple[str, str, str]:
    """Return by how much a method is better than chance, the interval of that, and how often chance does as well."""
    interval = f"{measured.low:+.2f} to {measured.high:+.2f}" if math.isfinite(measured.low) else "–"
    chance = f"{100 * measured.p:.2g} %" if math.isfinite(measured.p) else "–"
    return f"{measured.advantage:+.2f}", interval, chance


def _decimals(value: float | None) -> str:
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

    short = readable(text.strip() or text).replace("\n", "⏎").replace("\t", "⇥")
    return short if text.strip() else short.replace(" ", "·")


def as_plain(found: Sequence[Attribution], top: int) -> dict[str, Any]:
    """Return explanations of one text as plain types for machines."""
    from attlas.explain.cautions import cautions, most_faithful

    first = found[0]
    targets = []
    for same in _by_target(found):
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
        "settings": dict(one.settings),
        "notes": dict(one.notes),
    }
