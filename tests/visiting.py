"""The page of `attlas view` in a browser: served, opened as a person would, and watched for what must never happen."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from playwright.sync_api import ConsoleMessage, Dialog, expect

from attlas.view.serving.assets import BUILT, Asset, assets_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Page

    from attlas.view.serving.running import Server

PATIENCE = 30_000  # milliseconds that a busy machine is given
SCREENSHOTS = "ATTLAS_SCREENSHOTS"
"""Names the folder in which tests leave a picture of each page for a person to look at; none by default."""

# Labels are drawn on canvases, which tell nobody what they show: what was last written on each is noted.
_NOTED = """
for (const [name, note] of [
    ["fillText", (canvas, text) => (canvas.labels ??= []).push(text)],
    ["clearRect", (canvas) => (canvas.labels = [])],
]) {
    const draw = CanvasRenderingContext2D.prototype[name];
    CanvasRenderingContext2D.prototype[name] = function (...given) {
        note(this.canvas, given[0]);
        return draw.apply(this, given);
    };
}
"""
_COLOURS = """(canvas) => {
    const {width, height} = canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""
_CHECKED = """(canvas) => {
    const {width, height} = canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
    return new Uint32Array(data.buffer).reduce((sum, pixel) => (Math.imul(sum, 31) + pixel) | 0, 0);
}"""
# What the page shows listens for keys once it has been drawn: after the next frame.
_DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))"
_WENT = """(state) => new Promise((went) => {
    if (location.hash === `#${state}`) return went();
    addEventListener("hashchange", went, {once: true});
    location.hash = state;
})"""


def built() -> Mapping[str, Asset]:
    """Return the page's files; without them a test of the page fails."""
    assets = assets_in()
    if not assets:
        pytest.fail(f"the page is not built in {BUILT}: run `npm ci && npm run build` in web/", pytrace=False)
    return assets


@contextmanager
def visited(browser: Browser, server: Server, *, name: str, **options: Any) -> Iterator[Page]:
    """Give a page that has its key.

    Afterwards the test fails when a script of the page did, when the page asked anybody else for anything, showed a
    dialog, or had the browser complain; a question that the server refuses is no fault of the page.
    """
    given: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
    context = browser.new_context(**given)
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    wrong: list[str] = []
    own = f"http://127.0.0.1:{server.port}/"

    def said(message: ConsoleMessage) -> None:
        refused = message.text.startswith("Failed to load resource") and f"{own}api/" in str(message.location)
        if message.type == "error" and not refused:
            wrong.append(message.text)

    def asked(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", said)
        page.on("dialog", asked)
        page.on("request", lambda ask: None if ask.url.startswith((own, "blob:")) else wrong.append(ask.url))

    context.on("page", watch)
    context.add_init_script(_NOTED)
    page = context.new_page()
    page.goto(server.address)
    expect(page.locator(".cell").first).to_be_visible()
    page.evaluate(_DRAWN)
    yield page
    folder = os.environ.get(SCREENSHOTS)
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Hiding the caret would need a style of its own, which the page's policy refuses.
        page.screenshot(path=Path(folder, f"{name}.png"), caret="initial")
    context.close()
    expect.set_options(timeout=5_000)
    assert wrong == [], wrong


def at(page: Page, state: str) -> Page:
    """Go to a state of the page by its address; a map that it shows is laid out, and hears the wheel and the keys."""
    page.evaluate(_WENT, state)
    page.evaluate(_DRAWN)
    for busy in page.locator(".map-zoom").all():
        expect(busy).to_have_attribute("aria-busy", "false")
    return page


def until(page: Page, what: Callable[[], bool]) -> None:
    """Wait until something holds; the page's policy lets no expression be evaluated there again and again."""
    end = time.monotonic() + PATIENCE / 1000
    while not what():
        if time.monotonic() > end:
            pytest.fail("waited in vain")
        page.wait_for_timeout(50)


def labels(page: Page, canvas: str) -> list[str]:
    """Return what was last written on a canvas of the map: ``map-left``, ``map-top``."""
    return page.locator(f"canvas.{canvas}").first.evaluate("(canvas) => canvas.labels ?? []")


def colours(page: Page, canvas: str) -> int:
    """Return how many colours a canvas shows."""
    return page.locator(canvas).first.evaluate(_COLOURS)


def pixels(page: Page, canvas: str) -> int:
    """Return a number that is another one when a canvas shows another picture."""
    return page.locator(canvas).first.evaluate(_CHECKED)


class Window(NamedTuple):
    """What part of a matrix is in sight, in entries."""

    x: float
    y: float
    width: float


def window(page: Page) -> Window | None:
    """Return what part is in sight, as the address says; None is the whole matrix."""
    found = re.search(r"[#&]at=([^&]*)", page.url)
    return Window(*map(float, found[1].split(","))) if found else None


def point(page: Page, state: str, row: int, col: int) -> None:
    """Open a matrix so near that an entry is about 28 pixels wide; point at that entry until the page tells of it."""
    at(page, f"{state}&at={col - 10},{row - 5},20")
    rest(page, lambda box: (10.5 * box["width"] / 20, 5.5 * box["width"] / 20), wanted=[f"{row:,}", f"{col:,}"])


def rest(
    page: Page,
    place: Callable[[FloatRect], tuple[float, float]],
    *,
    pane: int = 0,
    wanted: list[str] | None = None,
) -> tuple[float, float]:
    """Move the pointer about a place of a map until the page tells of these positions, or of any; return where it is.

    A map that is only just laid out hears nothing yet of a pointer that rests on it.
    """
    said, step, there = page.locator(".map-where b"), 0, (0.0, 0.0)

    def told() -> bool:
        nonlocal step, there
        step = (step + 1) % 3
        box = page.locator(".map-zoom").nth(pane).bounding_box()
        if box is not None:
            across, down = place(box)
            there = (box["x"] + across + step, box["y"] + down)
            page.mouse.move(*there)
        page.wait_for_timeout(20)
        return said.count() == 2 and (wanted is None or said.all_inner_texts() == wanted)

    until(page, told)
    return there


def number_in(text: str) -> float:
    """Return the number that the page wrote, whatever stands around it: 1,234; −0.5; 2.1·10⁻⁴; 1/3.2; 12×; 3 %."""
    found = re.search(r"(1/)?([−-]?[\d,]*\.?\d+)(?:·10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?( ?%)?", text)
    assert found is not None, text
    inverse, digits, power, percent = found.groups()
    value = float(digits.replace(",", "").replace("−", "-"))
    if power:
        value *= 10.0 ** int(power.translate(_RAISED))
    return (1 / value if inverse else value) / (100 if percent else 1)


_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
