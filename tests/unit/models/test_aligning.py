"""Where tokens lie, from the text alone: just as the tokenizer said it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attlas.errors import ArgumentError
from attlas.models import tokenize
from attlas.models.aligning import aligned
from explained import TEXT, tokenizer
from labelled import encoder


@pytest.mark.parametrize("text", [TEXT, "Ça va… 日本 \U0001f600\U0001f600", "  a\n\n\tb ", "<|begin|>user\nx<|end|>"])
def test_tokens_of_bytes(text: str) -> None:
    document = tokenize(tokenizer(), text)
    found = aligned(text, document.tokens)
    if "\U0001f600" not in text:  # pieces of two equal characters in a row cannot be told apart
        assert found.offsets == document.offsets
    assert (found.tokens, found.text, found.added) == (document.tokens, text, document.added)


def test_tokens_that_leave_spaces_out_and_tokens_that_were_added() -> None:
    document = tokenize(encoder().tokenizer, "the dog")
    found = aligned("the dog", document.tokens)
    assert found.added == document.added == (1, 1)
    assert found.offsets == document.offsets


@given(st.text(alphabet="ab\n é日", min_size=1, max_size=30).filter(str.strip))
def test_any_text(text: str) -> None:
    document = tokenize(tokenizer(), text)
    found = aligned(text, document.tokens)
    assert found.offsets is not None
    assert max(stop for _, stop in found.offsets) >= len(text.rstrip())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("ab", ["a"]), ("ab", ["x", "y"]), ("a b", ["a", "x", "b"]), ("ab", []), ("a", [""] * 9 + ["a"])],
)
def test_tokens_of_another_text_are_refused(text: str, tokens: list[str]) -> None:
    with pytest.raises(ArgumentError, match="pieces of the text, in order, got tokens that are spelt in another way"):
        aligned(text, tokens)
