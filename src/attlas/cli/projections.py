"""`attlas projections`: what each head's weights can do, and which heads feed which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas._writing import write_together
from attlas.cli.circuits import circuit_as_json, print_circuit
from attlas.cli.common import JsonFlag, console, print_json, reporting
from attlas.cli.projection_tables import print_projections, strongest
from attlas.cli.reading import check_file, check_folder, loaded_model, page_file
from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.capture import LanguageModel
    from attlas.heads.role_table import HeadTable
    from attlas.projections import Projections
    from attlas.projections.composing import Edge
    from attlas.projections.table import ProjectionTable

PAGE_NAME = "projections.html"
READ = 256
"""Tokens of our own sentences on which preferred offsets are measured."""

TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="With --layer and --head: which tokens the head would look for when this one asks, and which it would "
        "write on attending to it. Mind the space in front.",
        metavar="WORD",
    ),
]


@dataclass(frozen=True)
class Found:
    """What was computed.

    Parameters
    ----------
    projections : Projections
        The views.
    error : float
        Their worst relative error.
    table : ProjectionTable
        A row a head.
    roles : HeadTable, optional
        What the heads do.
    """

    projections: Projections
    error: float
    table: ProjectionTable
    roles: HeadTable | None


def tell_projections(
    model: Annotated[
        str, typer.Argument(help="A bundled model, a Hugging Face id, or a local folder.", metavar="MODEL")
    ],
    text: Annotated[
        str | None,
        typer.Option("--text", help="Measure preferred offsets on this text, not on one of our own.", metavar="FILE"),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many lines in each table.", min=1)] = 8,
    roles: Annotated[
        bool, typer.Option("--roles", help="Measure what the heads do as well, and show it on the page.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write a row for every head to this file.", metavar="FILE.parquet"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help=f"Write a page for a browser: {PAGE_NAME} in this folder, or the .html file of this name.",
            metavar="PLACE",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only print how exactly each layer's views give the model's own tensors.")
    ] = False,
    token: TokenOption = None,
    layer: Annotated[int | None, typer.Option("--layer", help="The head's layer, for --token.", min=0)] = None,
    head: Annotated[int | None, typer.Option("--head", help="The head, for --token.", min=0)] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", help="For --token: how many tokens before it the others stand.")
    ] = None,
    with_mlp: Annotated[
        bool, typer.Option("--with-mlp", help="For --token: take tokens as the first MLP leaves them.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print what the projection matrices of each head can do, beside what random weights would give.

    W_Q·W_Kᵀ says what a head looks for, W_V·W_O what it passes on; both are kept as thin factors. The views are proved
    on a short run of the model: they give the very queries, keys and values that its attention was given.

    For example:

    attlas projections smollm2-135m

    attlas projections smollm2-135m --page atlas --out projections.parquet

    attlas projections smollm2-135m --token " cat" --layer 18 --head 6
    """
    place = page_file(page, PAGE_NAME)
    check_file("--out", out, "projections.parquet")
    if place is not None:
        check_folder(place.parent)
    alone = {"--token": token is not None, "--verify": verify}
    others = {"--out": out is not None, "--page": place is not None, "--roles": roles}
    _refuse_together(alone, others)
    asked = _asked(token, layer, head, {"--offset": offset is not None, "--with-mlp": with_mlp})
    if asked is not None:
        _tell_token(model, asked, top, offset or 0, with_mlp, as_json)
    elif verify:
        _tell_errors(model, as_json)
    else:
        _tell_table(model, text, top, roles, out, place, as_json)


def _refuse_together(alone: dict[str, bool], others: dict[str, bool]) -> None:
    """Refuse options that ask for different things at once."""
    given = [option for option, there in {**alone, **others}.items() if there]
    for option, there in alone.items():
        if there and len(given) > 1:
            more = ", ".join(other for other in given if other != option)
            raise ArgumentError(complaint(option, wanted="it alone", got=f"{more} beside it", way_out="run it twice"))


def _asked(
    token: str | None, layer: int | None, head: int | None, others: dict[str, bool]
) -> tuple[str, int, int] | None:
    """Return the token and the head that it is asked of."""
    if token is None:
        given = {"--layer": layer is not None, "--head": head is not None, **others}
        for option, there in given.items():
            if there:
                raise ArgumentError(complaint(option, wanted="--token beside it", got="none"))
        return None
    if layer is None or head is None:
        missing = "--layer" if layer is None else "--head"
        raise ArgumentError(complaint(missing, wanted="the head that --token is asked of", got="none"))
    return token, layer, head


def _views(model: str, progress: Any) -> Projections:
    from attlas.projections import projections

    return projections(loaded_model(model, progress), progress=progress)


