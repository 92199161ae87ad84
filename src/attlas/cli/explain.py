"""`attlas explain`: which parts of a document made a model say that, by several methods, and how far each holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from attlas._tables import parquet_of
from attlas._writing import write_together
from attlas.cli.common import JsonFlag, console, print_json, reporting
from attlas.cli.reading import FileArgument, ModelOption, check_file, check_folder, loaded_model, page_file
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.models.document import read_text

if TYPE_CHECKING:
    from attlas.capture import LanguageModel
    from attlas.explain.attribution import Attribution
    from attlas.explain.faithfulness.patterns import PatternTests

CHEAP = (
    "chefer",
    "suppression",
    "attention_gradient",
    "grad_sam",
    "value_norm",
    "gradient_input",
    "rollout_null",
    "rollout",
)
"""Methods that together take a few passes of the model, forward and backward."""

PAGE_NAME = "explanation.html"
PIPE = 160
"""How wide lines are at least where there is no screen: nothing is cut off for what is not there."""

MOST, FEWEST = 320, 32
TOKENS = 2**16
"""Without --budget, faithfulness may take so many passes that they read `TOKENS` together, `FEWEST` to `MOST`: the
fewest give a rank correlation with an interval, the most a verdict on curves. Methods share nearly all of them."""

_OPTIONAL = {"integrated_gradients": "captum"}
"""Methods that need a package of their own, and which: where it is missing, `all` does without them."""

_OTHERWISE = {"globenc": "globenc:pre-norm"}
"""What `all` takes where a method's own first rules do not fit the model."""

_TRIAL = 8
"""Tokens on which it is tried whether a method fits the model."""


def _show_methods(wanted: bool) -> None:
    if wanted:
        from attlas.cli.explained import print_methods

        print_methods(console())
        raise typer.Exit


def tell_explanation(
    file: FileArgument,
    model: ModelOption,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="What is explained: -1, the model's own next token after the last one (the default); "
            '"-1: Paris", this token there; "-1: Paris/ Rome", the one rather than the other; next@120, the token '
            "that really follows position 120; label:1, a class. Can be repeated.",
            metavar="TARGET",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help=f"Methods of --list, with commas between them, or all; by default {', '.join(CHEAP)}.",
            metavar="LIST",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="By whose rules, where a paper and its released code differ; METHOD:PRESET is for that method alone.",
            metavar="NAME",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="What is scored and taken away: each token, word, sentence, line, turn or function.",
            metavar="UNIT",
        ),
    ] = "word",
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget",
            help="Forward passes that measuring the faithfulness of a method may take, 0 to leave it out; "
            f"by default {MOST}, of a long text fewer, but at least {FEWEST}.",
            min=0,
        ),
    ] = None,
    removal: Annotated[
        str,
        typer.Option(
            "--removal",
            help="How parts are taken away: delete drops their tokens, mask puts a mask token in their place, "
            "mean the mean embedding, knockout hides them from attention.",
            metavar="HOW",
        ),
    ] = "delete",
    patterns: Annotated[
        bool,
        typer.Option(
            "--patterns",
            help="Also test for every head whether it matters where it looks: shuffle its attention, and make it even.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn at random.")] = 0,
    top: Annotated[
        int,
        typer.Option(
            "--top",
            help="How many of the most relevant parts are listed, and shown in their surroundings if the text is long.",
            min=1,
        ),
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write every token's scores to this Parquet file.", metavar="FILE"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help=f"Write a page for a browser: {PAGE_NAME} in this folder, or the .html file of this name.",
            metavar="PLACE",
        ),
    ] = None,
    as_json: JsonFlag = False,
    list_methods: Annotated[
        bool,
        typer.Option(
            "--list", callback=_show_methods, is_eager=True, help="List the methods and their presets, and exit."
        ),
    ] = False,
) -> None:
    """Tell which parts of a document made a model say something, and how far each method's answer can be trusted.

    What a method marks is taken away and the model is asked again: a method is more faithful than chance if that costs
    more than taking away as much at random. The text is coloured by the most faithful one.

    For example:

    attlas explain question.txt --model smollm2-135m

    attlas explain question.txt --model smollm2-135m --target "-1: Paris/ Rome" --method chefer,rollout_null

    attlas explain code.py --model smollm2-135m --target next@120 --by line --page explanation.html --out scores.parquet

    attlas explain --list
    """
    from attlas.explain.target_text import parsed_target

    place = page_file(page, PAGE_NAME)
    check_file("--out", out, "scores.parquet")
    if place is not None:
        check_folder(place.parent)
    targets = [parsed_target(one, "--target") for one in target or ["-1"]]
    _check_choices(by, removal)
    names, missing = chosen_methods(method, preset)
    for name, package in missing.items():
        print(f"attlas: {name} is left out, for it needs {package}: pip install {package}", file=sys.stderr)
    with reporting() as progress:
        # The text comes first: a wrong file should not cost the loading of a model.
        text = read_text(file)
        lm = loaded_model(model, progress)
        if method is not None and method.strip() == "all":
            names = _usable(lm, text, names)
        found = _explained(lm, text, targets, names, by, budget, removal, seed, progress)
        tests = _tested(lm, text, targets, seed, progress) if patterns else []
        _write(found, out, place, "standard input" if file == "-" else Path(file).name)
    if as_json:
        _print_json(found, tests, top)
    else:
        _print(found, tests, top, [path for path in (place, out) if path is not None])


