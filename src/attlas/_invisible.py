"""Characters that nobody can see, which could hide or reorder others, and what is shown in their place."""

from __future__ import annotations

import unicodedata

_FORMLESS = {"Cc", "Cf", "Cn", "Co", "Zl", "Zp"}


def shown(character: str) -> str:
    """Return a character, or what stands for it if it has no form of its own.

    Controls, format and bidirectional controls, line and paragraph separators, private and unassigned characters are
    their number; half a surrogate pair is U+FFFD. Spaces stay.
    """
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    return numbered(character) if category in _FORMLESS else character


def numbered(character: str) -> str:
    """Return a character's number, as in ``⟨U+202E⟩``."""
    return f"⟨U+{ord(character):04X}⟩"


def printable(text: str) -> str:
    """Return text that UTF-8 can carry: half a surrogate pair becomes U+FFFD."""
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
