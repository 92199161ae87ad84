"""`attlas heads`: what each head does, how sure that is, and where its attention goes on a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas._tables import parquet_of
from attlas._writing import write_together
from attlas.cli.common import JsonFlag, console, print_json, reporting
from attlas.cli.rankings import average, print_rankings
from attlas.cli.reading import (
    HeadsOption,
    LayersOption,
    WindowOption,
    check_file,
    checked,
    loaded_model,
    numbers,
    read_document,
)
from attlas.cli.roles import print_best, print_predictions, print_roles
from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.capture import LanguageModel
    from attlas.heads import HeadStatistics
    from attlas.heads.role_table import HeadTable


@dataclass(frozen=True)
class Found:
    """What was measured.

    Parameters
    ----------
    model : str
        Its name.
    roles : HeadTable, optional
        What the heads do.
    parts : sequence of HeadStatistics
        Where attention goes on the document, for each part of it.
    rows : list of dict
        A row a head (and part), as plain types.
    """

    model: str
    roles: HeadTable | None
    parts: Sequence[HeadStatistics]
    rows: list[dict[str, Any]]


def tell_heads(
    model_or_file: Annotated[
        str, typer.Argument(help="A bundled model, a Hugging Face id, or a local folder.", metavar="MODEL")
    ],
    file: Annotated[
        str | None, typer.Argument(help="A UTF-8 text file, or - for standard input.", metavar="[FILE]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="With it, the argument is the file, and no roles are measured.", metavar="MODEL"
        ),
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", help="List the best heads of this role.", metavar="NAME")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many heads in each list.", min=1)] = 8,
    layers: LayersOption = None,
    heads: HeadsOption = None,
    window: WindowOption = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            "--sentences",
            help="Measure relations on this treebank instead of our own sentences.",
            metavar="FILE.conllu",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn at random.", min=0)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write the numbers of every head to this Parquet file.", metavar="FILE.parquet"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print what each head does: its role, the score with its interval, and the baseline that it has to beat.

    Roles are measured on behaviour: on repeated random tokens, planted sentences and labelled words, and with a FILE on
    that text as well. Of each role, the best head is chosen on one half of the examples and reported on the other.

    With a FILE, tables of the most local, most sink-bound, most spread and most long-range heads follow; their numbers
    are exact, and stand beside those of an even spread over the visible keys.

    For example:

    attlas heads smollm2-135m

    attlas heads smollm2-135m paper.txt --role induction

    attlas heads smollm2-135m --json | jq '.[] | select(.role == "induction") | [.layer, .head]'

    attlas heads paper.txt --model smollm2-135m --out heads.parquet
    """
    name, document = _which(model_or_file, file, model)
    check_file("--out", out, "heads.parquet")
    chosen = {"layers": numbers("--layers", layers), "heads": numbers("--heads", heads)}
    if window is not None and model is None:
        wanted = "--model beside it: roles are measured on a text that is read at once"
        raise ArgumentError(complaint("--window", wanted=wanted, got="none"))
    if model is not None and (role is not None or sentences is not None):
        option = "--role" if role is not None else "--sentences"
        way_out = f"write: attlas heads {name} {document}"
        raise ArgumentError(complaint(option, wanted="roles to be measured", got="--model", way_out=way_out))
    with reporting() as progress:
        labelled = _labelled(sentences)
        if role is not None:
            _check_name(role, labelled)
        reader, text, parts = _statistics(name, document, window, progress, chosen)
        roles = None
        if model is None:
            from attlas.heads import heads as measured_roles

            roles = measured_roles(reader, text, seed=seed, sentences=labelled, progress=progress)
            if role is not None:
                _check_role(roles, role)
        found = Found(name, roles, parts, _rows(roles, parts, chosen))
        if out is not None:
            write_together({out: _parquet(found)})
    if as_json:
        print_json(found.rows)
        return
    _print(found, role, top)
    if out is not None:
        console().print(f"\n{len(found.rows):,} rows are in {out}", soft_wrap=True)


