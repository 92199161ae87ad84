"""The atlas of the viewer: all maps on one canvas, asked for a layer at a time, with a button for each head over it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from attlas.view.colours import colour_table
from attlas.view.opening import open_desk
from attlas.view.serving.running import Server
from serving import exhibit
from viewing import HEADS
from visiting import built

N, LAYERS = 128, 20
PIXELS = """(head) => {
    const [cell, canvas] = [`.cell[data-head="${head}"]`, "canvas.sheet"].map((name) => document.querySelector(name));
    const [x, y, side] = [cell.offsetLeft - canvas.offsetLeft, cell.offsetTop - canvas.offsetTop, cell.offsetWidth];
    return [side, ...new Uint32Array(canvas.getContext("2d").getImageData(x, y, side, side + 4).data.buffer)];
}"""
SIDE = 148


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(open_desk([exhibit(N, layers=LAYERS)]), 0, assets=built()) as server:
        yield server


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def viewer(browser: Browser, server: Server, asked: list[str]) -> Iterator[Page]:
    """Give the atlas with large maps, so that it has to be scrolled; the test fails when a script of the page does."""
    context = browser.new_context(viewport={"width": 900, "height": 700})
    context.set_default_timeout(30_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url.split("/", 3)[3]))
    page.goto(server.address)
    expect(page.locator(".cell").first).to_be_visible(timeout=30_000)
    page.evaluate("location.hash = 'reduce=max&scale=linear,0,1&size=large&theme=light'")
    expect(page.locator(".cell").first).to_have_css("width", f"{SIDE}px")
    yield page
    context.close()
    assert wrong == []


def pixels(page: Page, head: str) -> np.ndarray:
    """Return what the canvas shows of a head, with its bar below; (rows, cols, 4)."""
    side, *packed = page.evaluate(PIXELS, head)
    return np.array(packed, np.uint32).view(np.uint8).reshape(side + 4, side, 4)


def drawn(page: Page, head: str) -> np.ndarray:
    """Return what the canvas shows of a head as soon as it is its map and its bar."""
    for _ in range(400):
        found = pixels(page, head)
        if len(np.unique(found[:SIDE].reshape(-1, 4), axis=0)) > 50 and found[-1, 0, 3] == 255:
            return found
        page.wait_for_timeout(50)
    raise AssertionError(f"head {head} was never drawn")


def test_a_map_has_the_colours_of_its_entries(viewer: Page) -> None:
    found = drawn(viewer, "1.2")[:SIDE].astype(int)
    dense = exhibit(N, layers=LAYERS).capture[1].to_dense()[0, 2]
    table = torch.from_numpy(colour_table("weight-light").astype(int))
    for row, col in ((100, 0), (64, 60), (127, 127), (0, 0), (9, 4)):
        # The middle of a cell, where its neighbours, into which it is blended, say least.
        at = [int((place + 0.5) * SIDE / N) for place in (row, col)]
        around = dense[max(0, row - 1) : row + 2, max(0, col - 1) : min(col + 2, row + 1)]
        allowed = table[(around * 255).round().long()].flatten(0, 1).numpy()
        shown = found[at[0], at[1], :3]
        assert (shown >= allowed.min(0) - 3).all(), (row, col)
        assert (shown <= allowed.max(0) + 3).all(), (row, col)
    assert (found[10, 100:] == 0).all(), "what no query sees is left blank"


def test_a_layer_is_asked_for_once(viewer: Page, asked: list[str]) -> None:
    for layer in range(LAYERS):
        viewer.evaluate(f"document.querySelector('.grid').scrollIntoView(); scrollBy(0, {layer * 170})")
        viewer.locator(f'.cell[data-head="{layer}.0"]').wait_for()
        drawn(viewer, f"{layer}.3")
    maps = [path for path in asked if path.startswith("api/maps/") and path.endswith("reduce=max")]
    assert sorted(maps) == sorted(f"api/maps/a/{layer}?reduce=max" for layer in range(LAYERS))
    assert not [path for path in asked if path.startswith("api/tiles/")]


def test_scrolling_keeps_and_completes_the_canvas(viewer: Page) -> None:
    before = {head: drawn(viewer, head) for head in ("0.0", "3.1")}
    viewer.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = f"{LAYERS - 1}.{HEADS - 1}"
    viewer.locator(f'.cell[data-head="{last}"]').wait_for()
    drawn(viewer, last)
    assert viewer.locator('.cell[data-head="0.0"]').count() == 0, "no more is in the page than can be seen"
    viewer.evaluate("scrollTo(0, 0)")
    viewer.locator('.cell[data-head="0.0"]').wait_for()
    for head, picture in before.items():
        assert np.array_equal(drawn(viewer, head), picture)


def test_the_keyboard_moves_names_and_opens_a_head(viewer: Page) -> None:
    drawn(viewer, "0.0")
    cell = viewer.locator('.cell[data-head="0.0"]')
    cell.focus()
    assert (cell.get_attribute("aria-label") or "").startswith("Layer 0, head 0, ")
    viewer.keyboard.press("ArrowDown")
    viewer.keyboard.press("ArrowRight")
    expect(viewer.locator('.cell[data-head="1.1"]')).to_be_focused()
    expect(viewer.locator(".hover h2")).to_have_text("Layer 1, head 1")
    viewer.wait_for_function("document.querySelector('.hover canvas').width > 1")
    assert viewer.locator(".cell[tabindex='0']").count() == 1
    viewer.keyboard.press("Enter")
    expect(viewer.locator("h2").first).to_have_text("Layer 1, head 1")


def test_the_highest_comes_first_with_a_full_bar(viewer: Page) -> None:
    drawn(viewer, "0.0")
    viewer.get_by_role("form", name="How the atlas is shown").get_by_text("Highest", exact=True).click()
    expect(viewer.locator(".progress")).to_have_count(0, timeout=30_000)
    first = viewer.locator(".cell").first.get_attribute("data-head") or ""
    bar = drawn(viewer, first)[-1]
    assert (bar == bar[0]).all()
