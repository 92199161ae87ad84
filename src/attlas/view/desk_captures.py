"""What there is to see: the captures, their layers and heads, their tokens, and how it may be drawn."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attlas import __version__
from attlas.capture import Capture
from attlas.errors import ArgumentError
from attlas.heads import STATISTICS
from attlas.view.colours import NAMES, colour_table
from attlas.view.desk import Answer, NoSuchPath, Request, Service
from attlas.view.tiles.grid import Grid
from attlas.view.tiles.pyramid import REDUCERS

if TYPE_CHECKING:
    from attlas.capture import LanguageModel

ALPHABET = "abcdefghijklmnopqrstuvwxyz"

SUGGESTED = (
    ("full", "all keys"),
    ("sliding_window:width=256,sinks=4", "window of 256, 4 sinks"),
    ("sliding_window:width=1024,sinks=4", "window of 1,024, 4 sinks"),
    ("block_sparse:block=64,local=4,stride=8", "block sparse, 64"),
    ("bigbird:block=64", "BigBird, 64"),
    ("linear", "linear (elu)"),
)
"""Patterns that a page offers to choose from: their spelling, and what they are called."""


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A capture to be shown.

    Parameters
    ----------
    capture : Capture
    title : str
        What it is called, such as a file's name.
    error : float, optional
        The worst relative error against the model's own output; None where it was not checked.
    model : LanguageModel, optional
        Who read it, if it is at hand.
    """

    capture: Capture
    title: str
    error: float | None = None
    model: LanguageModel | None = None


def named(exhibits: Sequence[Exhibit]) -> dict[str, Exhibit]:
    """Give exhibits their names: a, b, …, z, aa, ab and so on.

    Raises
    ------
    ArgumentError
        There are none, or one of them is empty.
    """
    if not exhibits or any(not len(exhibit.capture) for exhibit in exhibits):
        raise ArgumentError("captures: wanted at least one, and layers in each, got none")
    return {_name(i): exhibit for i, exhibit in enumerate(exhibits)}


def captures_service(exhibits: dict[str, Exhibit]) -> Service:
    """Return the service of ``/api/tokens``, and of most of ``/api/atlas``."""
    described = [_described(name, exhibit) for name, exhibit in exhibits.items()]
    colours = {name: base64.b64encode(colour_table(name).tobytes()).decode("ascii") for name in NAMES}

    def tokens(request: Request) -> Answer:
        (name,) = request.expect("capture")
        return Answer.of({"tokens": exhibit_of(exhibits, name).capture.tokens, "kinds": None})

    def atlas() -> dict[str, Any]:
        return {
            "version": __version__,
            "captures": described,
            "statistics": [vars(statistic) for statistic in STATISTICS],
            "reducers": list(REDUCERS),
            "patterns": [{"spec": spec, "label": label} for spec, label in SUGGESTED],
            "colours": colours,
        }

    return Service({"tokens": tokens}, atlas, exhibits.clear)


def exhibit_of(exhibits: dict[str, Exhibit], name: str) -> Exhibit:
    """Return the exhibit of a name.

    Raises
    ------
    NoSuchPath
        There is none.
    """
    if name not in exhibits:
        raise NoSuchPath(f"capture: wanted {' or '.join(exhibits)}, got {name[:40]!a}")
    return exhibits[name]


def _name(index: int) -> str:
    last = ALPHABET[index % len(ALPHABET)]
    return last if index < len(ALPHABET) else _name(index // len(ALPHABET) - 1) + last


def _described(name: str, exhibit: Exhibit) -> dict[str, Any]:
    cap = exhibit.capture
    layers = []
    for number, module in zip(cap.layers, cap.names, strict=True):
        matrix = cap[number]
        rules = matrix.visibility
        layers.append(
            {
                "layer": number,
                "name": module,
                "heads": list(cap.heads(number)),
                "queries": matrix.shape[2],
                "keys": matrix.shape[3],
                "levels": Grid(*matrix.shape[2:]).levels,
                "causal": rules.causal,
                "window": rules.window,
            }
        )
    return {
        "id": name,
        "title": exhibit.title,
        "model": cap.provenance.model,
        "kind": "document" if cap.text is not None else "run",
        "tokens": None if cap.tokens is None else len(cap.tokens),
        "text": cap.text is not None,
        "error": exhibit.error,
        "layers": layers,
    }
