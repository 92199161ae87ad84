"""Every kind of pattern by its name, and a pattern from what a plan's file says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attlas.errors import ArgumentError, complaint
from attlas.patterns.bigbird import BigBird
from attlas.patterns.block_sparse import BlockSparse
from attlas.patterns.dilated import Dilated
from attlas.patterns.full import Full
from attlas.patterns.global_tokens import GlobalTokens
from attlas.patterns.linear import Linear
from attlas.patterns.low_rank import LowRank
from attlas.patterns.pattern import Pattern
from attlas.patterns.vertical_slash import VerticalSlash
from attlas.patterns.window import SlidingWindow

KINDS: dict[str, type[Pattern]] = {
    kind.kind: kind
    for kind in (Full, SlidingWindow, Dilated, GlobalTokens, BlockSparse, BigBird, VerticalSlash, Linear, LowRank)
}
"""Kinds by name."""


def from_settings(kind: str, settings: Mapping[str, Any]) -> Pattern:
    """Make a pattern again from its kind's name and its settings.

    Parameters
    ----------
    kind : str
        `Pattern.kind`, such as ``"sliding_window"``.
    settings : mapping
        What `Pattern.settings` gave, also after a way through JSON. Learned feature maps are not in there: what names
        one is made by `Linear.from_settings`, which is given the maps too.

    Raises
    ------
    ArgumentError
        No such kind; or the settings are not the kind's.
    """
    if kind not in KINDS:
        raise ArgumentError(complaint("kind", wanted=f"one of {', '.join(sorted(KINDS))}", got=repr(kind)))
    try:
        return KINDS[kind](**settings)
    except TypeError as error:
        raise ArgumentError(complaint("settings", wanted=f"those of {kind}", got=dict(settings))) from error
