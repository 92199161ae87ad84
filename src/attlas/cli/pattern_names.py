"""The option that names a pattern on the command line, as ``sliding_window:width=256,sinks=4``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from attlas.patterns import Pattern

FORM = "sliding_window:width=256,sinks=4"

PatternOption = Annotated[
    list[str] | None,
    typer.Option("--pattern", "-p", help=f"A pattern to try, as {FORM}. Can be repeated.", metavar="PATTERN"),
]


def parsed_patterns(texts: Sequence[str] | None) -> list[Pattern] | None:
    """Return the patterns that were named; None if none was.

    Raises
    ------
    ArgumentError
        One of them is no pattern.
    """
    return [parsed_pattern(text) for text in texts] if texts else None


def parsed_pattern(text: str) -> Pattern:
    """Return the pattern that a text such as ``sliding_window:width=256,sinks=4`` names.

    Raises
    ------
    ArgumentError
        It names none.
    """
    from attlas.patterns.spelling import spelt

    return spelt(text, argument="--pattern")