def _which(first: str, second: str | None, model: str | None) -> tuple[str, str | None]:
    """Return the model and the file, whichever way they were given."""
    if model is None:
        if second is None and (first == "-" or Path(first).is_file()):
            way_out = f"write: attlas heads MODEL {first}"
            raise ArgumentError(
                complaint("MODEL", wanted="a model's name or folder", got=f"a file, {first}", way_out=way_out)
            )
        return first, second
    if second is not None:
        raise ArgumentError(
            complaint("--model", wanted="one file and --model, or a model and a file", got=f"{first} and {second}")
        )
    return model, first


def _labelled(path: Path | None) -> Any:
    if path is None:
        return None
    from attlas.heads.relations.labelled import LabelledPairs

    return LabelledPairs.from_conllu(path)


def _statistics(
    name: str, document: str | None, window: int | None, progress: Any, chosen: dict[str, list[int] | None]
) -> tuple[LanguageModel, str | None, list[HeadStatistics]]:
    """Load the model, and measure the document if there is one."""
    if document is None:
        return loaded_model(name, progress, **chosen), None, []
    read = read_document(document, name, window, progress, **chosen)
    from attlas.heads import head_statistics

    parts = []
    for cap in read.captures:
        checked(cap)
        parts.append(head_statistics(cap, progress=progress))
    return read.model, read.text, parts


def _check_name(name: str, labelled: Any) -> None:
    """Refuse a name that no role has, before anything is measured."""
    from attlas.heads.relations.grammar import RELATIONS
    from attlas.heads.roles import BY_NAME

    relations = [relation.name for relation in RELATIONS] if labelled is None else labelled.relations
    if name not in (*BY_NAME, *relations) and name.removesuffix(" relation") not in relations:
        wanted = f"one of {', '.join((*BY_NAME, *relations))}"
        raise ArgumentError(complaint("--role", wanted=wanted, got=repr(name)))


def _check_role(roles: HeadTable, name: str) -> None:
    if name not in roles.scores:
        raise ArgumentError(
            complaint("--role", wanted=f"one of {', '.join(roles.scores)}", got=roles.missing.get(name, repr(name)))
        )


def _rows(
    roles: HeadTable | None, parts: Sequence[HeadStatistics], chosen: dict[str, list[int] | None]
) -> list[dict[str, Any]]:
    """Return a row a head; of several parts without roles, a row for each part."""
    several = len(parts) > 1
    measured = [{"part": i, **row} if several else row for i, part in enumerate(parts) for row in part.rows()]
    if roles is None:
        return measured
    at = {(row["layer"], row["head"]): row for row in measured}
    layers, heads = chosen["layers"], chosen["heads"]
    return [
        {**row, **at.get((row["layer"], row["head"]), {})}
        for row in roles.rows()
        if (layers is None or row["layer"] in layers) and (heads is None or row["head"] in heads)
    ]


def _parquet(found: Found) -> bytes:
    """Return the rows as a file that says what they mean."""
    tables = [table for table in (found.roles, *found.parts[:1]) if table is not None]
    about = {name: value for table in tables for name, value in table.about().items()}
    return parquet_of(found.rows, tables[0].provenance, about)


def _print(found: Found, role: str | None, top: int) -> None:
    out = console()
    tokens = sum(len(part.tokens or ()) for part in found.parts)
    where = f", on {tokens:,} tokens" if tokens else ""
    split = f" in {len(found.parts)} parts, averaged" if len(found.parts) > 1 else ""
    rows = average(found.rows) if found.roles is None and len(found.parts) > 1 else found.rows
    name = found.roles.provenance.model if found.roles is not None else found.parts[0].provenance.model
    out.print(f"{name or found.model}: {len(rows)} heads{where}{split}", soft_wrap=True)
    if found.roles is not None and role is not None:
        print_best(out, found.roles, role, top)
        return
    if found.roles is not None:
        print_roles(out, found.roles, rows)
        print_predictions(out, found.roles)
    if found.parts:
        print_rankings(out, rows, top)
