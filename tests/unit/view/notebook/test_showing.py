"""What a notebook is given: a widget, where the package is there; a page in a frame; and one clear error."""

import html
import json
import sys
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import pytest
import torch

import attlas
from attlas.errors import ArgumentError, CaptureError, MissingPackageError, StoreError
from attlas.results import Provenance
from attlas.view.desk_captures import Exhibit
from attlas.view.notebook import show, showing, widget
from attlas.view.notebook.asking import Asking
from attlas.view.notebook.showing import alone
from attlas.view.opening import open_desk
from explaining import explained
from viewing import captured


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Asking, int]]:
    """What widgets are made of, without the package that makes them."""
    found: list[tuple[Asking, int]] = []
    monkeypatch.setattr(
        showing, "widget", lambda asking, height, still: found.append((asking(lambda *_: None), height))
    )
    return found


def tables(asking: Asking) -> dict[str, Any]:
    desk = asking._opened()
    try:
        return json.loads(desk.answer("/api/atlas", {}).body)
    finally:
        desk.close()


def test_a_capture_shows_itself(made: list[tuple[Asking, int]]) -> None:
    cap = captured(20)
    cap.show(title="mine", height=500)
    ((asking, height),) = made
    assert height == 500
    (shown,) = tables(asking)["captures"]
    assert (shown["title"], len(shown["layers"])) == ("mine", 3)


def test_a_matrix_shows_itself_with_its_tokens(made: list[tuple[Asking, int]]) -> None:
    A = attlas.AttentionMatrix(torch.randn(2, 4, 5, 8), torch.randn(2, 2, 9, 8), causal=True)
    A.show(tokens=[f"t{i}" for i in range(9)])
    (shown,) = tables(made[0][0])["captures"]
    (layer,) = shown["layers"]
    assert (layer["queries"], layer["keys"], layer["heads"], shown["tokens"]) == (5, 9, [0, 1, 2, 3], 9)


def test_a_matrix_that_was_narrowed_stays_itself() -> None:
    def odd(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & ((key + head) % 2 == 0)

    A = attlas.AttentionMatrix(torch.randn(1, 4, 12, 8), torch.randn(1, 4, 12, 8), mask=odd).narrow(
        slice(0, 1), slice(1, 3)
    )
    desk = open_desk([Exhibit(alone(A), "a matrix")])
    row = json.loads(desk.answer("/api/cells/a.0.1/11/2", {}).body)
    assert row["value"] == pytest.approx(float(A.to_dense()[0, 1, 11, 2]), rel=1e-5)
    desk.close()


def test_options_that_do_not_fit(made: list[tuple[Asking, int]]) -> None:
    cap = captured(8)
    with pytest.raises(ArgumentError, match="height: wanted pixels, 120 to 4000, got 12"):
        cap.show(height=12)
    with pytest.raises(ArgumentError, match=r"model: wanted what attlas\.load returned, got a Linear"):
        cap.show(model=torch.nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="tokens: wanted a text for each of the 8 keys, got 3 of them"):
        cap[0].show(tokens=["a", "b", "c"])
    with pytest.raises(CaptureError, match="empty"):
        attlas.Capture({}, provenance=Provenance("0", "tiny", "f00d", {})).show()
    with pytest.raises(ArgumentError, match="a Capture, an AttentionMatrix or an Attribution, got a int"):
        show(3)  # pyright: ignore[reportArgumentType]
    assert made == []


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"needs the package anywidget; pip install 'attlas\[notebook\]'"):
        captured(8).show()


class FakeWidget:
    """Stands in for `anywidget.AnyWidget`: keeps what is sent, and who listens."""

    bundle: tuple[dict[str, Any], dict[str, Any]] | None = ({"view": 1}, {"of": 2})

    def __init__(self, **state: Any) -> None:
        self.state, self.sent, self.listeners, self.closed = state, [], [], False

    def on_msg(self, listener: Any) -> None:
        self.listeners.append(listener)

    def send(self, message: Any, buffers: Any) -> None:
        self.sent.append((message, buffers))

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        return self.bundle

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    anywidget, traitlets = ModuleType("anywidget"), ModuleType("traitlets")
    anywidget.AnyWidget = FakeWidget  # pyright: ignore[reportAttributeAccessIssue]

    class Int:
        def __init__(self, default: int) -> None:
            self.default = default

        def tag(self, **tags: Any) -> int:
            return self.default

    traitlets.Int = Int  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "anywidget", anywidget)
    monkeypatch.setitem(sys.modules, "traitlets", traitlets)
    monkeypatch.setattr(widget, "find_spec", lambda name: object())
    widget._kind.cache_clear()


@pytest.mark.usefixtures("packages")
def test_messages_go_through_the_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "_built", lambda name: name)
    shown = captured(20).show(height=300)
    widget._kind.cache_clear()
    assert shown.state == {"height": 300}
    (listener,) = shown.listeners
    listener(shown, {"kind": "ask", "id": 4, "path": "/api/atlas", "query": {}}, [])
    for _ in range(500):
        if shown.sent:
            break
        shown._asking._workers.submit(int).result()
    ((message, (body,)),) = shown.sent
    assert (message["id"], message["status"]) == (4, 200)
    assert json.loads(body)["captures"]
    assert shown._asking.open
    shown.close()
    assert shown.closed
    assert not shown._asking.open


@pytest.mark.usefixtures("packages")
def test_where_there_are_no_widgets_a_still_stands_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "_built", lambda name: name)
    cap = captured(12)
    whole, one = cap.show(), cap[0].show()
    widget._kind.cache_clear()
    assert whole._repr_mimebundle_() == ({"view": 1, "text/html": cap._repr_html_()}, {"of": 2})
    assert one._repr_mimebundle_()[0]["text/html"] == cap[0]._repr_html_()
    monkeypatch.setattr(FakeWidget, "bundle", None)
    assert whole._repr_mimebundle_() == ({"text/html": cap._repr_html_()}, {})


@pytest.mark.usefixtures("packages")
def test_a_page_that_was_not_built_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "SCRIPT", "no such file.js")
    with pytest.raises(StoreError, match="the page is not built"):
        captured(8).show()


class Frames(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_an_explanation_is_shown_in_a_frame_that_reaches_nothing() -> None:
    found = explained(tokens=["<script>alert(1)</script>", '"', " b"])
    shown = found.show(title='"><script>', height=333)
    ((tag, attributes),) = Frames(shown._repr_html_()).found
    assert tag == "iframe"
    assert attributes["sandbox"] == "allow-scripts"
    assert "height:333px" in (attributes["style"] or "")
    assert attributes["srcdoc"] == shown.page
    assert html.escape(shown.page) in shown._repr_html_()
    assert "<script>alert(1)" not in shown.page
    assert "kB of HTML" in repr(shown)
    with pytest.raises(ArgumentError, match="height"):
        found.show(height=0)
