from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from attlas.errors import ArgumentError, DocumentError
from attlas.models.document import Document, check_length, chunks, read_text, tokenize

# --- tokenizers made here --------------------------------------------------------------------------------------------


def byte_level(*, trims: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token for every byte, and for some words with a space in front."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("c", "a"), ("ca", "t"), ("Ġ", "cat")]
    vocabulary = [*alphabet, "ca", "cat", "Ġcat"]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if trims:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def with_markers() -> PreTrainedTokenizerFast:
    """Return a tokenizer of lower-cased words between [CLS] and [SEP] that cuts and pads at 4 unless told not to."""
    from tokenizers import normalizers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, words[1]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    special = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token"], words, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


# --- read_text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_is_read_as_utf8_with_or_without_a_mark(tmp_path: Path, mark: bytes) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(mark + "naïve 日本\r\n".encode())
    assert read_text(file) == "naïve 日本\r\n"


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("käse".encode())))
    assert read_text("-") == "käse"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "wanted text, got nothing"),
        (b" \n\t\n", "wanted text, got only white space"),
        (b"abc\0def", "got a binary file (byte 3 is zero)"),
        ("käse".encode("latin-1"), "got byte 0xe4 at offset 1;"),
        (b"\xef\xbb\xbf" + b"k\xe4se", "got byte 0xe4 at offset 4;"),
        ("text".encode("utf-16"), "got a binary file"),
    ],
)
def test_a_file_without_readable_text_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        read_text(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="there is no such file"):
        read_text(tmp_path / "nothing.txt")
    with pytest.raises(DocumentError, match="got a folder"):
        read_text(tmp_path)


def test_a_path_that_cannot_exist_is_refused() -> None:
    with pytest.raises(DocumentError, match="cannot be read"):
        read_text("a\0b")


# --- tokenize --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trims", [False, True])
def test_a_token_shows_the_text_it_covers(trims: bool) -> None:
    document = tokenize(byte_level(trims=trims), "a cat\n cat 🦜")
    assert document.tokens == ["a", " cat", "\n", " cat", " ", "🦜", "🦜", "🦜", "🦜"]
    assert document.offsets == [(0, 1), (1, 5), (5, 6), (6, 10), (10, 11), *[(11, 12)] * 4]
    assert document.added == (0, 0)


def test_added_tokens_show_their_names_and_words_keep_their_own_spelling() -> None:
    document = tokenize(with_markers(), "The Cát sat")
    assert document.tokens == ["[CLS]", "The", "Cát", "sat", "[SEP]"]
    assert document.offsets == [(0, 0), (0, 3), (4, 7), (8, 11), (0, 0)]
    assert document.added == (1, 1)


def test_a_tokenizer_that_cuts_is_told_not_to() -> None:
    assert len(tokenize(with_markers(), "the cat " * 50)) == 102


def test_a_short_text_is_not_padded() -> None:
    assert len(tokenize(with_markers(), "cat")) == 3


def test_a_slow_tokenizer_is_read_by_decoding() -> None:
    class Letters:
        is_fast = False

        def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
            assert options["truncation"] is False
            return {"input_ids": [ord(letter) for letter in text]}

        def decode(self, ids: list[int]) -> str:
            return "".join(map(chr, ids))

    assert tokenize(Letters(), "a é") == Document("a é", [97, 32, 233], ["a", " ", "é"], None)


@given(st.text(min_size=1).filter(str.strip))
def test_tokens_cover_the_whole_text_whatever_it_is(text: str) -> None:
    document = tokenize(byte_level(), text)
    assert document.offsets is not None
    covered = sorted({index for begin, end in document.offsets for index in range(begin, end)})
    assert covered == list(range(len(text)))
    assert all(token == text[begin:end] for token, (begin, end) in zip(document.tokens, document.offsets, strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "text: wanted text, got nothing"),
        (" \n", "text: wanted text, got only white space"),
        ("ab\ud800c", r"text: wanted text, got a lone surrogate \(U\+D800\) at index 2;"),
    ],
)
def test_a_text_with_nothing_to_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        tokenize(byte_level(), text)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ArgumentError, match="text: wanted a str, got a bytes"):
        tokenize(byte_level(), b"bytes")  # pyright: ignore[reportArgumentType] - that is what is tested
    with pytest.raises(ArgumentError, match="tokenizer: this model has none"):
        tokenize(None, "text")


def test_a_text_that_the_tokenizer_drops_whole_is_refused() -> None:
    with pytest.raises(DocumentError, match="only characters that it drops"):
        tokenize(with_markers(), "\u0301\u0301")


# --- length and parts ------------------------------------------------------------------------------------------------


def test_a_document_may_fill_every_position_but_no_more() -> None:
    document = tokenize(byte_level(), "abcd")
    check_length(document, 4)
    check_length(document, None)
    with pytest.raises(DocumentError, match=r"at most 3 tokens.*got 4; shorten it, or .*--window 3"):
        check_length(document, 3)


def test_parts_carry_the_added_tokens_and_their_own_text() -> None:
    document = tokenize(with_markers(), "the cat sat the cat")
    parts = list(chunks(document, 4))
    assert [part.tokens for part in parts] == [
        ["[CLS]", "the", "cat", "[SEP]"],
        ["[CLS]", "sat", "the", "[SEP]"],
        ["[CLS]", "cat", "[SEP]"],
    ]
    assert [part.text for part in parts] == ["the cat", "sat the", "cat"]
    assert [part.start for part in parts] == [0, 2, 4]
    assert parts[1].offsets == [(0, 0), (0, 3), (4, 7), (0, 0)]


def test_parts_may_overlap() -> None:
    parts = list(chunks(tokenize(byte_level(), "abcdef"), 4, stride=2))
    assert [part.text for part in parts] == ["abcd", "cdef"]


@given(st.integers(1, 40), st.integers(1, 12))
def test_parts_put_together_are_the_document(length: int, window: int) -> None:
    document = tokenize(byte_level(), "x" * length)
    parts = list(chunks(document, window))
    assert [index for part in parts for index in part.ids] == document.ids
    assert all(len(part) <= window for part in parts)


@pytest.mark.parametrize("window", [2, 0, -1, True, 2.5])
def test_a_window_without_room_for_text_is_refused(window: object) -> None:
    with pytest.raises(ArgumentError, match="window: wanted a whole number from 3"):
        list(chunks(tokenize(with_markers(), "the cat"), window))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("stride", [0, 3])
def test_a_stride_that_would_stand_still_or_skip_is_refused(stride: int) -> None:
    with pytest.raises(ArgumentError, match="stride: wanted a whole number from 1 to 2"):
        list(chunks(tokenize(with_markers(), "the cat"), 4, stride))
