from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attlas._invisible import numbered, shown


@pytest.mark.parametrize(
    ("character", "stands"),
    [
        ("a", "a"),
        ("中", "中"),
        ("\u0301", "\u0301"),
        (" ", " "),
        ("\u2003", "\u2003"),
        ("\x00", "⟨U+0000⟩"),
        ("\x7f", "⟨U+007F⟩"),
        ("\u202e", "⟨U+202E⟩"),
        ("\u2028", "⟨U+2028⟩"),
        ("\ue000", "⟨U+E000⟩"),
        ("\U000e0001", "⟨U+E0001⟩"),
        ("\ud83d", "\ufffd"),
    ],
)
def test_what_has_no_form_is_its_number(character: str, stands: str) -> None:
    assert shown(character) == stands


@given(st.characters())
def test_a_character_stays_or_all_that_stands_for_it_can_be_seen(character: str) -> None:
    stands = shown(character)
    assert stands in (character, numbered(character), "\ufffd")
    assert not {unicodedata.category(one) for one in stands} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
