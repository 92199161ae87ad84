"""Patterns as they are written on the command line: ``sliding_window:width=256,sinks=4``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
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
    from attlas.patterns.registry import KINDS, from_settings

    kind, _, rest = text.partition(":")
    kind = kind.strip()
    if kind not in KINDS:
        raise ArgumentError(complaint("--pattern", wanted=f"one of {', '.join(sorted(KINDS))}", got=repr(text)))
    settings: dict[str, Any] = {}
    for part in rest.split(",") if rest.strip() else ():
        name, equals, value = part.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ArgumentError(complaint("--pattern", wanted=f"settings as in {FORM}", got=repr(text)))
        settings[name.strip()] = _value(value.strip())
    known = signature(KINDS[kind]).parameters
    missing = [name for name, one in known.items() if one.default is one.empty and name not in settings]
    if missing or not settings.keys() <= known.keys():
        raise ArgumentError(complaint("--pattern", wanted=_wanted(kind, known), got=repr(text)))
    try:
        return from_settings(kind, settings)
    except (ArgumentError, TypeError, KeyError) as error:
        raise ArgumentError(
            complaint("--pattern", wanted=f"a pattern, such as {FORM}", got=f"{text!r} ({error})")
        ) from error


def _wanted(kind: str, known: Mapping[str, Parameter]) -> str:
    """Say what settings a kind has, and which of them it needs."""
    if not known:
        return f"{kind} without settings"
    needed = [name for name, one in known.items() if one.default is one.empty]
    others = [name for name in known if name not in needed]
    parts = [f"with {' and '.join(needed)}"] if needed else []
    parts += [f"if wanted with {', '.join(others)}"] if others else []
    return f"{kind} {', '.join(parts)}"


def _value(text: str) -> Any:
    """Return a number, or a list of them with + in between; else the text itself."""
    if "+" in text.strip("+"):
        return [_value(part) for part in text.split("+")]
    try:
        return json.loads(text)
    except ValueError:
        return text