def _tell_token(model: str, asked: tuple[str, int, int], top: int, offset: int, with_mlp: bool, as_json: bool) -> None:
    token, layer, head = asked
    with reporting() as progress:
        from attlas.projections.vocabulary_circuits import vocabulary

        views = _views(model, progress)
        circuit = vocabulary(views, layer, head, token, top=top, offset=offset, with_mlp=with_mlp, progress=progress)
    if as_json:
        print_json(circuit_as_json(circuit))
    else:
        print_circuit(console(), circuit)


def _tell_errors(model: str, as_json: bool) -> None:
    with reporting() as progress:
        views = _views(model, progress)
        errors = views.verify()
    rows = [{"layer": view.layer, "module": view.name, "worst_relative_error": errors[view.layer]} for view in views]
    if as_json:
        print_json(rows)
        return
    out = console()
    for row in rows:
        out.print(f"{row['layer']:>4}  {row['worst_relative_error']:.1e}  {row['module']}", soft_wrap=True)
    out.print(f"worst relative error of queries, keys, values and outputs: {max(errors.values()):.1e}", soft_wrap=True)


def _tell_table(
    model: str, text: str | None, top: int, roles: bool, out: Path | None, place: Path | None, as_json: bool
) -> None:
    with reporting() as progress:
        found = _find(model, text, roles, progress)
        files: dict[Path, bytes] = {}
        if out is not None:
            files[out] = found.table.parquet()
        if place is not None:
            from attlas.view import projections_html

            progress(0, 1, "drawing")
            files[place] = projections_html(found.projections, found.table, found.roles, error=found.error).encode(
                "utf-8"
            )
        if files:
            write_together(files)
    if as_json:
        print_json(_as_json(found, top))
        return
    _print(found, top)
    for path in files:
        console().print(f"written: {path}", soft_wrap=True)


def _find(model: str, text: str | None, roles: bool, progress: Any) -> Found:
    written = None
    if text is not None:
        from attlas.models.document import read_text

        written = read_text(text)
    views = _views(model, progress)
    from attlas.projections.table import projection_table

    error = max(views.verify().values())
    table = projection_table(views, written or _own_text(views.lm), progress=progress)
    measured = None
    if roles and views.lm is not None:
        from attlas.heads import heads

        measured = heads(views.lm, progress=progress)
    return Found(views, error, table, measured)


def _own_text(reader: LanguageModel | None) -> str | None:
    """Return sentences of our own, as many as fill `READ` tokens or the model's positions."""
    if reader is None or reader.tokenizer is None:
        return None
    from attlas.heads import sentences

    made = sentences(count=READ // 8)
    room = min(READ, reader.facts.positions or READ)
    text = ""
    for i in range(len(made.sentences)):
        longer = f"{text} {made.text(i)}".strip()
        if len(reader.tokenize(longer).ids) > room:
            break
        text = longer
    return text or None


def _as_json(found: Found, top: int) -> dict[str, Any]:
    counts = found.projections.counts()
    return {
        "model": found.projections.provenance.model,
        "fingerprint": found.projections.provenance.fingerprint,
        "parameters": {**counts.by_projection(), "projections": counts.total, "model": counts.model},
        "worst_relative_error": found.error,
        "heads": found.table.rows(),
        "compositions": [_edge_as_json(edge) for edge in strongest(found.table, top)],
        "reasons": dict(found.table.reasons),
        **({} if found.roles is None else {"roles": found.roles.rows()}),
    }


def _edge_as_json(edge: Edge) -> dict[str, Any]:
    (source_layer, source_head), (target_layer, target_head) = edge.source, edge.target
    return {
        "source_layer": source_layer,
        "source_head": source_head,
        "target_layer": target_layer,
        "target_head": target_head,
        "kind": edge.kind,
        "score": edge.score,
        "z": edge.z,
    }


def _print(found: Found, top: int) -> None:
    out = console()
    views = found.projections
    shapes = {(view.heads, view.kv_heads, view.dim) for view in views}
    heads = f"{len(views)} layers, {len(views.heads)} heads"
    if len(shapes) == 1:
        ((each, kv_heads, dim),) = shapes
        shared = "" if kv_heads == each else f", {kv_heads} of keys and values"
        heads = f"{len(views)} layers of {each} heads{shared}, width {dim} of {views.views[0].d_model}"
    out.print(f"{views.provenance.model}: {heads}", soft_wrap=True)
    counts = views.counts()
    parts = ", ".join(f"{name} {millions(count)}" for name, count in counts.by_projection().items())
    share = f"{100 * counts.share:.1f} % of the model's {millions(counts.model)}"
    out.print(f"{parts}: {millions(counts.total)} parameters, {share}", soft_wrap=True)
    out.print(f"worst relative error of the views: {found.error:.1e}", soft_wrap=True)
    print_projections(out, found.table, top)


def millions(count: int) -> str:
    """Return a number of parameters as people read it."""
    return f"{count / 1e6:,.1f} M" if count >= 10**6 else f"{count:,}"
