"""`attlas evaluate`: what a plan costs and gains on texts that it was not made from, beside the exact model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.cli.common import JsonFlag, check_suffix, console, print_json, reporting
from attlas.cli.profile import ModelArgument, TextsArgument, read_texts
from attlas.cli.reading import check_file, loaded_model
from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.planning.evaluation import Evaluation
    from attlas.planning.haystacks import Grid
    from attlas.planning.speed import Speed, Timed


PIPE = 160


def tell_evaluation(
    model: ModelArgument,
    plan: Annotated[Path, typer.Argument(help="What attlas plan wrote.", metavar="PLAN")],
    files: TextsArgument,
    length: Annotated[
        int | None, typer.Option("--length", help="Read at most so many tokens of each text; all by default.", min=2)
    ] = None,
    needles: Annotated[
        bool, typer.Option("--needles", help="Also look for planted facts, by depth and length of generated texts.")
    ] = False,
    lengths: Annotated[
        str | None, typer.Option("--lengths", help="For --needles: tokens of these texts, as 512,1024.", metavar="LIST")
    ] = None,
    each: Annotated[
        int | None, typer.Option("--each", help="For --needles: texts for each task, length and depth.", min=1)
    ] = None,
    generate: Annotated[
        int, typer.Option("--generate", help="Tokens to write after each text's first half; 0 for none.", min=0)
    ] = 32,
    timing: Annotated[
        int, typer.Option("--timing", help="Rounds in which reading and writing are timed; 0 for none.", min=0)
    ] = 3,
    flips: Annotated[
        bool,
        typer.Option("--flips", help="Also measure which heads would get another pattern here, as a profile does."),
    ] = False,
    guard: Annotated[
        float | None,
        typer.Option(
            "--guard", help="Let a head run exactly where its pattern drops more than this share.", metavar="SHARE"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn at random.", min=0)] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write all numbers to this file, a row a text.", metavar="FILE.parquet"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a plan and the exact model on held-out texts, and tell how they differ.

    Perplexity, how far predictions are off, the text that both go on to write, the worst document; with --needles,
    planted facts by depth and length. Then what is gained: reading and writing timed in turn, beside the most that
    could be gained (Amdahl), and the keys and values to be held. A text that the plan was made from is refused: it
    would flatter the plan.

    For example:

    attlas evaluate smollm2-135m plan.json other.txt

    attlas evaluate smollm2-135m plan.json d.txt e.txt f.txt --needles --lengths 1024,2048 --each 16

    attlas evaluate smollm2-135m plan.json d.txt --timing 0 --json | jq .ratio
    """
    check_file("--out", out, "evaluation.parquet")
    check_suffix("--out", out, ".parquet")
    grid = _grid(needles, lengths, each)
    with reporting() as progress:
        texts = read_texts(files)
        from attlas.planning.plan import open_plan

        # A wrong plan should not cost the loading of a model.
        opened = open_plan(plan)
        lm = loaded_model(model, progress)
        opened.subject.check(lm)
        from attlas.planning.evaluating import evaluate

        options: dict[str, Any] = {
            "length": length,
            "generate": generate,
            "timing": timing,
            "flips": flips,
            "guard": guard,
            "seed": seed,
        }
        found = evaluate(lm, opened, texts, needles=grid or needles, **options, progress=progress)
        if out is not None:
            found.to_parquet(out)
    if as_json:
        print_json({**found.about(), "texts": found.rows()})
        return
    _print(found, files, out)


def _grid(needles: bool, lengths: str | None, each: int | None) -> Grid | None:
    """Return which planted facts are looked for; None for the usual ones, or none."""
    given = {"--lengths": lengths is not None, "--each": each is not None}
    if not needles:
        for option, there in given.items():
            if there:
                raise ArgumentError(complaint(option, wanted="--needles beside it", got="none"))
    if not any(given.values()):
        return None
    from attlas.planning.haystacks import Grid

    chosen: dict[str, Any] = {}
    if lengths is not None:
        chosen["lengths"] = whole_numbers("--lengths", lengths)
    if each is not None:
        chosen["each"] = each
    return Grid(**chosen)


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as ``512,1024``.

    Raises
    ------
    ArgumentError
        It is no such list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < len(part) < 9 and int(part) for part in parts):
        raise ArgumentError(complaint(option, wanted="whole numbers with commas between them", got=repr(text)))
    return tuple(int(part) for part in parts)


def _print(found: Evaluation, files: list[str], out: Path | None) -> None:
    screen = wide_console()
    screen.print(found.summary, soft_wrap=True)
    _print_texts(screen, found, files)
    if found.retrieval is not None:
        _print_needles(screen, found)
    if found.speed is not None:
        _print_speed(screen, found.speed)
    screen.print()
    for line in remarks(found):
        screen.print(line, soft_wrap=True)
    if out is not None:
        screen.print(f"written: {out}", soft_wrap=True)


