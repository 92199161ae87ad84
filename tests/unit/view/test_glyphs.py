from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attlas.view.glyphs import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" and\n\t", "·and⏎⇥"),
        ("naïve 中文 🙂", "naïve·中文·🙂"),
        ("\u202eabc\u2066", "⟨U+202E⟩abc⟨U+2066⟩"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("\ud83d", "\ufffd"),
        ("\x00\x1b\x7f\x85", "␀␛␡⟨U+0085⟩"),
        ("\u2028", "⟨U+2028⟩"),
        ("\u0301x", "◌\u0301x"),
        ("", ""),
    ],
)
def test_everything_can_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_nothing_invisible_or_unencodable_is_left(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
