"""The tables of `attlas projections`: which heads feed which, and the heads that stand out by their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attlas.cli.rankings import bar_of, plain_table, print_table

if TYPE_CHECKING:
    from attlas.projections.composing import Edge
    from attlas.projections.table import ProjectionTable

BAR = 16


@dataclass(frozen=True)
class Ranking:
    """One of the tables that rank heads.

    Parameters
    ----------
    title, column, label, meaning : str
        The heading; the number that ranks, and what people call it; what it says.
    beside : tuple of (str, str)
        Other columns that are shown, and their labels.
    highest : bool
        Whether the highest or the lowest come first.
    """

    title: str
    column: str
    label: str
    meaning: str
    beside: tuple[tuple[str, str], ...] = ()
    highest: bool = True


RANKINGS = (
    Ranking(
        "Fewest directions looked for",
        "qk_effective_rank",
        "rank",
        "effective rank of query·key",
        (("qk_norm", "norm"), ("qk_stable_rank", "stable rank")),
        highest=False,
    ),
    Ranking(
        "Fewest directions passed on",
        "ov_effective_rank",
        "rank",
        "effective rank of value·output",
        (("ov_norm", "norm"), ("ov_stable_rank", "stable rank")),
        highest=False,
    ),
    Ranking(
        "Firmest preferred offset",
        "kernel_share",
        "share",
        "by the mean query and key and the rotary encoding, beside the attention that was measured there",
        (("preferred_offset", "offset"), ("kernel_measured", "measured"), ("kernel_even", "even")),
    ),
    Ranking(
        "Most copying",
        "copy_effective",
        "z",
        "how far a head raises the token that it attends to, tokens as the first MLP leaves them, or embedded",
        (("copy_effective_low", "from"), ("copy_effective_high", "to"), ("copy_raw", "embedded")),
    ),
)


def print_projections(out: Any, table: ProjectionTable, top: int) -> None:
    """Print all tables to a console, and why one is missing."""
    if table.compositions:
        _print_compositions(out, table, top)
    for ranking in RANKINGS:
        _print_ranking(out, ranking, table, top)
    for what, why in table.reasons.items():
        out.print(f"no {what}: {why}", style="dim", soft_wrap=True)


def strongest(table: ProjectionTable, top: int) -> list[Edge]:
    """Return the strongest compositions of all kinds."""
    edges = [edge for one in table.compositions for edge in one.strongest(top)]
    return sorted(edges, key=lambda edge: -edge.z)[:top]


def _print_compositions(out: Any, table: ProjectionTable, top: int) -> None:
    from rich.table import Table

    shown: Table = plain_table()
    for column in ("from", "to", "kind", "score", "× chance", "z"):
        shown.add_column(column, justify="left" if column == "kind" else "right")
    chance = table.compositions[0].chance
    for edge in strongest(table, top):
        ends = [f"{layer}.{head}" for layer, head in (edge.source, edge.target)]
        shown.add_row(*ends, edge.kind.upper(), f"{edge.score:.3f}", f"{edge.score / chance:.1f}", f"{edge.z:.0f}")
    meaning = "a later head's queries (Q), keys (K) or values (V) read what an earlier head writes"
    print_table(out, "Which heads feed which", meaning, shown)


def _print_ranking(out: Any, ranking: Ranking, table: ProjectionTable, top: int) -> None:
    from rich.text import Text

    rows = [row for row in table.rows() if row[ranking.column] is not None]
    if not rows:
        return
    rows.sort(key=lambda row: row[ranking.column], reverse=ranking.highest)
    full = max(abs(row[ranking.column]) for row in rows)
    shown = plain_table()
    for label in ("layer", "head", ranking.label):
        shown.add_column(label, justify="right", no_wrap=True)
    shown.add_column("", width=BAR, no_wrap=True)
    for label in ("chance", *(label for _, label in ranking.beside)):
        shown.add_column(label, justify="right", style="dim", no_wrap=True)
    for row in rows[:top]:
        value = row[ranking.column]
        bar = Text(bar_of(abs(value) / full if full else 0.0, BAR), style="cyan")
        beside = [_shown(row[name]) for name, _ in ranking.beside]
        shown.add_row(str(row["layer"]), str(row["head"]), _shown(value), bar, _chance(table, ranking, row), *beside)
    print_table(out, ranking.title, ranking.meaning, shown)


def _chance(table: ProjectionTable, ranking: Ranking, row: dict[str, Any]) -> str:
    if ranking.column in table.chance:
        return f"0 ± {table.chance[ranking.column]:.2g}"
    return _shown(row.get(f"{ranking.column}_chance"))


def _shown(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.3g}"