def chosen_methods(method: str | None, preset: str | None) -> tuple[list[str], dict[str, str]]:
    """Return methods as `attlas.explain` takes them, and those that were left out for a package that is missing.

    Raises
    ------
    ArgumentError
        There is no such method, or none of them has the preset.
    """
    from attlas.explain.methods import METHODS, choices

    missing: dict[str, str] = {}
    names: list[str]
    if method is None:
        names = [*CHEAP]
    elif method.strip() == "all":
        missing = {name: package for name, package in _OPTIONAL.items() if find_spec(package) is None}
        names = [name for name in METHODS if name not in missing]
    else:
        names = [name.strip() for name in method.split(",")]
    if preset is not None:
        having = [name for name in names if name in METHODS and preset in METHODS[name].presets]
        if not having:
            known = {one: None for name in names if name in METHODS for one in METHODS[name].presets}
            wanted = f"one of {', '.join(known)}" if known else "none: these methods have no presets"
            raise ArgumentError(complaint("--preset", wanted=wanted, got=repr(preset), way_out="see --list"))
        names = [f"{name}:{preset}" if name in having else name for name in names]
    choices(names)  # a method that there is not is found out before the model is loaded
    return names, missing


def _check_choices(by: str, removal: str) -> None:
    from attlas.explain.faithfulness.removing import Removal
    from attlas.explain.spans import Spans

    units = get_args(get_args(Spans)[0])
    for option, value, known in (("--by", by, units), ("--removal", removal, get_args(Removal))):
        if value not in known:
            raise ArgumentError(complaint(option, wanted=f"one of {', '.join(known)}", got=repr(value)))


def _usable(lm: LanguageModel, text: str, names: Sequence[str]) -> list[str]:
    """Return the methods that this model can be explained by; say which cannot, and why.

    Whether a block is of the kind that a method of values was made for shows on the text's first tokens.
    """
    from attlas.explain.methods import METHODS

    beginning = lm.tokenize(text).ids[:_TRIAL]
    usable = []
    for name in names:
        reason = _refusal(lm, beginning, name) if METHODS[name].needs == "values" else ""
        instead = _OTHERWISE.get(name) if reason else name
        if instead is None:
            print(f"attlas: {name} is left out: {reason}", file=sys.stderr)
        else:
            usable.append(instead)
    return usable


def _refusal(lm: LanguageModel, ids: Sequence[int], name: str) -> str:
    """Return why a model cannot be explained by a method; empty if it can."""
    from attlas.explain.explaining import explain

    try:
        explain(lm, ids, name, budget=0)
    except UnsupportedModelError as error:
        return str(error)
    return ""


def _explained(
    lm: LanguageModel,
    text: str,
    targets: Sequence[Any],
    names: Sequence[str],
    by: str,
    budget: int | None,
    removal: str,
    seed: int,
    progress: Any,
) -> list[Attribution]:
    from attlas.explain.explaining import explain
    from attlas.explain.methods import METHODS

    passes = budget_for(len(lm.tokenize(text))) if budget is None else budget
    seeded = any("seed" in METHODS[name.partition(":")[0]].settings for name in names)
    return list(
        explain(
            lm,
            text,
            list(names),
            list(targets),
            spans=by,
            budget=passes,
            faithfulness={"removal": removal, "seed": seed},
            progress=progress,
            **({"seed": seed} if seeded else {}),
        )
    )


def _tested(lm: LanguageModel, text: str, targets: Sequence[Any], seed: int, progress: Any) -> list[PatternTests]:
    """Test for each target whether it matters where heads look."""
    from attlas.explain.faithfulness.patterns import pattern_tests

    return [pattern_tests(lm, text, target, seed=seed, progress=progress) for target in targets]


def budget_for(tokens: int) -> int:
    """Return how many forward passes a method's faithfulness may take where nobody said it."""
    return max(FEWEST, min(MOST, TOKENS // tokens))


def _write(found: Sequence[Attribution], out: Path | None, place: Path | None, title: str) -> None:
    """Write what was asked for, all of it or nothing."""
    files: dict[Path, bytes] = {}
    if out is not None:
        rows = [row for one in found for row in one.rows()]
        files[out] = parquet_of(rows, found[0].provenance, {"explanations": [_told(one) for one in found]})
    if place is not None:
        from attlas.view.explanation_page import explanation_page

        files[place] = explanation_page(found, title=title).encode("utf-8")
    if files:
        write_together(files)


def _print(found: Sequence[Attribution], tests: Sequence[PatternTests], top: int, written: Sequence[Path]) -> None:
    from attlas.cli.explained import print_explanations

    screen = console()
    if not screen.is_terminal:
        screen.width = max(screen.width, PIPE)
    print_explanations(screen, found, top)
    for one in tests:
        screen.print(f"\n{one.summary}", soft_wrap=True)
    for path in written:
        screen.print(f"written: {path}", soft_wrap=True)


def _print_json(found: Sequence[Attribution], tests: Sequence[PatternTests], top: int) -> None:
    from attlas.cli.explained import as_plain

    plain = as_plain(found, top)
    for target, one in zip(plain["targets"], tests, strict=False):
        target["patterns"] = {"summary": one.summary, "rows": one.rows()}
    print_json(plain)


def _told(one: Attribution) -> dict[str, Any]:
    """Return what a file says of an explanation beside its scores."""
    trust = None if one.faithfulness is None else [*one.faithfulness.rows()]
    return {"name": one.name, **one.about(), "faithfulness": trust}
