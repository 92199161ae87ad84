"""`attlas heads`: the most local, most sink-bound, most spread and most long-range heads of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas._writing import write_together
from attlas.cli.common import JsonFlag, console, print_json, reporting
from attlas.cli.reading import (
    FileArgument,
    HeadsOption,
    LayersOption,
    ModelOption,
    WindowOption,
    check_folder,
    checked,
    numbers,
    read_document,
)
from attlas.errors import StoreError

if TYPE_CHECKING:
    from attlas.heads import HeadStatistics

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


def rank_heads(
    file: FileArgument,
    model: ModelOption,
    top: Annotated[int, typer.Option("--top", help="How many heads in each table.", min=1)] = 8,
    layers: LayersOption = None,
    heads: HeadsOption = None,
    window: WindowOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write the numbers of every head to this Parquet file.", metavar="FILE.parquet"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the most local, most sink-bound, most spread and most long-range heads.

    The numbers are exact, taken over the whole document, and stand beside those of an even spread over the visible
    keys.

    For example:

    attlas heads paper.txt --model smollm2-135m --top 5

    attlas heads paper.txt --model smollm2-135m --json | jq '.[] | select(.first_token > 0.9) | [.layer, .head]'

    attlas heads paper.txt --model smollm2-135m --out heads.parquet
    """
    if out is not None and out.is_dir():
        raise StoreError(f"{out}: wanted a file's name, got a folder; give for example {out / 'heads.parquet'}")
    if out is not None:
        check_folder(out.parent)
    with reporting() as progress:
        from attlas.heads import head_statistics, parquet_of

        chosen = {"layers": numbers("--layers", layers), "heads": numbers("--heads", heads)}
        parts = []
        for cap in read_document(file, model, window, progress, **chosen):
            checked(cap)
            parts.append(head_statistics(cap, progress=progress))
        rows = [{"part": i, **row} if len(parts) > 1 else row for i, part in enumerate(parts) for row in part.rows()]
        if out is not None:
            write_together({out: parquet_of(rows, parts[0].provenance)})
    if as_json:
        print_json(rows)
        return
    _print_tables(parts, average(rows) if len(parts) > 1 else rows, top)
    if out is not None:
        console().print(f"{len(rows):,} rows are in {out}", soft_wrap=True)


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


def _print_tables(parts: Sequence[HeadStatistics], rows: list[dict[str, Any]], top: int) -> None:
    tokens = sum(len(part.tokens or ()) for part in parts)
    where = f", on {tokens:,} tokens" if tokens else ""
    split = f" in {len(parts)} parts, averaged" if len(parts) > 1 else ""
    out = console()
    out.print(f"{parts[0].provenance.model}: {len(rows)} heads{where}{split}", soft_wrap=True)
    for ranking in RANKINGS:
        _print_ranking(out, ranking, rows, top)


def _print_ranking(out: Any, ranking: Ranking, rows: list[dict[str, Any]], top: int) -> None:
    from rich.table import Table
    from rich.text import Text

    name = ranking.column
    ordered = sorted(rows, key=lambda row: row[name], reverse=ranking.highest)
    shown = ordered[:top]
    full = 1.0 if name != "distance" else max([row[name] for row in shown] + [shown[0][f"even_{name}"]], default=1.0)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
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
    out.print()
    out.print(Text.assemble((ranking.title, "bold"), (f"  {ranking.meaning}", "dim")), soft_wrap=True)
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