def _print_texts(screen: Any, found: Evaluation, files: list[str]) -> None:
    from attlas.cli.rankings import plain_table, print_table
    from attlas.planning.evaluation import percent

    # Two tables, for one with all columns is too wide for many a screen.
    perplexity, predictions = plain_table(), plain_table()
    for table, names in (
        (perplexity, ("tokens", "perplexity", "change (95 % interval)")),
        (predictions, ("KL mean", "KL 95 %", "KL worst", "same next token")),
    ):
        table.add_column("text", overflow="fold")
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
    for text in found.texts:
        name = files[text.text]
        perplexity.add_row(name, f"{text.tokens:,}", f"{math.exp(text.exact):.3f}", percent(text.ratio))
        off = (text.divergence, text.divergence_p95, text.divergence_worst)
        predictions.add_row(name, *(f"{value:.4f}" for value in off), f"{100 * text.same:.1f} %")
    print_table(screen, "Held-out texts", "the exact model, and the plan against it", perplexity)
    print_table(screen, "Predictions", "how far the plan's are off from exact; KL in nats", predictions)


def _print_needles(screen: Any, found: Evaluation) -> None:
    from attlas.cli.rankings import plain_table, print_table

    if found.retrieval is None:
        return
    depths = sorted({cell.depth for cell in found.retrieval.cells})
    table = plain_table()
    table.add_column("task")
    table.add_column("tokens", justify="right")
    for depth in depths:
        table.add_column(f"depth {depth:g}", justify="right")
    rows = {(cell.task, cell.length): {} for cell in found.retrieval.cells}
    for cell in found.retrieval.cells:
        rows[cell.task, cell.length][cell.depth] = f"{cell.kept}/{cell.exact}"
    for (task, length), cells in rows.items():
        table.add_row(task, f"{length:,}", *(cells[depth] for depth in depths))
    asked = found.retrieval.cells[0].asked
    meaning = f"facts found by the plan / by the exact model, of {asked}; depth 0 is the text's beginning"
    print_table(screen, "Planted facts", meaning, table)


def _print_speed(screen: Any, speed: Speed) -> None:
    from attlas.cli.rankings import plain_table, print_table

    table = plain_table()
    table.add_column("")
    table.add_column(f"reading {speed.tokens:,} tokens", justify="right", no_wrap=True)
    table.add_column("writing a token", justify="right", no_wrap=True)
    for name, cell in _speeds(speed):
        table.add_row(name, cell(speed.prefill), cell(speed.decode))
    rounds = len(speed.prefill.exact)
    meaning = f"timed in turn, {rounds} round{'s' * (rounds > 1)}, {speed.threads} thread{'s' * (speed.threads > 1)}"
    print_table(screen, "Speed", meaning, table)


def _speeds(speed: Speed) -> list[tuple[str, Callable[[Timed], str]]]:
    """Return the rows of the table of speeds: what a row is, and how it is told of reading and of writing."""
    alone = "no end" if math.isinf(speed.part_ceiling) else f"≤ {speed.part_ceiling:.2f}×"
    return [
        ("exact", lambda timed: seconds(median(timed.exact))),
        ("by the plan", lambda timed: seconds(median(timed.planned))),
        ("times as fast", lambda timed: f"{timed.gain:.2f}× ({min(timed.gains):.2f}–{max(timed.gains):.2f})"),
        ("  if attention cost nothing (Amdahl)", lambda timed: f"≤ {timed.ceiling:.2f}×"),
        ("  if only heads left full cost anything", lambda timed: f"≤ {timed.ceiling_with(speed.full):.2f}×"),
        ("attention's share of exact", lambda timed: f"{100 * timed.attention:.0f} %"),
        ("attention alone, times as fast", _alone),
        ("  if only heads left full cost anything", lambda timed: alone),
    ]


def _alone(timed: Timed) -> str:
    return "not measurable" if math.isnan(timed.attention_gain) else f"{timed.attention_gain:.2f}×"


def remarks(found: Evaluation) -> list[str]:
    """Return what is said in a line each."""
    held, lines = found.held, []
    lines.append(
        f"keys and values after {held.tokens:,} tokens: {held.planned / 1e6:,.1f} of {held.exact / 1e6:,.1f} MB "
        f"({100 * held.share:.0f} %) are needed"
    )
    lines.append(f"{found.full:,} of {found.heads:,} heads are full; {found.routed:,} ran by another pattern")
    if found.continued:
        same = sum(one.same for one in found.continued) / len(found.continued)
        lines.append(f"generated text: {100 * same:.0f} % of tokens are the same{_parting(found)}")
    if found.flips is not None:
        lines.append(
            f"{100 * found.flips.share:.0f} % of heads would get another pattern on these texts, "
            f"{100 * found.flips.dearer:.0f} % a dearer one"
        )
    if found.strayed:
        lines.append(f"the guard made {found.strayed:,} heads exact in some call")
    lines += [f"stayed exact: {where}: {reason}" for where, reason in found.stayed.items()]
    return lines


def _parting(found: Evaluation) -> str:
    """Say where the two ways to go on with a text part."""
    count = found.continued[0].tokens
    parted = sorted(one.parted for one in found.continued if one.parted < one.tokens)
    if not parted:
        return ""
    places = f"{parted[0]}" if parted[0] == parted[-1] else f"{parted[0]} to {parted[-1]}"
    return f"; where they part, it is after {places} of {count}"


def wide_console() -> Any:
    """Return a console that cuts nothing off for a screen that there is not."""
    screen = console()
    if not screen.is_terminal:
        screen.width = max(screen.width, PIPE)
    return screen


def seconds(value: float) -> str:
    """Return a time for people."""
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
