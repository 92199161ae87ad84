"""Targets as people write them: ``-1``, ``-1: Paris``, ``-1: Paris/ Rome``, ``next@120``, ``label:1``."""

from __future__ import annotations

import re
from typing import Any

from attlas.errors import ArgumentError, complaint
from attlas.explain.targets import Target

_FORMS = '-1, "-1: Paris", "-1: Paris/ Rome", next@120 or label:1'


def parsed_target(text: str, argument: str = "target") -> Any:
    """Return a target as `attlas.explain` takes it.

    Parameters
    ----------
    text : str
        A position, such as ``-1``; with a token behind a colon, spaces included; with a second one behind ``/`` for
        the difference of the two; ``next@120`` for the token that really follows; ``label:1`` for a class.
    argument : str
        What an error calls it.

    Raises
    ------
    ArgumentError
        It is none of these.
    """
    if match := re.fullmatch(r"label:\s*([0-9]{1,6})\s*", text):
        return Target.label(int(match[1]))
    if match := re.fullmatch(r"next@\s*(-?[0-9]{1,9})\s*", text):
        return (int(match[1]), "next")
    if match := re.fullmatch(r"\s*(-?[0-9]{1,9})\s*", text):
        return int(match[1])
    if match := re.fullmatch(r"\s*(-?[0-9]{1,9}):(.+)", text, re.DOTALL):
        position, tokens = int(match[1]), match[2]
        pair = re.fullmatch(r"([^/]+)/([^/]+)", tokens, re.DOTALL)
        named = pair.groups() if pair else (tokens,)
        if named == ("next",):  # attlas.explain would take it for the token that follows
            raise ArgumentError(complaint(argument, wanted="a token other than next", got=repr(text)))
        return (position, *named)
    raise ArgumentError(complaint(argument, wanted=f"one of the forms {_FORMS}", got=repr(text)))
