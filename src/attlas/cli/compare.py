"""`attlas compare`: what a fine-tune or an adapter changed, head by head, in the weights and in the attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas._writing import write_together
from attlas.cli.common import JsonFlag, check_suffix, console, print_json, reporting
from attlas.cli.comparison_tables import print_comparison
from attlas.cli.reading import check_file, check_folder, loaded_model, page_file
from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.compare import Comparison

PAGE_NAME = "comparison.html"
ROWS, RESTORE, WINDOW, INTRUDERS, THRESHOLD, MAPS = 256, 8, 128, 10, 0.5, 24
"""What `attlas.compare` and its page take by default; a test holds them together."""


def tell_comparison(
    base: Annotated[
        str,
        typer.Argument(help="The model before: a bundled model, a Hugging Face id, or a local folder.", metavar="BASE"),
    ],
    tuned: Annotated[
        str, typer.Argument(help="The model after, or the folder of an adapter for BASE.", metavar="TUNED")
    ],
    file: Annotated[
        str | None,
        typer.Argument(
            help="A UTF-8 text file, or - for standard input, to compare attention and output on; without it, only "
            "weights are compared.",
            metavar="[FILE]",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="Rank heads by this column of the table, and by nothing else.", metavar="COLUMN"),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many lines in each table.", min=1)] = 8,
    rows: Annotated[
        str,
        typer.Option("--rows", help="How many rows of each attention matrix to measure, or all.", metavar="N"),
    ] = str(ROWS),
    restore: Annotated[
        int,
        typer.Option(
            "--restore", help="How many heads to put back, one at a time, to see which explain the output.", min=0
        ),
    ] = RESTORE,
    window: Annotated[
        int, typer.Option("--window", help="On how many tokens, the last of the text, heads are put back.", min=2)
    ] = WINDOW,
    directions: Annotated[
        int | None,
        typer.Option(
            "--directions",
            help="Leading directions that amplification and overlap are about.  [default: all that an adapter has]",
            min=1,
        ),
    ] = None,
    intruders: Annotated[
        int,
        typer.Option(
            "--intruders",
            help="Leading directions of each tuned weight to look for intruders among; 0 saves the time.",
            min=0,
        ),
    ] = INTRUDERS,
    threshold: Annotated[
        float,
        typer.Option("--threshold", help="An intruder has no |cosine| with the base's directions above this."),
    ] = THRESHOLD,
    merge_dtype: Annotated[
        str,
        typer.Option(
            "--merge-dtype", help="For what a merge would lose: bfloat16, float16 or float32.", metavar="DTYPE"
        ),
    ] = "bfloat16",
    seed: Annotated[int, typer.Option("--seed", help="Of the rows that are drawn.", min=0)] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write a row for every head to this file.", metavar="FILE.parquet"),
    ] = None,
    modules: Annotated[
        Path | None,
        typer.Option("--modules", help="Write a row for every weight matrix to this file.", metavar="FILE.parquet"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help=f"Write a page for a browser: {PAGE_NAME} in this folder, or the .html file of this name.",
            metavar="PLACE",
        ),
    ] = None,
    maps: Annotated[
        int,
        typer.Option("--maps", help="For how many heads the page, with a text, has a map of what moved.", min=0),
    ] = MAPS,
    as_json: JsonFlag = False,
) -> None:
    """Print what training changed: in each head's weights, and on a text in its attention and in the output.

    With a text, both models read it; how far each row of each attention matrix moved is split into what the layer's own
    new weights do and what its changed input does, and the heads that seem to explain the changed output are put back
    one at a time. An adapter is read without running anything from it.

    For example:

    attlas compare smollm2-135m facts

    attlas compare smollm2-135m facts paper.txt --page comparison.html --out heads.parquet

    attlas compare smollm2-135m smollm2-tuned paper.txt --by upstream --restore 0
    """
    place = page_file(page, PAGE_NAME)
    for option, path, example in (("--out", out, "heads.parquet"), ("--modules", modules, "modules.parquet")):
        check_file(option, path, example)
        check_suffix(option, path, ".parquet")
    if place is not None:
        check_folder(place.parent)
    chosen = _rows(rows)
    if by is not None:
        _check_column(by, text=file is not None)
    with reporting() as progress:
        text = None
        if file is not None:
            from attlas.models.document import read_text

            # The text comes first: a wrong file should not cost the loading of a model.
            text = read_text(file)
        from attlas.compare import compare

        found = compare(
            loaded_model(base, progress),
            tuned,
            text,
            rows=chosen,
            restore=restore,
            window=window,
            directions=directions,
            intruders=intruders,
            threshold=threshold,
            merge_dtype=merge_dtype,
            seed=seed,
            progress=progress,
        )
        files = _files(found, out, modules, place, maps, progress)
        if files:
            write_together(files)
    if as_json:
        print_json(_as_json(found))
        return
    _print(found, base, tuned, top, by)
    for path in files:
        console().print(f"written: {path}", soft_wrap=True)


def _rows(text: str) -> int | None:
    """Return how many rows are meant; None for all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(complaint("--rows", wanted="a whole number from 1, or all", got=repr(text)))
    return int(text)


def _check_column(by: str, *, text: bool) -> None:
    from attlas.compare.columns import TEXT_COLUMNS, check_column

    check_column("--by", by)
    if not text and any(column.name == by for column in TEXT_COLUMNS):
        raise ArgumentError(complaint(f"--by {by}", wanted="a text, after TUNED", got="none"))


def _files(
    found: Comparison, out: Path | None, modules: Path | None, place: Path | None, maps: int, progress: Any
) -> dict[Path, bytes]:
    files: dict[Path, bytes] = {}
    if out is not None:
        files[out] = found.parquet()
    if modules is not None:
        files[modules] = found.modules.parquet()
    if place is not None:
        from attlas.view import comparison_page

        files[place] = comparison_page(found, maps=maps, progress=progress).encode("utf-8")
    return files


def _as_json(found: Comparison) -> dict[str, Any]:
    about = dict(found.about())
    about.pop("columns")
    return {
        "provenance": found.provenance.as_dict(),
        **about,
        "heads": found.rows(),
        "modules": found.modules.rows(),
    }


def _print(found: Comparison, base: str, tuned: str, top: int, by: str | None) -> None:
    out = console()
    out.print(
        f"{base} → {tuned} ({found.kind}): {len(found)} heads, {len(found.modules)} weight matrices", soft_wrap=True
    )
    if found.moved is not None:
        each = "every row" if found.moved.every_row else f"{len(found.moved.rows):,} of their rows"
        out.print(f"attention matrices of {found.moved.n:,} tokens, {each}", soft_wrap=True)
    if found.restored is not None:
        first, last = found.restored.window
        run = int(found.restored.exact.isfinite().sum())
        out.print(
            f"output: KL(base ‖ tuned) {found.restored.divergence:.3g} nats a token, mean of the {last - first:,} "
            f"tokens from {first:,} on; {run} of {len(found)} heads were put back",
            soft_wrap=True,
        )
    print_comparison(out, found, top, by)
