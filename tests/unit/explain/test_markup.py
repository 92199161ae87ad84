from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from attlas.explain.markup import SHOWN, markup
from explaining import explained, several

HOSTILE = ("</div><script>alert(1)</script>", "\u202egnp.exe", "\ud800", "<b onclick=x>", "&lt;")


class Outline(HTMLParser):
    """The elements of a fragment and the text in it."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(fragment)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_tells_the_verdict_and_shows_the_text() -> None:
    one = several()[2]
    shown = Outline(markup(one))
    assert shown.open == []
    assert "faithfulness: Cannot tell: removing what it marks first costs 0.05 nats" in shown.text
    assert one.text in shown.text
    assert "against" in shown.text
    assert one._repr_html_() == markup(one)


def test_what_was_not_measured_is_said() -> None:
    shown = Outline(markup(explained(verdict=None)))
    assert "faithfulness: not measured" in shown.text
    assert "against" not in shown.text, "no score speaks against anything"


def test_text_stays_text() -> None:
    one = explained(HOSTILE[0], HOSTILE, target=replace(explained().target, name=HOSTILE[0]))
    shown = Outline(markup(one))
    assert shown.names <= {"div", "span", "b"}
    assert shown.attributes <= {"style", "title", "dir"}
    assert "</div><script>alert(1)</script>⟨U+202E⟩gnp.exe\ufffd<b onclick=x>&lt;" in shown.text
    markup(one).encode("utf-8")


def test_stronger_scores_have_stronger_colours() -> None:
    one = explained(signed=True)
    found = re.findall(r'title="([^"]*)" style="background:rgba\((\d+),\d+,\d+,([\d.]+)\)"', markup(one))
    assert len(found) > 5
    for score, red, strength in found:
        assert (float(score) > 0) == (red == "238")
        assert float(strength) <= 0.75
    ordered = sorted(found, key=lambda part: abs(float(part[0])))
    strengths = [float(part[2]) for part in ordered]
    assert strengths == sorted(strengths)


def test_a_long_text_is_shown_where_it_matters() -> None:
    tokens = [f" w{i}" for i in range(5000)]
    one = explained(tokens=tokens)
    scores = one.scores.clone() * 0.01
    scores[3000:3100] = 1
    shown = Outline(markup(replace(one, scores=scores)))
    assert " w3000 w3001" in shown.text
    assert " w100 " not in shown.text
    assert re.search(r"Tokens [\d,]+ to [\d,]+ of 5,000; \d+ % of all relevance", shown.text)
    assert len(re.findall(r" w\d+", shown.text)) == SHOWN
