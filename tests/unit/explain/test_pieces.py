from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attlas.explain.pieces import pieces, readable


def words(tokens: list[str], text: str) -> list[tuple[str, int, int]]:
    return [(piece.text, piece.start, piece.stop) for piece in pieces(tokens, text)]


def test_tokens_that_follow_each_other() -> None:
    assert words(["a", " b", "\n", "c"], "a b\nc") == [("a", 0, 1), (" b", 1, 2), ("\n", 2, 3), ("c", 3, 4)]


def test_spaces_that_no_token_covers_are_kept() -> None:
    found = words(["[CLS]", "the", "cat", "[SEP]"], " the  cat\n")
    assert found == [
        ("[CLS]", 0, 1),
        (" ", 1, 1),
        ("the", 1, 2),
        ("  ", 2, 2),
        ("cat", 2, 3),
        ("[SEP]", 3, 4),
        ("\n", 4, 4),
    ]


def test_the_tokens_of_one_character_share_a_piece() -> None:
    assert words(["a", " 🎉", "🎉", "🎉!", "b"], "a 🎉!b") == [("a", 0, 1), (" 🎉!", 1, 4), ("b", 4, 5)]


def test_what_a_tokenizer_drops_is_kept() -> None:
    assert words(["a", "b"], "a\x01\x01b") == [("a", 0, 1), ("\x01\x01", 1, 1), ("b", 1, 2)]


def test_an_added_token_covers_no_text() -> None:
    first, second = pieces(["<s>", "a"], "a")
    assert (first.begin, first.end) == (0, 0)
    assert (second.begin, second.end) == (0, 1)


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=20))
def test_all_of_the_text_is_there_and_every_token_is_somewhere(tokens: list[str]) -> None:
    text = "".join(tokens)
    found = pieces(tokens, text)
    assert "".join(piece.text for piece in found if piece.end > piece.begin) == text
    assert [token for piece in found for token in range(piece.start, piece.stop)] == list(range(len(tokens)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\tb\nc", "a\tb\nc"),
        ("\u202egnp", "⟨U+202E⟩gnp"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("\x00\u2028\r", "⟨U+0000⟩⟨U+2028⟩␍"),
        ("a\r\nb", "a\nb"),
        ("\ud800", "\ufffd"),
        ("👩\u200d👧", "👩\u200d👧"),
        ("مرحبا", "مرحبا"),
    ],
)
def test_text_reads_as_it_is_and_can_do_nothing(text: str, shown: str) -> None:
    assert readable(text) == shown
