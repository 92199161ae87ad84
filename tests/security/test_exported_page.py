"""Whatever a document, an address or a script holds, a saved page stays what it is, and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from attlas.view.desk import Desk
from attlas.view.exporting import PageSource, page_service
from serving import desk, exhibit

HOSTILE: tuple[str, ...] = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>",
    "\u2028\u2029",
    "\u202egnp.exe\u202c",
    "&lt;b&gt;",
    "\ud800",
    "\"'`\\u003c",
    "\x00",
    "</style><base href=//evil>",
)
TITLE = "</title><script>alert(1)</script>" + "".join(HOSTILE)
VIEW = "a.0.0&find=" + "".join(HOSTILE)
SCRIPT = "const a = '</script><!--<SCRIPT>', b = /<\\/script/iu;"
STYLE = "p::before { content: '</style><script>' }"


@pytest.fixture(scope="module")
def text() -> str:
    with desk(exhibit(tokens=list(HOSTILE) * 3, title=TITLE)) as opened:
        source = PageSource(SCRIPT, STYLE, "--><script>alert(1)</script>")
        service = page_service(lambda path, query, wanted: opened.answer(path, query, wanted=wanted), lambda: source)
        answer = Desk([service]).answer("/api/page", {"matrices": "a.0.0", "view": VIEW})
    assert answer.status == 200
    return answer.body.decode("utf-8")


class Reader(HTMLParser):
    """Reads a page as a browser does: scripts and styles end at their own end tags alone."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[int, str] = {}
        self.comments: list[str] = []
        self.open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = True

    def handle_endtag(self, tag: str) -> None:
        self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.inside[len(self.tags) - 1] = self.inside.get(len(self.tags) - 1, "") + data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def content(self, tag: str, **attributes: str) -> str:
        at = [i for i, (name, found) in enumerate(self.tags) if name == tag and attributes.items() <= found.items()]
        assert len(at) == 1
        return self.inside[at[0]]


def test_a_page_has_our_elements_alone(text: str) -> None:
    reader = Reader(text)
    assert [tag for tag, _ in reader.tags] == [
        "html", "head", "meta", "meta", "meta", "meta", "meta", "title", "style", "body", "div", "noscript", "script",
        "script",
    ]  # fmt: skip
    assert not [name for _, found in reader.tags for name in found if name.startswith("on") or name in ("src", "href")]
    assert len(reader.comments) == 1
    assert json.loads(reader.content("script", id="content"))["view"] == VIEW
    assert not re.search("[<>&\u2028\u2029\x00\ud800\u202e]", reader.content("script", id="content"))
    assert reader.content("title").startswith("</title><script>alert(1)</script>")


def test_the_policy_lets_our_script_and_style_run_and_nothing_else(text: str) -> None:
    reader = Reader(text)
    policy = next(
        found["content"] for tag, found in reader.tags if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'{digest(reader.content('script', type='module'))}'"
    assert rules["style-src"] == f"'{digest(reader.content('style'))}'"
    assert rules["img-src"] == "blob: data:"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    assert "http" not in policy
    where = text.index("Content-Security-Policy")
    assert where < text.index("<style>") < text.index("<script")


def test_escaped_scripts_and_styles_say_the_same(text: str) -> None:
    reader = Reader(text)
    assert reader.content("script", type="module") == SCRIPT.replace(
        "'</script><!--<SCRIPT>'", "'\\x3c/script>\\x3c!--\\x3cSCRIPT>'"
    )
    assert reader.content("style") == STYLE.replace("'</style>", "'\\3c /style>")


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
