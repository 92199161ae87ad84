"""Captures for the viewer's tests: a long, a hostile and a padded one, and two whose queries are not their keys."""

from __future__ import annotations

from functools import cache

import torch

from attlas.view.desk_captures import Exhibit
from reducing import random
from serving import capture_of, exhibit

LONG, SHORT = 700, 40
QUERIES, KEYS = 12, 60  # of a decoder that goes on after a prompt
ROWS, COLS = 30, 50  # of a matrix between two texts
PADDING = 80  # tokens before the text

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\u202egnp.exe",  # turns the line around
    "\u0301\u0301",  # combining marks with nothing to combine with
    "\U0001f468\u200d\U0001f469",  # two faces, joined by nothing that can be seen
    "\x00",
    "<b onmouseover=alert(2)>bold</b>",
    "\u2028",
    "javascript:alert(3)",
    "\ufffe",
    "%00%0a&amp;#",
)
SHOWN = (
    "</script><img\u00b7src=x\u00b7onerror=alert(1)>",
    "\u27e8U+202E\u27e9gnp.exe",
    "\u25cc\u0301\u0301",
    "\U0001f468\u27e8U+200D\u27e9\U0001f469",
    "\u2400",
    "<b\u00b7onmouseover=alert(2)>bold</b>",
    "\u27e8U+2028\u27e9",
    "javascript:alert(3)",
    "\u27e8U+FFFE\u27e9",
    "%00%0a&amp;#",
)
"""How each of them stands where every character can be seen."""


@cache
def long() -> Exhibit:
    """Return 700 tokens: so many that the whole of the matrix has cells of several entries."""
    return exhibit(LONG, title="a long text")


@cache
def hostile() -> Exhibit:
    """Return a document whose tokens, title and model would all break a careless page."""
    tokens = [HOSTILE[i % len(HOSTILE)] for i in range(SHORT)]
    return exhibit(tokens=tokens, title=f"{HOSTILE[0]}\u202e")


@cache
def going_on() -> Exhibit:
    """Return a causal matrix whose queries are the last few of its keys."""
    cap = capture_of(random(QUERIES, KEYS, causal=True))
    tokens = [f" word{i}" for i in range(KEYS)]
    return Exhibit(cap.of_document("".join(tokens), tokens, model="none", fingerprint="f00d"), "going on")


@cache
def between() -> Exhibit:
    """Return a matrix between two texts, neither of which is known."""
    return Exhibit(capture_of(random(ROWS, COLS)), "between two texts")


@cache
def padded() -> Exhibit:
    """Return a causal matrix whose first keys nobody may see, as those of a text that was padded on its left."""
    seen = torch.arange(LONG).view(1, 1, 1, -1) >= PADDING
    return Exhibit(capture_of(random(LONG, LONG, causal=True, mask=seen)), "padded")
