"""`attlas profile`: what every candidate pattern would lose of every head of a model, on real documents."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.cli.common import JsonFlag, check_suffix, console, print_json, reporting
from attlas.cli.pattern_names import PatternOption, parsed_patterns
from attlas.cli.reading import check_file, loaded_model
from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.planning.profile import Profile

ERRORS = (0.005, 0.01, 0.02, 0.05)
"""Errors for which is shown what a plan would be."""

NAME = "profile.parquet"

TextsArgument = Annotated[
    list[str], typer.Argument(help="UTF-8 text files; one may be - for standard input.", metavar="TEXT")
]
ModelArgument = Annotated[
    str, typer.Argument(help="A bundled model, a Hugging Face id, or a local folder.", metavar="MODEL")
]


def make_profile(
    model: ModelArgument,
    files: TextsArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write the profile.", metavar="FILE.parquet")
    ] = Path(NAME),
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            help="Draw layers × heads, coloured by the cheapest pattern within --error.",
            metavar="FILE.svg",
        ),
    ] = None,
    error: Annotated[
        float, typer.Option("--error", help="For the picture: by what share perplexity may rise.", min=0)
    ] = 0.01,
    length: Annotated[int, typer.Option("--length", help="Read at most so many tokens of each text.", min=2)] = 2048,
    pattern: PatternOption = None,
    aims: Annotated[
        str | None,
        typer.Option(
            "--aims",
            help="Rises of perplexity at which plans are run as a whole; plans are chosen up to the largest.  "
            "[default: 0.03,0.01]",
            metavar="LIST",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn at random.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure what cheaper attention patterns would lose of every head, and write it to a file.

    Each head of the model is compared with each pattern on your own documents: the attention that the pattern drops,
    how far the head's output is off, and what that does to the loss. A few plans are then run as a whole, because
    losses do not simply add up. Take several documents, like those that the model will read, and keep some others back:
    a plan can only be judged by texts that it was not made from.

    For example:

    attlas profile smollm2-135m a.txt b.txt c.txt

    attlas profile smollm2-135m a.txt b.txt --out mine.parquet --picture heads.svg --error 0.02

    attlas profile smollm2-135m a.txt --pattern sliding_window:width=256,sinks=4 --pattern sliding_window:width=64

    Then: attlas plan profile.parquet --error 0.01
    """
    check_file("--out", out, NAME)
    check_suffix("--out", out, ".parquet")
    check_file("--picture", picture, "heads.svg")
    check_suffix("--picture", picture, ".svg")
    candidates = parsed_patterns(pattern)
    if candidates and all(one.kind == "full" for one in candidates):
        raise ArgumentError(complaint("--pattern", wanted="at least one that is cheaper than exact", got="full"))
    options: dict[str, Any] = {} if aims is None else {"aims": [math.log1p(one) for one in shares("--aims", aims)]}
    with reporting() as progress:
        texts = read_texts(files)
        lm = loaded_model(model, progress)
        from attlas.planning.profiling import profile

        found = profile(lm, texts, candidates, length=length, seed=seed, **options, progress=progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        found.save(out)
        if picture is not None:
            found.picture(picture, error)
    if as_json:
        read = [text.tokens for text in found.effects.texts]
        print_json({"profile": str(out), "texts": read, "plans": plans(found), "notes": remarks(found)})
        return
    _print(found, out, picture)


def read_texts(files: list[str]) -> list[str]:
    """Return the texts of several files; standard input can be read once.

    Raises
    ------
    ArgumentError, DocumentError
        One of them is no text, or standard input is named twice.
    """
    from attlas.models.document import read_text

    if files.count("-") > 1:
        raise ArgumentError(complaint("TEXT", wanted="standard input, -, once", got=f"{files.count('-')} times"))
    return [read_text(file) for file in files]


def shares(option: str, text: str) -> list[float]:
    """Return the numbers of a list such as ``0.03,0.01``.

    Raises
    ------
    ArgumentError
        It is no list of numbers above 0.
    """
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            found.append(math.nan)
    if not all(0 < one < math.inf for one in found):
        raise ArgumentError(complaint(option, wanted="shares above 0 with commas between them", got=repr(text)))
    return found


def plans(found: Profile) -> list[dict[str, Any]]:
    """Return what a plan would be for each of some errors, as plain types."""
    rows = []
    for error in ERRORS:
        chosen = found.choose(error)
        rows.append({"error": error, "full": chosen.full, "cost": chosen.cost, "expected": chosen.error})
    return rows


def remarks(found: Profile) -> list[str]:
    """Return what a reader of the plans has to know: patterns that no head can have, and that nothing is cheaper."""
    effects = found.effects
    refused = effects.loss.isnan().all(0).all(0).tolist()
    notes = [
        f"no head of this model can have {pattern}: its own mask, bias or order cannot be told by it"
        for pattern, none in zip(effects.patterns, refused, strict=True)
        if none
    ]
    cheapest = found.choose(cost=0.0)
    return notes if cheapest.patterns else [*notes, *cheapest.notes]


def _print(found: Profile, out: Path, picture: Path | None) -> None:
    from attlas.cli.rankings import plain_table, print_table

    screen = console()
    effects = found.effects
    tokens = sum(text.tokens for text in effects.texts)
    many = f"{len(effects.texts)} texts" if len(effects.texts) > 1 else "one text"
    tried = f"{len(effects.patterns)} patterns" if len(effects.patterns) > 1 else "one pattern"
    screen.print(
        f"{found.provenance.model}: {len(effects.heads)} heads × {tried}, on {many} ({tokens:,} tokens)",
        soft_wrap=True,
    )
    table = plain_table()
    for name in ("perplexity may rise by", "heads left full", "attention's cost", "rise expected"):
        table.add_column(name, justify="right")
    for row in plans(found):
        expected = "not known" if row["expected"] is None else f"{100 * row['expected']:.2f} %"
        values = (f"{100 * row['full']:.0f} %", f"{100 * row['cost']:.0f} %", expected)
        table.add_row(f"{100 * row['error']:g} %", *values)
    print_table(screen, "Plans", "the cheapest within an error, on these texts", table)
    screen.print()
    for note in remarks(found):
        screen.print(f"note: {note}", soft_wrap=True)
    for path in (out, picture):
        if path is not None:
            screen.print(f"written: {path}", soft_wrap=True)
    screen.print(f"next: attlas plan {out} --error 0.01", soft_wrap=True)
