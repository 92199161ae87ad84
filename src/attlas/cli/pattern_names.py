"""Patterns as they are written on the command line: ``sliding_window:width=256,sinks=4``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.errors import ArgumentError, complaint

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
    from attlas.patterns.registry import from_settings

    kind, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in rest.split(",") if rest.strip() else ():
        name, equals, value = part.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ArgumentError(complaint("--pattern", wanted=f"settings as in {FORM}", got=repr(text)))
        settings[name.strip()] = _value(value.strip())
    try:
        return from_settings(kind.strip(), settings)
    except (ArgumentError, TypeError, KeyError) as error:
        raise ArgumentError(
            complaint("--pattern", wanted=f"a pattern, such as {FORM}", got=f"{text!r} ({error})")
        ) from error


def _value(text: str) -> Any:
    """Return a number, or a list of them with + in between; else the text itself."""
    if "+" in text.strip("+"):
        return [_value(part) for part in text.split("+")]
    try:
        return json.loads(text)
    except ValueError:
        return text
