"""Tokens as a person can see them: nothing invisible, nothing that reorders or breaks the line it stands in."""

from __future__ import annotations

import unicodedata

from attlas._invisible import numbered, shown

_SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡", "\u00a0": "⍽"}


def visible(text: str) -> str:
    """Return text in which every character can be seen.

    Space is ``·``, a line end ``⏎``, a tab ``⇥``; other control characters are their control pictures; what has no form
    of its own (format and bidirectional controls, private and unassigned characters) is its number, as in ``⟨U+202E⟩``;
    half a surrogate pair is U+FFFD; a combining mark that has nothing before it stands on a dotted circle.
    """
    signs = "".join(map(_sign, text))
    return f"◌{signs}" if signs and unicodedata.combining(signs[0]) else signs


def _sign(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    # A space of another width looks like any other one.
    return numbered(character) if character.isspace() else shown(character)
