"""Spans for the page: the tokens of each, its label, and why a kind is impossible."""

from pathlib import Path

import pytest

import attlas
from attlas.errors import ArgumentError
from attlas.explain.spans import spans_of
from attlas.view.spans import KINDS, span_record
from explained import TEXT, speaker
from viewing import captured

CHAT = "<|begin|>user\nWhy?<|end|>\n<|begin|>assistant\nNobody knows."
SOURCE = "x = 1\ndef first():\n    return x\n\nclass Two:\n    def second(self):\n        return 2\n"


@pytest.mark.parametrize("kind", ["sentence", "line", "word", "function", "turn"])
def test_the_same_spans_as_an_explanation_has(kind: str) -> None:
    lm = speaker()
    text = {"turn": CHAT, "function": SOURCE}.get(kind, TEXT)
    found = span_record(lm.read(text), kind, lm)
    expected = spans_of(kind, lm.tokenize(text), lm.tokenizer)
    assert found["reason"] is None
    assert [(one["start"], one["stop"]) for one in found["spans"]] == [(one.start, one.stop) for one in expected]


def test_labels_say_what_a_span_is() -> None:
    lm = speaker()
    labels = [one["label"] for one in span_record(lm.read(SOURCE), "function", lm)["spans"]]
    assert labels == ["", "first", "Two", "Two.second"]
    line = span_record(lm.read("France " * 20), "line", lm)["spans"][0]["label"]
    assert len(line) == 80
    assert line.endswith("…")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "turn"])
def test_a_capture_from_a_file_needs_no_model(kind: str, tmp_path: Path) -> None:
    lm = speaker()
    text = SOURCE if kind == "function" else TEXT
    stored = attlas.open_capture(lm.read(text).save(tmp_path / "a.attlas"))
    assert span_record(stored, kind) == span_record(lm.read(text), kind, lm)


def test_what_is_impossible_is_said() -> None:
    lm = speaker()
    cap = lm.read(TEXT)
    assert "model's tokenizer; open its model" in span_record(cap, "turn")["reason"]
    assert "got a text without them" in span_record(cap, "turn", lm)["reason"]
    assert "in which none is found" in span_record(cap, "function")["reason"]
    assert "does not know the text" in span_record(captured(8), "line")["reason"]
    other = cap.of_document("something else", list(cap.tokens or ()), model="m", fingerprint="f")
    assert "spelt in another way" in span_record(other, "line", lm)["reason"]
    with pytest.raises(ArgumentError, match="one of sentence, line, turn, word, function, got 'page'"):
        span_record(cap, "page")
