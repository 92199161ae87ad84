"""`attlas map`: draw the atlas of a document."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.cli.common import JsonFlag, console, print_json, reporting
from attlas.cli.reading import (
    FileArgument,
    HeadsOption,
    LayersOption,
    ModelOption,
    Read,
    WindowOption,
    check_folder,
    checked,
    numbers,
    read_document,
)
from attlas.errors import UnsupportedModelError

if TYPE_CHECKING:
    from attlas.capture import Capture

CAPTURE_NAME = "capture.attlas"


def draw_map(
    file: FileArgument,
    model: ModelOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to write to; made if it is missing.", metavar="DIR")
    ],
    layers: LayersOption = None,
    heads: HeadsOption = None,
    window: WindowOption = None,
    save_capture: Annotated[
        bool,
        typer.Option("--save-capture", help=f"Write {CAPTURE_NAME} too: the matrices themselves, to be opened later."),
    ] = False,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Measure what the heads do and what their weights hold, for each head's card."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Draw the attention of every layer and head of a model on a document.

    Writes atlas.html (one page that works offline), atlas.png (the same as a picture) and heads.parquet (a row of
    numbers for every head).

    For example:

    attlas map paper.txt --model smollm2-135m --out atlas

    attlas map paper.txt --model smollm2-135m --out atlas --layers 0-5,7

    git log | attlas map - --model minilm-l6 --out atlas --window 512
    """
    began = time.monotonic()
    chosen = {"layers": numbers("--layers", layers), "heads": numbers("--heads", heads)}
    check_folder(out)
    name = "standard input" if file == "-" else Path(file).name
    reports: list[dict[str, Any]] = []
    with reporting() as progress:
        read = read_document(file, model, window, progress, **chosen)
        parts = read.captures
        known = _known(read, progress) if roles else {}
        for i, cap in enumerate(parts):
            alone = len(parts) == 1
            place = out if alone else out / f"part-{i + 1:0{len(str(len(parts)))}d}"
            title = name if alone else f"{name}, part {i + 1} of {len(parts)}"
            reports.append(_draw(cap, place, title, save_capture, known, progress))
    seconds = time.monotonic() - began
    if as_json:
        print_json(
            {"document": name, "model": parts[0].provenance.model, "seconds": round(seconds, 2), "parts": reports}
        )
        return
    for report in reports:
        _tell(report)
    console().print(f"{seconds:,.1f} seconds in all")


def _known(read: Read, progress: Any) -> dict[str, Any]:
    """Measure what the heads do, and compute what their weights hold; what cannot be viewed is said and left out."""
    from attlas.heads import heads
    from attlas.projections import projections
    from attlas.projections.table import projection_table

    known: dict[str, Any] = {"roles": heads(read.model, progress=progress)}
    try:
        views = projections(read.model, progress=progress)
    except UnsupportedModelError as error:
        print(f"attlas: the cards show no projections: {error}", file=sys.stderr)
        return known
    # What was read last, or the last part of it, shows which offsets the heads really attend to.
    return {**known, "table": projection_table(views, read.captures[-1], progress=progress)}


def _draw(
    cap: Capture, place: Path, title: str, save_capture: bool, known: dict[str, Any], progress: Any
) -> dict[str, Any]:
    """Check, measure and draw one capture; return what was done as plain types."""
    from attlas.heads import head_statistics
    from attlas.view import write_atlas

    progress(0, 1, "checking")
    error = checked(cap)
    statistics = head_statistics(cap, progress=progress)
    files = write_atlas(statistics, place, title=title, error=error, progress=progress, **known)
    written = dict(files.sizes)
    if save_capture:
        progress(0, 1, "saving the capture")
        path = cap.save(place / CAPTURE_NAME)
        written[str(path)] = path.stat().st_size
    return {
        "title": title,
        "files": written,
        "tokens": None if cap.tokens is None else len(cap.tokens),
        "layers": len(cap),
        "matrices": len(statistics),
        "held_bytes": cap.nbytes,
        "dense_bytes": sum(len(layer.heads) * layer.shape[0] * layer.shape[1] * 4 for layer in statistics.layers),
        "worst_relative_error": error,
    }


def _tell(report: dict[str, Any]) -> None:
    out = console()
    tokens = "" if report["tokens"] is None else f", {report['tokens']:,} tokens"
    out.print(f"{report['title']}: {report['layers']} layers, {report['matrices']} heads{tokens}", soft_wrap=True)
    for path, size in report["files"].items():
        out.print(f"  {path}  {size_of(size)}", soft_wrap=True)
    held, dense = report["held_bytes"], report["dense_bytes"]
    ratio = (
        f", 1/{dense / held:,.0f} of what the dense matrices would take ({size_of(dense)})" if dense > 2 * held else ""
    )
    out.print(f"  {size_of(held)} held{ratio}", soft_wrap=True)
    out.print(
        f"  worst relative error against the model's own output: {report['worst_relative_error']:.1e}", soft_wrap=True
    )


def size_of(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"
