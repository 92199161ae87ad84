"""Whatever a document or a file name holds, the page around it stays what it is."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from attlas.explain.attribution import Attribution
from attlas.explain.markup import markup
from attlas.explain.targets import Target
from attlas.view.comparison_page import comparison_page
from attlas.view.explanation_page import explanation_page
from attlas.view.page import page
from explaining import explained, trusted
from viewing import compared, known, measured, projected, renamed

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>",
    "{{script}}{{data}}",
    "\u2028\u2029",
    "\u202egnp.exe\u202c",
    "&lt;b&gt;",
    "\ud800",
    "\"'`\\u003c",
    "\x00",
)


TITLE = "</title><script>alert(1)</script>{{style}}"


def hostile() -> Attribution:
    """Return an explanation with hostile words wherever one holds words."""
    words = "".join(HOSTILE)
    trust = replace(trusted(words), summary=words, settings={words: words}, notes={words: words})
    one = explained(words, HOSTILE, preset=words, target=Target(3, 2, name=words))
    made = replace(one.provenance, model=words, fingerprint=words, settings={words: words})
    return replace(one, settings={words: [words]}, notes={words: {words: words}}, provenance=made).with_faithfulness(
        trust
    )


@pytest.fixture(scope="module", params=["atlas", "atlas with cards", "projections", "explanation", "comparison"])
def text(request: pytest.FixtureRequest) -> str:
    if request.param == "explanation":
        return explanation_page(hostile(), title=TITLE)
    if request.param == "comparison":
        return comparison_page(renamed(compared(), "".join(HOSTILE), HOSTILE), title=TITLE)
    if request.param == "projections":
        return projected("".join(HOSTILE), model=TITLE)
    cards = known("".join(HOSTILE)) if "cards" in request.param else None
    return page(measured(list(HOSTILE)), title=TITLE, error=None, cards=cards)


def content(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_document_cannot_leave_its_place(text: str) -> None:
    assert text.count("</script>") == 2
    assert text.count("<script") == 2
    assert "<img" not in text
    assert "alert(1)</script>" not in text
    found = re.search(r'id="content">(.*?)</script>', text, re.DOTALL)
    assert found
    assert not re.search("[<>&\u2028\u2029]", found[1])


def test_tokens_arrive_visible_and_whole() -> None:
    text = page(measured(list(HOSTILE)), title=TITLE, error=None)
    tokens = content(text)["tokens"]
    assert isinstance(tokens, list)
    assert tokens[0] == "</script><img·src=x·onerror=alert(1)>"
    assert tokens[3] == "{{script}}{{data}}"
    assert tokens[5] == "⟨U+202E⟩gnp.exe⟨U+202C⟩"
    assert tokens[7] == "\ufffd"
    text.encode("utf-8")


def test_a_text_that_is_explained_arrives_readable_and_whole() -> None:
    found = content(explanation_page(hostile(), title=TITLE))
    assert found["pieces"] == [
        *("</script><img src=x onerror=alert(1)>", "<!--<script>", "]]>", "{{script}}{{data}}"),
        *("⟨U+2028⟩⟨U+2029⟩", "⟨U+202E⟩gnp.exe⟨U+202C⟩", "&lt;b&gt;", "\ufffd", "\"'`\\u003c", "⟨U+0000⟩"),
    ]


def test_a_text_that_is_compared_on_arrives_readable_and_whole() -> None:
    found = content(comparison_page(renamed(compared(), "".join(HOSTILE), HOSTILE), title=TITLE))
    text = found["text"]
    assert isinstance(text, dict)
    assert text["tokens"][: len(HOSTILE)] == [
        *("</script><img src=x onerror=alert(1)>", "<!--<script>", "]]>", "{{script}}{{data}}"),
        *("⟨U+2028⟩⟨U+2029⟩", "⟨U+202E⟩gnp.exe⟨U+202C⟩", "&lt;b&gt;", "\ufffd", "\"'`\\u003c", "⟨U+0000⟩"),
    ]
    assert found["title"] == "</title><script>alert(1)</script>{{style}}"
    modules: Any = found["modules"]
    words: Any
    for words in (found["modulesOf"], found["notes"], modules["values"]["role"]):
        assert "⟨U+202E⟩gnp.exe⟨U+202C⟩" in words[0]
        assert "\x00" not in words[0]


def test_a_notebook_is_given_no_element_of_the_text() -> None:
    shown = markup(hostile())
    assert set(re.findall(r"<(/?\w+)", shown)) == {"div", "/div", "span", "/span", "b", "/b"}
    assert not re.search("[\u2028\u2029\u202e\x00\ud800]", shown)


def test_words_of_cards_arrive_visible() -> None:
    cards = content(projected("".join(HOSTILE), model=TITLE))["cards"]
    assert isinstance(cards, dict)
    for words in (
        cards["role"][11],
        cards["roles"][0]["label"],
        cards["columns"][3]["label"],
        cards["values"]["word"][0],
    ):
        assert "{{script}}{{data}}" in words
        assert "⟨U+202E⟩gnp.exe⟨U+202C⟩" in words
        assert "\ud800" not in words
        assert "\x00" not in words


def test_the_policy_allows_the_pages_own_script_and_nothing_else(text: str) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert found
    policy = dict(part.strip().split(" ", 1) for part in html.unescape(found[1]).split(";"))
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert script
    assert style
    digests = {
        kind: "'sha256-" + base64.b64encode(hashlib.sha256(part[1].encode()).digest()).decode() + "'"
        for kind, part in (("script-src", script), ("style-src", style))
    }
    assert policy == {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **digests,
    }


def test_the_page_names_no_other_place(text: str) -> None:
    assert not re.search(
        r"https?:|src=|url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket", text.split('id="content"')[0]
    )
    script = text.rsplit("<script>", 1)[1]
    assert not re.search(
        r"https?:|\bfetch\(|XMLHttpRequest|WebSocket|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script
    )
