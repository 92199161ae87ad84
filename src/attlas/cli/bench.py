"""`attlas bench`: how the cost of attention patterns grows with the length of a text, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attlas.cli.common import JsonFlag, check_suffix, console, print_json, reporting
from attlas.cli.evaluate import seconds, whole_numbers, wide_console
from attlas.cli.pattern_names import PatternOption, parsed_patterns
from attlas.cli.reading import check_file
from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.planning.scaling import Scaling

FORMS: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}

bench_app = typer.Typer(help="Measure on this machine.", no_args_is_help=True, rich_markup_mode=None)


@bench_app.callback()
def _bench() -> None:
    """Hold the benchmarks, of which there is one."""


@bench_app.command("patterns")
def bench_patterns(
    lengths: Annotated[
        str, typer.Option("--lengths", help="Tokens of the texts.", metavar="LIST")
    ] = "1024,2048,4096,8192,16384",
    pattern: PatternOption = None,
    rounds: Annotated[int, typer.Option("--rounds", help="How often each is timed.", min=1)] = 3,
    heads: Annotated[int, typer.Option("--heads", help="How many heads run together.", min=1)] = 4,
    kv_heads: Annotated[int, typer.Option("--kv-heads", help="How many sets of keys they share.", min=1)] = 2,
    dim: Annotated[int, typer.Option("--dim", help="How wide they are.", min=1)] = 64,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw it: a .png or .svg file.", metavar="FILE")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write a row for each pattern and length.", metavar="FILE.parquet"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn at random.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Time attention patterns on longer and longer texts, beside full attention: the quadratic wall.

    Twice the text costs full attention four times the time; a window costs twice. Each pattern is counted (the share of
    query-key pairs that it computes) and timed on random heads, all in turn at each length.

    For example:

    attlas bench patterns

    attlas bench patterns --lengths 4096,8192,16384,32768 --plot wall.png

    attlas bench patterns --pattern sliding_window:width=256,sinks=4 --rounds 9 --json
    """
    check_file("--plot", plot, "wall.png")
    check_suffix("--plot", plot, *FORMS)
    check_file("--out", out, "patterns.parquet")
    check_suffix("--out", out, ".parquet")
    if heads % kv_heads:
        raise ArgumentError(complaint("--kv-heads", wanted=f"a number that divides {heads} heads", got=kv_heads))
    wanted = whole_numbers("--lengths", lengths)
    candidates = parsed_patterns(pattern)
    from attlas.planning.scaling import scaling

    sizes = {"rounds": rounds, "heads": heads, "kv_heads": kv_heads, "dim": dim, "seed": seed}
    with reporting() as progress:
        found = scaling(candidates, wanted, **sizes, progress=progress)
        if out is not None:
            found.to_parquet(out)
        if plot is not None:
            _draw(found, plot)
    if as_json:
        print_json(found.rows())
        return
    _print(found)
    for path in (plot, out):
        if path is not None:
            console().print(f"written: {path}", soft_wrap=True)


def _draw(found: Scaling, plot: Path) -> None:
    from attlas._writing import write_together
    from attlas.view.scaling_picture import scaling_picture

    write_together({plot: scaling_picture(found, form=FORMS[plot.suffix.lower()])})


def _print(found: Scaling) -> None:
    from attlas.cli.rankings import plain_table, print_table

    screen = wide_console()
    rows = found.rows()
    lengths = sorted({row["tokens"] for row in rows})
    for title, meaning, cell in (
        ("Measured", "time a head", _measured),
        ("Gained", "how many times as fast as full attention", _gained),
        ("Counted", "query-key pairs a head, as a share of full attention's", _counted),
    ):
        table = plain_table()
        table.add_column("pattern", overflow="fold")
        for length in lengths:
            table.add_column(f"{length:,}", justify="right", no_wrap=True)
        for pattern in found.patterns:
            own = {row["tokens"]: row for row in rows if row["pattern"] == pattern}
            table.add_row(pattern, *(cell(own[length]) for length in lengths))
        print_table(screen, title, meaning, table)
    unable = dict.fromkeys(row["pattern"] for row in rows if row["seconds"] is None)
    for pattern in unable:
        screen.print(f"\nnote: {pattern}: cannot stand in for causal heads, which these are", soft_wrap=True)
    settings = found.provenance.settings
    screen.print(
        f"\n{settings['heads']} causal heads sharing {settings['kv_heads']} sets of keys, {settings['dim']} wide, "
        f"{settings['threads']} thread{'s' * (settings['threads'] > 1)}",
        soft_wrap=True,
    )


def _measured(row: dict[str, object]) -> str:
    taken = row["seconds"]
    return seconds(taken) if isinstance(taken, float) else "cannot"


def _gained(row: dict[str, object]) -> str:
    gain = row["gain"]
    return f"{gain:.1f}×" if isinstance(gain, float) else ""


def _counted(row: dict[str, object]) -> str:
    share = row["share"]
    return f"{100 * share:.1f} %" if isinstance(share, float) else ""
