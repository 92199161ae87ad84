"""Tokens as a person can see them: nothing invisible, nothing that reorders or breaks the line it stands in."""

from __future__ import annotations

import unicodedata

_SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡", "\u00a0": "⍽"}
_INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs"}


def visible(text: str) -> str:
    """Return text in which every character can be seen.

    Space is ``·``, a line end ``⏎``, a tab ``⇥``; other control characters are their control pictures; what has no form
    of its own (format and bidirectional controls, private and unassigned characters) is its number, as in ``⟨U+202E⟩``;
    half a surrogate pair is U+FFFD; a combining mark that has nothing before it stands on a dotted circle.
    """
    shown = "".join(map(_sign, text))
    return f"◌{shown}" if shown and unicodedata.combining(shown[0]) else shown


def _sign(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    return f"⟨U+{code:04X}⟩" if category in _INVISIBLE else character
