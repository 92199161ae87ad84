"""What it costs to find out what the heads of a real model do."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attlas
from attlas.heads import relation_scores, sentences
from benchmarks.measuring import Row, in_turn, seconds
from benchmarks.model import MODEL, open_demo, plain_forward

LENGTH = 4096
SENTENCES = 300


def rows(rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Measure head roles on a text, and on the library's own sequences."""
    yield on_a_text(rounds, 300 if tiny else LENGTH)
    lm = attlas.load("minilm-l6" if tiny else MODEL)
    begun = time.perf_counter()
    found = relation_scores(lm, sentences(count=60 if tiny else SENTENCES))
    took = time.perf_counter() - begun
    name, count = lm.name, len(found.heads)
    what = f"nine relations between words, {60 if tiny else SENTENCES} sentences, {count} heads ({name})"
    yield Row(what, "–", seconds(took), "–", "once, intervals and baselines included")
    begun = time.perf_counter()
    attlas.heads(lm, sentences=[] if tiny else None)
    took = time.perf_counter() - begun
    yield Row(f"`attlas.heads(lm)`: all roles, relations and predictions ({name})", "–", seconds(took), "–", "once")


def on_a_text(rounds: int, length: int) -> Row:
    """Measure the roles of all heads on a text, reading it included, against the plain forward pass."""
    lm, text = open_demo(length)
    tokens = len(lm.tokenize(text))
    ratio = in_turn(lambda: attlas.heads(lm, text), lambda: plain_forward(lm, text), rounds)
    return Row(
        "head roles of the whole model on a text, reading it included",
        f"the model's plain forward pass ({MODEL}, {tokens:,} tokens)",
        ratio.reached(),
        "≤ 2.00",
        ratio.detail(),
    )
