"""The tables of `attlas heads` that rank heads by where their attention goes on a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BAR = 24


@dataclass(frozen=True)
class Ranking:
    """One of the tables.

    Parameters
    ----------
    title, column, meaning : str
        The heading; the statistic that ranks; what it says.
    highest : bool
        Whether the highest or the lowest come first.
    """

    title: str
    column: str
    meaning: str
    highest: bool = True


RANKINGS = (
    Ranking("Most local", "distance", "mean distance between query and key, in tokens", highest=False),
    Ranking("Most sink-bound", "first_token", "share of attention on the first token"),
    Ranking("Most spread", "evenness", "entropy as a share of an even spread's"),
    Ranking("Most long-range", "far", "share on keys 256 tokens away or more, the first token not counted"),
)


def average(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a head, averaged over the parts of a document; each query counts alike."""
    heads: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        heads.setdefault((row["layer"], row["head"]), []).append(row)
    averaged = []
    for (layer, head), parts in heads.items():
        queries = sum(row["queries"] for row in parts)
        numeric = [name for name, value in parts[0].items() if isinstance(value, float)]
        means = {name: sum(row[name] * row["queries"] for row in parts) / queries for name in numeric}
        averaged.append({"layer": layer, "head": head, "queries": queries, **means})
    return averaged


def print_rankings(out: Any, rows: list[dict[str, Any]], top: int) -> None:
    """Print all tables to a console."""
    for ranking in RANKINGS:
        _print_ranking(out, ranking, rows, top)


def _print_ranking(out: Any, ranking: Ranking, rows: list[dict[str, Any]], top: int) -> None:
    from rich.text import Text

    name = ranking.column
    ordered = sorted(rows, key=lambda row: row[name], reverse=ranking.highest)
    shown = ordered[:top]
    full = 1.0 if name != "distance" else max([row[name] for row in shown] + [shown[0][f"even_{name}"]], default=1.0)
    table = plain_table()
    table.add_column("layer", justify="right")
    table.add_column("head", justify="right")
    table.add_column(_column(name), justify="right")
    table.add_column("", width=BAR, no_wrap=True)
    table.add_column("even", justify="right", style="dim")
    beside = [other for other in ("first_token", "near", "distance") if other != name][:2]
    for other in beside:
        table.add_column(_column(other), justify="right", style="dim")
    for row in shown:
        bar = Text(bar_of(row[name] / full if full else 0.0, BAR), style="cyan")
        values = (number(name, row[name]), bar, number(name, row[f"even_{name}"]))
        others = [number(other, row[other]) for other in beside]
        table.add_row(str(row["layer"]), str(row["head"]), *values, *others)
    print_table(out, ranking.title, ranking.meaning, table)


def plain_table() -> Any:
    """Return an empty table without lines."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def print_table(out: Any, title: str, meaning: str, table: Any) -> None:
    """Print a table under its title."""
    from rich.text import Text

    out.print()
    out.print(Text.assemble((title, "bold"), (f"  {meaning}", "dim")), soft_wrap=True)
    out.print(table)


def _column(name: str) -> str:
    return name.replace("_", " ")


def number(name: str, value: float) -> str:
    """Return a statistic as people read it."""
    return f"{value:,.1f}" if name == "distance" else f"{100 * value:.1f} %"


def bar_of(share: float, width: int) -> str:
    """Return a bar of block characters, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
