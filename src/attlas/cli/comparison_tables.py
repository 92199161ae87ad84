"""The tables of `attlas compare`: heads whose weights and attention changed most, and those that explain the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attlas.cli.rankings import bar_of, plain_table, print_table

if TYPE_CHECKING:
    from attlas.compare import Comparison

BAR = 12
_TOKEN = 10  # characters of a token that a table shows


@dataclass(frozen=True)
class Ranking:
    """One of the tables.

    Parameters
    ----------
    title, column, meaning : str
        The heading; the column that ranks, largest first; what it says.
    beside : tuple of (str, str)
        Other columns that are shown, and their labels.
    """

    title: str
    column: str
    meaning: str
    beside: tuple[tuple[str, str], ...]


HEADS = (
    Ranking(
        "Heads that explain the changed output",
        "restored",
        "nats by which the output comes nearer to the base's when this head alone is put back",
        (("restore_estimate", "estimated"), ("moved", "moved"), ("ov_relative", "ΔOV / OV")),
    ),
    Ranking(
        "Attention moved most",
        "moved",
        "share of a row that went to other keys; by the layer's own new weights alone, by its changed input alone",
        (
            ("own", "own"),
            ("upstream", "input"),
            ("own_share", "own share"),
            ("gained_token", "gained"),
            ("lost_token", "lost"),
        ),
    ),
    Ranking(
        "Query-key changed most",
        "qk_relative",
        "‖ΔQK‖ / ‖QK‖: what the head looks for",
        (
            ("qk_rank", "rank"),
            ("qk_effective_rank", "effective"),
            ("qk_amplification", "amplified"),
            ("qk_left", "overlap"),
            ("qk_left_chance", "chance"),
        ),
    ),
    Ranking(
        "Output-value changed most",
        "ov_relative",
        "‖ΔOV‖ / ‖OV‖: what the head passes on",
        (
            ("ov_rank", "rank"),
            ("ov_effective_rank", "effective"),
            ("ov_amplification", "amplified"),
            ("ov_left", "overlap"),
            ("ov_left_chance", "chance"),
        ),
    ),
)

_MODULES = (
    ("relative", "Δ / norm"),
    ("rank", "rank"),
    ("amplification", "amplified"),
    ("intruders", "intruders"),
    ("merge_loss", "merging"),
)


def print_comparison(out: Any, found: Comparison, top: int, by: str | None) -> None:
    """Print all tables to a console, or the one that ranks heads by a column; and what no number says."""
    rows = found.rows()
    if by is None:
        for ranking in HEADS:
            _print_heads(out, ranking, rows, top)
        _print_modules(out, found, top)
    else:
        _print_heads(out, _ranking(by), rows, top)
    for what, why in found.reasons.items():
        out.print(f"no {_REASONS[what]}: {why}", style="dim", soft_wrap=True)
    for note in found.notes:
        out.print(f"note: {note}", soft_wrap=True)


_REASONS = {"moved": "attention", "restored": "heads that explain the output"}


def _ranking(column: str) -> Ranking:
    from attlas.compare.columns import HEAD_COLUMNS

    (known,) = (one for one in HEAD_COLUMNS if one.name == column)
    beside = [("moved", "moved"), ("qk_relative", "ΔQK / QK"), ("ov_relative", "ΔOV / OV")]
    return Ranking(f"By {column}", column, known.meaning, tuple(one for one in beside if one[0] != column))


def _print_heads(out: Any, ranking: Ranking, rows: list[dict[str, Any]], top: int) -> None:
    from rich.text import Text

    known = [row for row in rows if row[ranking.column] is not None]
    known.sort(key=lambda row: -row[ranking.column])
    if not known:
        return
    full = max(abs(row[ranking.column]) for row in known)
    beside = [(name, label) for name, label in ranking.beside if any(row[name] is not None for row in known)]
    shown = plain_table()
    for label in ("layer", "head", ""):
        shown.add_column(label, justify="right", no_wrap=True)
    shown.add_column("", width=BAR, no_wrap=True)
    for _, label in beside:
        shown.add_column(label, justify="right", style="dim", no_wrap=True)
    for row in known[:top]:
        value = row[ranking.column]
        bar = Text(bar_of(value / full if full else 0.0, BAR), style="cyan")
        others = [_shown(row[name]) for name, _ in beside]
        shown.add_row(str(row["layer"]), str(row["head"]), _shown(value), bar, *others)
    print_table(out, ranking.title, ranking.meaning, shown)


def _print_modules(out: Any, found: Comparison, top: int) -> None:
    rows = sorted(found.modules.rows(), key=lambda row: -(row["relative"] or 0.0))
    shown = plain_table()
    shown.add_column("module", no_wrap=True)
    for _, label in _MODULES:
        shown.add_column(label, justify="right", style="dim", no_wrap=True)
    for row in rows[:top]:
        shown.add_row(row["module"], *(_shown(row[name]) for name, _ in _MODULES))
    print_table(out, "Modules changed most", "‖ΔW‖ / ‖W‖; what rounding takes of the change in merging", shown)


def _shown(value: float | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        from attlas.view.glyphs import visible

        word = visible(value)
        return word if len(word) <= _TOKEN else f"{word[: _TOKEN - 1]}…"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
