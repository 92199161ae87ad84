"""The page inside of a notebook: the built widget in a browser, and a desk in Python behind its messages."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from playwright.sync_api import Page

import attlas
from attlas.view.desk_captures import Exhibit
from attlas.view.notebook.asking import Asking
from attlas.view.notebook.widget import SCRIPT
from attlas.view.opening import open_desk
from explaining import explained
from viewing import captured

WIDGET = Path(attlas.__file__).with_name("view") / "static" / SCRIPT
HOSTILE = "</script><script>parent.done = 1</script><img src=x onerror=alert(1)>"

# What anywidget does with the module, and a model whose messages go to Python.
HOST = """
async ({source, height}) => {
  const module = await import(URL.createObjectURL(new Blob([source], {type: "text/javascript"})));
  const listeners = new Set();
  globalThis.hear = (message, body) => {
    const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
    for (const listener of listeners) listener(message, [new DataView(bytes.buffer)]);
  };
  const model = {
    get: () => height,
    send: (message) => globalThis.toPython(JSON.stringify(message)),
    on: (_, listener) => listeners.add(listener),
    off: (_, listener) => listeners.delete(listener),
  };
  globalThis.leave = await module.default.render({model, el: document.body});
}
"""

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def notebook(page: Page) -> Iterator[tuple[Page, Asking, Until]]:
    """A document that shows the widget of a capture; and what lets messages go to and fro until something is so."""
    if not WIDGET.is_file():
        pytest.fail("the page is not built: install this source again, or run `npm ci && npm run build` in web/")
    tokens = [HOSTILE, *(f" word{i}" for i in range(299))]
    cap = captured(300).of_document("".join(tokens), tokens, model="tiny", fingerprint="f00d")
    told: Queue[tuple[Any, bytes]] = Queue()
    asking = Asking(
        lambda: open_desk([Exhibit(cap, HOSTILE)]), lambda message, buffers: told.put((message, b"".join(buffers)))
    )
    page.expose_function("toPython", lambda text: asking.receive(json.loads(text)))

    def until(done: Callable[[], bool]) -> None:
        for _ in range(400):
            while not told.empty():
                message, body = told.get()
                page.evaluate("([m, b]) => hear(m, b)", [message, base64.b64encode(body).decode()])
            if done():
                return
            page.wait_for_timeout(25)
        raise AssertionError("it never came to be so")

    page.goto("data:text/html,<!doctype html><title>notebook</title><body></body>")
    page.evaluate(HOST, {"source": WIDGET.read_text(encoding="utf-8"), "height": 640})
    yield page, asking, until
    asking.close()


def test_the_page_is_drawn_in_a_frame_and_asks_by_messages(notebook: tuple[Page, Asking, Until]) -> None:
    page, asking, until = notebook
    frame = page.frame_locator("iframe[title=attlas]")
    until(lambda: frame.locator("main").count() == 1)
    until(lambda: frame.get_by_text("tiny").count() > 0)
    assert asking.open
    box = page.locator("iframe").bounding_box()
    assert box is not None
    assert box["height"] == pytest.approx(642, abs=3)
    # It is a stranger to the notebook, and what a document says does nothing in either.
    assert page.evaluate("document.querySelector('iframe').contentDocument") is None
    assert page.evaluate("globalThis.done") is None
    assert page.title() == "notebook"
    page.evaluate("leave()")
    until(lambda: not asking.open)
    assert page.locator("iframe").count() == 0


def test_an_explanation_works_in_its_frame(page: Page) -> None:
    shown = explained(tokens=[HOSTILE, " b", " c"]).show(title=HOSTILE)
    page.set_content(f"<!doctype html>{shown._repr_html_()}")
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready]").wait_for()
    assert page.evaluate("globalThis.done") is None


def test_stills_are_drawn_without_any_script(page: Page) -> None:
    cap = captured(300)
    page.set_content(f"<!doctype html>{cap._repr_html_()}{cap[0]._repr_html_()}")
    images = page.locator("img")
    assert images.count() == 3 * 3 + 4
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth === 48)")
