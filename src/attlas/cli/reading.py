"""What the verbs that read a document share: their arguments, the reading, and the proof that it can be trusted."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.errors import ArgumentError, CaptureError, StoreError, complaint

if TYPE_CHECKING:
    from attlas.capture import Capture, LanguageModel

LARGEST_NUMBER = 9999
CHECKED_ROWS = 16

FileArgument = Annotated[str, typer.Argument(help="A UTF-8 text file, or - for standard input.", metavar="FILE")]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A bundled model, a Hugging Face id, or a local folder.", metavar="MODEL")
]
LayersOption = Annotated[
    str | None, typer.Option("--layers", help="Only these layers, for example 0-5,7.", metavar="LIST")
]
HeadsOption = Annotated[
    str | None, typer.Option("--heads", help="Only these heads of each layer, for example 0,3-4.", metavar="LIST")
]
WindowOption = Annotated[
    int | None,
    typer.Option(
        "--window",
        help="Read the text in parts of N tokens, each on its own, when it is longer than the model's positions.",
        metavar="N",
        min=1,
    ),
]


def numbers(option: str, text: str | None) -> list[int] | None:
    """Return the numbers that a list such as ``0-5,7`` names, each once and in order; None for None.

    Raises
    ------
    ArgumentError
        It is not such a list.
    """
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ArgumentError(
                complaint(option, wanted=f"numbers and spans from 0 to {LARGEST_NUMBER}, as in 0-5,7", got=repr(text))
            )
        found.update(range(first, last + 1))
    return sorted(found)


def check_folder(folder: Path) -> None:
    """Find out before long work that a folder cannot be written.

    Raises
    ------
    StoreError
        It, or the nearest of its parents that exists, is a file or may not be written.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise StoreError(f"{nearest}: wanted a folder to write to, got a file; choose another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(f"{nearest}: may not be written; choose a folder that can be")


@dataclass(frozen=True)
class Read:
    """What came of reading a document.

    Parameters
    ----------
    model : LanguageModel
        The reader.
    text : str
        The document.
    captures : sequence of Capture
        One, or with a window one for each part.
    """

    model: LanguageModel
    text: str
    captures: Sequence[Capture]


def read_document(
    file: str, model: str, window: int | None, progress: Any, *, layers: list[int] | None, heads: list[int] | None
) -> Read:
    """Read a file with a model.

    Raises
    ------
    DocumentError, ModelNotFound, ArgumentError
        The file, the model, or the choice of layers or heads does not fit; found out before the model runs, where that
        is possible.
    """
    from attlas.models.document import read_text

    # The text comes first: a wrong file should not cost the loading of a model.
    text = read_text(file)
    loaded = loaded_model(model, progress, layers=layers, heads=heads)
    if window is None:
        return Read(loaded, text, [loaded.read(text, progress=progress, layers=layers, heads=heads)])
    return Read(loaded, text, loaded.read(text, window=window, progress=progress, layers=layers, heads=heads))


def loaded_model(
    model: str, progress: Any, *, layers: list[int] | None = None, heads: list[int] | None = None
) -> LanguageModel:
    """Load a model that has the layers and heads that were asked for.

    Raises
    ------
    ModelNotFound, ArgumentError
        There is no such model, or it has fewer layers or heads.
    """
    from attlas.capture import load

    loaded = load(model, progress=progress)
    for option, chosen, limit in (("--layers", layers, loaded.facts.layers), ("--heads", heads, loaded.facts.heads)):
        if chosen and limit and chosen[-1] >= limit:
            raise ArgumentError(complaint(option, wanted=f"numbers from 0 to {limit - 1}", got=chosen[-1]))
    return loaded


def check_file(option: str, path: Path | None, example: str) -> None:
    """Find out before long work that a file cannot be written.

    Raises
    ------
    StoreError
        It is a folder, or its folder may not be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise StoreError(f"{option}: wanted a file's name, got the folder {path}; give for example {path / example}")
    check_folder(path.parent)


def page_file(place: Path | None, usual: str) -> Path | None:
    """Return a page's file: the .html file that was named, or the one of the usual name in the folder that was."""
    if place is None:
        return None
    named = place.suffix.lower() in (".html", ".htm") and not place.is_dir()
    return place if named else place / usual


def checked(cap: Capture) -> float:
    """Return the worst relative error against the model's own output, on some rows of every layer and head.

    Raises
    ------
    CaptureError
        It is more than rounding explains: the capture would mislead.
    """
    worst = 0.0
    for number, calls in cap.stored_layers().items():
        for layer in calls:
            error, tolerance = layer.error(CHECKED_ROWS)
            if not error <= tolerance:
                raise CaptureError(
                    f"layer {number} ({layer.name}): what was captured gives the model's own attention output only to "
                    f"{error:.1e}, where rounding explains {tolerance:.1e}; nothing was written, for it would mislead"
                )
            worst = max(worst, error)
    return worst
