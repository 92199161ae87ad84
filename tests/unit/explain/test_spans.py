"""Spans: each kind where it belongs, every token in at most one, and sums."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attlas.errors import ArgumentError
from attlas.explain.spans import span_scores, spans_of
from attlas.explain.turns import turns_of
from attlas.models import Document, tokenize
from explained import TEMPLATE, TEXT, speaker, tokenizer
from labelled import encoder

CHAT = "<|begin|>system\nBe kind.<|end|>\n<|begin|>user\nWhy? Tell me.<|end|>\n<|begin|>assistant\nNobody knows."


def texts(spans: Any, text: str, words: Any = None) -> list[str]:
    words = words or tokenizer()
    return [span.text for span in spans_of(spans, tokenize(words, text), words)]


def characters(text: str) -> Document:
    """Return a document whose every character is a token."""
    size = len(text)
    return Document(text, list(range(size)), list(text), [(i, i + 1) for i in range(size)])


def cut(kind: str, text: str) -> list[str]:
    return [span.text for span in spans_of(kind, characters(text))]


def test_tokens() -> None:
    document = speaker().tokenize(TEXT)
    spans = spans_of("token", document)
    assert [(span.start, span.stop) for span in spans] == [(i, i + 1) for i in range(len(document))]
    assert [span.text for span in spans] == document.tokens


def test_words() -> None:
    text = "Don't re-do it: x_1 = 3.5!\n  Ça va… 日本"
    words = ["Don't", " ", "re-do", " ", "it", ":", " ", "x_1", " ", "=", " ", "3", ".", "5", "!", "\n  "]
    assert cut("word", text) == [*words, "Ça", " ", "va", "…", " ", "日", "本"]
    # A token brings the space in front of it along, and belongs to its word.
    expected = ["The", " capital", " of", " France", " is", " Paris", "."]
    assert texts("word", TEXT)[:7] == expected
    assert texts("word", "it rains.\n\nWhy") == ["it", " rains", ".", "\n\n", "Why"]


def test_sentences() -> None:
    text = 'Mr. Smith left. "Why?" she said! No one knew… 3 days.\n\nthe end 你好。再见。'
    assert cut("sentence", text) == [
        "Mr. Smith left. ", '"Why?" she said! ', "No one knew… ", "3 days.\n\n", "the end 你好。", "再见。",
    ]  # fmt: skip
    assert cut("sentence", "i.e. this, e.g. That. v1.2 is J. Doe's") == ["i.e. this, e.g. That. v1.2 is J. Doe's"]
    assert texts("sentence", TEXT) == TEXT.replace("Paris. ", "Paris.|").replace(".|", ".| ").replace(
        "\n", "\n|"
    ).split("|")


def test_lines() -> None:
    assert cut("line", "a\n\nb\r\nc") == ["a\n", "\n", "b\r\n", "c"]
    assert texts("line", TEXT) == [TEXT[: TEXT.index("\n") + 1], TEXT[TEXT.index("\n") + 1 :]]


def test_turns_are_found_by_the_marks_of_the_template() -> None:
    marks = ["<|begin|>", "<|end|>", "\n"]
    assert texts("turn", CHAT) == [
        marks[0], "system\nBe kind.", *marks[1:], marks[0], "user\nWhy? Tell me.", *marks[1:], marks[0],
        "assistant\nNobody knows.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("template", "chat", "turns"),
    [
        (TEMPLATE, "<|begin|>tool\nx<|end|>\n<|begin|>user\ny", 2),
        (TEMPLATE.replace("<|begin|>", "<|").replace("}}\n", "}}|>\n"), "<|user|>\nx<|end|>\n<|other|>\ny <| z", 2),
        (
            "{% for m in messages %}{% if m.role == 'user' %}[ASK] {{ m.content }} [/ASK]{% else %} {{ m.content }} "
            "END{% endif %}{% endfor %}",
            "[ASK] x [/ASK] y END[ASK] z [/ASK]",
            3,
        ),
    ],
)
def test_templates_of_all_kinds(template: str, chat: str, turns: int) -> None:
    class Words:
        chat_template = template

        def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool) -> str:
            words = tokenizer()
            return str(words.apply_chat_template(messages, chat_template=template, tokenize=tokenize))

    found = [chat[start:stop] for start, stop in turns_of(chat, Words())]
    assert "".join(found) == chat
    assert len(found) == turns


def test_turns_need_a_chat_and_a_template() -> None:
    with pytest.raises(ArgumentError, match='a chat template, for "turn", got one that has none'):
        texts("turn", "the dog", encoder().tokenizer)
    with pytest.raises(ArgumentError, match="got a text without them; write it with tokenizer"):
        texts("turn", TEXT)

    class Deaf:
        chat_template = "hello"

        def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool) -> str:
            return "hello"

    with pytest.raises(ArgumentError, match="one that changes what was said"):
        list(turns_of(CHAT, Deaf()))


def test_added_tokens_are_spans_of_their_own() -> None:
    words = encoder().tokenizer
    found = texts("line", "the dog", words)
    assert found == ["[CLS]", "the dog", "[SEP]"]


def test_spans_of_ones_own() -> None:
    start = TEXT.index("capital")
    rome = TEXT.index("Rome")
    found = spans_of([(rome, rome + 4), (start, start + 17)], speaker().tokenize(TEXT))
    assert [span.text for span in found] == ["capital of France", "Rome"]
    tokens = speaker().tokenize(TEXT).tokens
    assert "".join(tokens[found[0].start : found[0].stop]) == " capital of France"


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ("phrase", "'turn', or pairs (start, stop) of characters, got 'phrase'"),
        ([], "or pairs (start, stop) of characters, got []"),
        (3, "or pairs (start, stop) of characters, got 3"),
        ([(0, 1, 2)], "wanted pairs (start, stop) of characters, got (0, 1, 2)"),
        ([(0, 1.5)], "wanted pairs (start, stop) of characters, got (0, 1.5)"),
        ([(3, 3)], "characters of the text, 0 <= start < stop <= "),
        ([(-1, 3)], "characters of the text, 0 <= start < stop <= "),
        ([(0, 9999)], "characters of the text, 0 <= start < stop <= "),
        ([(0, 8), (4, 9)], "spans that do not overlap, got (0, 8) and (4, 9)"),
        ([(3, 4)], "wanted spans that hold most of some token, got (3, 4), ' ', which holds none"),
    ],
)
def test_what_are_no_spans(spans: object, message: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        spans_of(spans, speaker().tokenize(TEXT))
    assert message in str(raised.value)


def test_a_tokenizer_that_cannot_tell_where_tokens_lie() -> None:
    blind = Document("a b", [1, 2], ["a", " b"], None)
    assert len(spans_of("token", blind)) == 2
    with pytest.raises(ArgumentError, match="\"token\", since this tokenizer cannot tell where tokens lie, got 'word'"):
        spans_of("word", blind)


def test_scores_of_spans_are_sums() -> None:
    scores = torch.arange(len(speaker().tokenize(TEXT)), dtype=torch.float64)
    spans = spans_of("word", speaker().tokenize(TEXT))
    expected = [sum(range(span.start, span.stop)) for span in spans]
    assert span_scores(spans, scores).tolist() == expected
    assert float(span_scores(spans, scores).sum()) == float(scores.sum())


@given(st.text(min_size=1, max_size=60).filter(str.strip), st.sampled_from(["word", "sentence", "line"]))
def test_every_token_is_in_one_span(text: str, kind: str) -> None:
    text = text.encode("utf-8", "ignore").decode("utf-8")
    if not text.strip():
        return
    document = tokenize(tokenizer(), text)
    spans = spans_of(kind, document, tokenizer())
    assert [i for span in spans for i in range(span.start, span.stop)] == list(range(len(document)))
