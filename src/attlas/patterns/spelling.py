"""Patterns as people write them: ``sliding_window:width=256,sinks=4``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from attlas.errors import ArgumentError, complaint
from attlas.patterns.pattern import Pattern
from attlas.patterns.registry import KINDS, from_settings

FORM = "sliding_window:width=256,sinks=4"


def spelt(text: str, *, argument: str = "pattern") -> Pattern:
    """Return the pattern that a text such as ``sliding_window:width=256,sinks=4`` names.

    Parameters
    ----------
    text : str
        Its kind and, after a colon, its settings; several numbers are joined by a plus.
    argument : str
        What an error calls the text.

    Raises
    ------
    ArgumentError
        It names none.
    """
    kind, _, rest = text.partition(":")
    kind = kind.strip()
    if kind not in KINDS:
        raise ArgumentError(complaint(argument, wanted=f"one of {', '.join(sorted(KINDS))}", got=repr(text)))
    settings: dict[str, Any] = {}
    for part in rest.split(",") if rest.strip() else ():
        name, equals, value = part.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ArgumentError(complaint(argument, wanted=f"settings as in {FORM}", got=repr(text)))
        settings[name.strip()] = _value(value.strip())
    known = signature(KINDS[kind]).parameters
    missing = [name for name, one in known.items() if one.default is one.empty and name not in settings]
    if missing or not settings.keys() <= known.keys():
        raise ArgumentError(complaint(argument, wanted=_wanted(kind, known), got=repr(text)))
    try:
        return from_settings(kind, settings)
    except (ArgumentError, TypeError, KeyError) as error:
        raise ArgumentError(
            complaint(argument, wanted=f"a pattern, such as {FORM}", got=f"{text!r} ({error})")
        ) from error


def spelling(pattern: Pattern) -> str:
    """Return the text that names a pattern: what `spelt` makes the same pattern of.

    Learned feature maps have no spelling of their own.
    """
    settings = ",".join(f"{name}={_text(value)}" for name, value in pattern.settings().items())
    return f"{pattern.kind}:{settings}" if settings else pattern.kind


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


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
    except (ValueError, RecursionError):
        return text
