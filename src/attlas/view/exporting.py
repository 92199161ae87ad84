"""The page as one file: what is selected now, to be opened anywhere and without a network.

``/api/page?view=…&matrices=a.12.3&rows=100-400&cols=0-300&reduce=lift`` is answered with a whole HTML document: the
page's own script and styles, and the answers that the page would otherwise ask a server for. Without ``matrices`` it is
the atlas of all heads, of ``capture=a``.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from attlas.errors import ArgumentError, StoreError, complaint
from attlas.view.desk import Answer, Overtaken, Request, Service, span_in
from attlas.view.excerpting import Collector
from attlas.view.excerpting_atlas import AtlasCollector
from attlas.view.excerpts import Excerpt, Selection, Span, split_names
from attlas.view.serving.assets import ASSETS, BUILT, NOT_BUILT, Asset, assets_in
from attlas.view.standalone import json_in_html, policy_hash, visible_title
from attlas.view.tiles.pyramid import REDUCERS

HTML = "text/html; charset=utf-8"
LICENCES = "licences.md"
LONGEST_VIEW = 2000
MOST_EXPLANATIONS = 8

AskDesk = Callable[[str, Mapping[str, str], Callable[[], bool]], Answer]


@dataclass(frozen=True)
class PageSource:
    """What every page is made of.

    Parameters
    ----------
    script, style : str
        The built page.
    licences : str
        The notices of what it is built with.
    """

    script: str
    style: str
    licences: str = ""

    @staticmethod
    def built(folder: Path = BUILT) -> PageSource:
        """Return the page that was built.

        Raises
        ------
        StoreError
            It is not built, or not in one piece.
        """
        found = assets_in(folder)
        if not found:
            raise StoreError(NOT_BUILT)
        script, style = (_only(found, kind) for kind in (".js", ".css"))
        notices = folder / LICENCES
        return PageSource(script, style, notices.read_text(encoding="utf-8") if notices.is_file() else "")

    @property
    def size(self) -> int:
        """How many bytes it brings to a page."""
        return sum(len(text.encode()) for text in (self.script, self.style, self.licences))


def page_service(ask: AskDesk, source: Callable[[], PageSource] = PageSource.built) -> Service:
    """Return the service of ``/api/page``.

    Parameters
    ----------
    ask : callable
        Answers a path and a query; its third argument tells whether anyone still waits.
    source : callable
        Returns what every page is made of.
    """

    def page(request: Request) -> Answer:
        request.expect()
        selection = _selection(request)
        try:
            made_of = source()
        except StoreError as error:
            raise ArgumentError(str(error)) from error

        def asked(path: str, query: Mapping[str, str]) -> Answer:
            request.check()
            return ask(path, query, lambda: _wanted(request))

        kind = Collector if selection.matrices else AtlasCollector
        collector = kind(asked, selection, made_of.size)
        text = document(made_of, collector.collect(), selection.view, collector.title)
        request.check()
        return Answer(200, HTML, text.encode("utf-8"), name=f"{_file_name(collector.title)}.html")

    return Service({"page": page})


def document(source: PageSource, excerpt: Excerpt, view: str, title: str) -> str:
    """Return a page that holds its own answers.

    Parameters
    ----------
    source : PageSource
    excerpt : Excerpt
        The answers.
    view : str
        What the page shows first: its address after the ``#``.
    title : str
        The document's name; anything may stand in it.
    """
    # A tag inside of a script or a style would end it, or hide its end; as an escape it says the same.
    script = re.sub(r"<(?=!--|/?script)", r"\\x3c", source.script, flags=re.IGNORECASE)
    style = re.sub(r"<(?=/style)", r"\\3c ", source.style, flags=re.IGNORECASE)
    policy = (
        f"default-src 'none'; script-src '{policy_hash(script)}'; style-src '{policy_hash(style)}'; "
        "img-src blob: data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    content = json_in_html(json.dumps({"view": view, "answers": excerpt.answers}, separators=(",", ":")))
    notices = source.licences.replace("--", "- -").strip()
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n',
            f"<title>{html.escape(visible_title(title))} – attlas</title>\n<style>{style}</style>\n</head>\n<body>\n",
            '<div id="app"></div>\n',
            "<noscript>The maps are drawn by JavaScript, which this browser does not run.</noscript>\n",
            f'<script type="application/json" id="content">{content}</script>\n',
            f'<script type="module">{script}</script>\n',
            f"<!--\n{notices}\n-->\n" if notices else "",
            "</body>\n</html>\n",
        )
    )


def _only(assets: Mapping[str, Asset], kind: str) -> str:
    """Return the one file of a kind."""
    found = [path for path in assets if path.startswith(f"/{ASSETS}/") and path.endswith(kind)]
    if len(found) != 1:
        raise StoreError(f"the page is built of {len(found)} {kind} files, and only one of each fits into a file")
    return assets[found[0]].content.decode("utf-8")


def _selection(request: Request) -> Selection:
    query = request.query
    view = query.get("view", "")
    if len(view) > LONGEST_VIEW:
        raise ArgumentError(complaint("view", wanted=f"at most {LONGEST_VIEW} characters", got=len(view)))
    numbers = tuple(filter(None, query.get("explanations", "").split(",")))
    if len(numbers) > MOST_EXPLANATIONS or not all(number.isascii() and number.isalnum() for number in numbers):
        wanted = f"at most {MOST_EXPLANATIONS} numbers with commas between"
        raise ArgumentError(complaint("explanations", wanted=wanted, got="another text"))
    return Selection(
        split_names(query.get("matrices", "")),
        request.chosen("reduce", REDUCERS),
        _span(request, "rows"),
        _span(request, "cols"),
        view,
        numbers,
        query.get("capture"),
    )


def _span(request: Request, name: str) -> Span | None:
    text = request.query.get(name)
    if text is None:
        return None
    span = span_in(text)
    if span[0] >= span[1]:
        raise ArgumentError(complaint(name, wanted="a span such as 0-100, from and up to", got=ascii(text[:40])))
    return span


def _wanted(request: Request) -> bool:
    try:
        request.check()
    except Overtaken:
        return False
    return True


def _file_name(title: str) -> str:
    return re.sub(r"[^\w.-]+", "-", visible_title(title)).strip("-.")[:80] or "attlas"
