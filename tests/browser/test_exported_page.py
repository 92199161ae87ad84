"""A saved page opened from a file without a network: its entries, what it lacks, and the pictures that it gives."""

from __future__ import annotations

import base64
import io
import re
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from numpy.typing import NDArray
from playwright.sync_api import Page

from attlas.matrix import AttentionMatrix
from attlas.view.colours import colour_table
from attlas.view.desk import Desk
from attlas.view.desk_captures import Exhibit
from serving import capture_of, desk, exhibit
from viewing import HEADS, LAYERS

N = 600
ROW, COL = 530, 300
SVG = "{http://www.w3.org/2000/svg}"
VIEW = f"a.0.0&reduce=max&scale=linear,0,1&at=290,520,30&row={ROW}&col={COL}&theme=light"


def planted() -> AttentionMatrix:
    """Return a matrix in which one entry is nearly all of its row."""
    torch.manual_seed(0)
    query, key = (torch.randn(1, 1, N, 16) for _ in range(2))
    direction = torch.zeros(16)
    direction[0] = 1.0
    key[..., 0] = 0.0
    key[0, 0, COL] = 40 * direction
    query[..., 0] = 0.0
    query[0, 0, ROW] = 4 * direction
    return AttentionMatrix(query, key, causal=True)


@pytest.fixture(scope="module")
def opened() -> Iterator[Desk]:
    tokens = [f"w{i}" for i in range(N)]
    tokens[COL] = "</script><b>\u202e"
    cap = capture_of(planted()).of_document(" ".join(tokens), tokens, model="tiny", fingerprint="f00d")
    with desk(Exhibit(cap, "a <text>")) as found:
        yield found


@pytest.fixture(scope="module")
def address(opened: Desk, tmp_path_factory: pytest.TempPathFactory) -> str:
    query = {"matrices": "a.0.0", "reduce": "max", "rows": "520-548", "cols": "290-320", "view": VIEW}
    answer = opened.answer("/api/page", query)
    assert answer.status == 200, answer.body[:400]
    path = tmp_path_factory.mktemp("saved") / "page.html"
    path.write_bytes(answer.body)
    return path.as_uri()


def shown(page: Page, address: str) -> Page:
    page.goto(address)
    page.wait_for_selector(".map-zoom canvas")
    page.wait_for_selector(".map-value .number")
    return page


def saved(page: Page, label: str, folder: Path) -> Path:
    page.locator(".save summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile(f"^{label} ")).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_entries_are_exact_without_a_network(page: Page, said: list[str], address: str) -> None:
    shown(page, address)
    value = float(planted()[0, 0, ROW : ROW + 1, COL : COL + 1])
    assert float(page.locator(".map-value .number").inner_text()) == pytest.approx(value, rel=1e-6)
    assert "A saved part" in page.locator(".holds").inner_text()
    # another entry, by the keyboard: it is worked out from the tile that is there
    page.locator("section.matrix").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.map-where').textContent.includes('299')")
    page.wait_for_selector(".map-value .number")
    other = float(planted()[0, 0, ROW : ROW + 1, COL - 1 : COL])
    assert float(page.locator(".map-value .number").inner_text()) == pytest.approx(other, rel=1e-6)
    assert said == []


def test_a_saved_page_cannot_be_saved_as_a_page_again(page: Page, address: str) -> None:
    shown(page, address).locator(".save summary").press("Enter")
    assert page.locator(".save-list button b").all_inner_texts() == ["PNG", "PNG, 2×", "SVG"]
    page.keyboard.press("Escape")
    assert page.locator(".save-list").is_hidden()
    assert page.locator("h2").first.inner_text() == "Layer 0, head 0", "Escape closes the list alone"


def test_a_png_shows_the_planted_entry(page: Page, said: list[str], address: str, tmp_path: Path) -> None:
    shown(page, address)
    path = saved(page, "PNG", tmp_path)
    assert path.name == "a-text-0.0-max.png"
    pixels = png_pixels(path.read_bytes())
    strong, weak = (colour_table("weight-light")[at] for at in (255, 0))
    hits = np.argwhere(np.abs(pixels.astype(int) - strong).max(-1) <= 1)
    legend = hits[:, 0].max()
    cell = hits[hits[:, 0] < legend - 20]
    height, width = np.ptp(cell, axis=0) + 1
    # one cell, as wide and as high as the others are, and a nothing beside it
    assert 10 < height == pytest.approx(width, abs=1)
    assert len(cell) > 0.6 * height * width, "all of the cell but the ring around the selection"
    middle = cell.mean(0).round().astype(int)
    assert np.abs(pixels[middle[0], middle[1] - 2 * width].astype(int) - weak).max() <= 12
    assert said == []


def test_an_svg_is_xml_with_the_cells_in_it(page: Page, address: str, tmp_path: Path) -> None:
    root = ElementTree.fromstring(saved(shown(page, address), "SVG", tmp_path).read_text("utf-8"))  # noqa: S314 - ours
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert any(text.startswith("</script>") for text in texts), "a token on the axis"
    assert "w531" in texts
    assert not any("\u202e" in text for text in texts)
    assert not list(root.iter(f"{SVG}script"))
    images = [image.get("href", "").split(",", 1)[1] for image in root.iter(f"{SVG}image")]
    cells = max((png_pixels(base64.b64decode(image)) for image in images), key=lambda pixels: min(pixels.shape[:2]))
    assert cells.shape[1] == 30
    planted_cell = cells[ROW - 520, COL - 290]
    assert np.abs(planted_cell[:3].astype(int) - colour_table("weight-light")[255]).max() <= 1


@pytest.fixture(scope="module")
def atlas_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save the atlas of a model of 3 layers and 4 heads."""
    tokens = [f"w{i}" for i in range(N)]
    tokens[COL] = "</script><b>\u202e"
    with desk(exhibit(tokens=tokens)) as opened:
        done = threading.Event()
        opened.listen(lambda event: done.set() if event["type"] == "done" else None)
        assert done.wait(60)
        answer = opened.answer("/api/page", {"capture": "a", "reduce": "max", "view": "reduce=max&theme=light"})
    assert answer.status == 200, answer.body[:400]
    path = tmp_path_factory.mktemp("saved") / "atlas.html"
    path.write_bytes(answer.body)
    return path.as_uri()


def colours_of(page: Page, head: str) -> int:
    """Return how many colours a head's map has on the canvas of the atlas."""
    return page.evaluate(
        """(head) => {
            const cell = document.querySelector(`.cell[data-head="${head}"]`);
            const canvas = document.querySelector("canvas.sheet");
            const [x, y] = [cell.offsetLeft - canvas.offsetLeft, cell.offsetTop - canvas.offsetTop];
            const {data} = canvas.getContext("2d").getImageData(x, y, cell.offsetWidth, cell.offsetWidth);
            return new Set(new Uint32Array(data.buffer)).size;
        }""",
        head,
    )


def drawn(page: Page, address: str) -> Page:
    page.goto(address)
    page.wait_for_selector('.cell[data-head="2.3"]')
    for head in ("0.0", "1.2", "2.3"):
        wait_until(page, lambda head=head: colours_of(page, head) > 20)
    return page


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("it never came to be")


def test_a_saved_atlas_shows_all_heads_without_a_network(page: Page, said: list[str], atlas_address: str) -> None:
    drawn(page, atlas_address)
    assert page.locator(".cell").count() == LAYERS * HEADS
    words = page.locator(".holds").inner_text()
    assert words == "A saved part. The small maps of all heads, of at most 128 cells a side; no head can be opened."
    # another reducer, and an order by a statistic: both are there
    before = page.locator("canvas.sheet").screenshot()
    page.get_by_role("form", name="How the atlas is shown").get_by_text("Lift", exact=True).click()
    wait_until(page, lambda: page.locator("canvas.sheet").screenshot() != before)
    page.get_by_text("Highest", exact=True).click()
    wait_until(page, lambda: page.locator(".cell .caption").count() == LAYERS * HEADS)
    assert "not measured" not in page.locator(".cell").first.inner_text()
    assert said == []


def test_a_head_of_a_saved_atlas_cannot_be_opened_and_that_is_said(page: Page, atlas_address: str) -> None:
    drawn(page, atlas_address)
    page.locator('.cell[data-head="1.2"]').focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.head") in ("1.3", "2.2")
    page.keyboard.press("Enter")
    page.get_by_text(
        "This file holds only a part: the small maps of the heads, none of which can be opened."
    ).wait_for()
    assert page.locator(".cell").count() == LAYERS * HEADS, "the atlas stays"
    page.evaluate("location.hash = 'a.1.2'")
    page.get_by_text("a.1.2", exact=False).first.wait_for()
    assert page.locator("section.matrix").count() == 0


def test_a_saved_atlas_gives_pictures(page: Page, said: list[str], atlas_address: str, tmp_path: Path) -> None:
    path = saved(drawn(page, atlas_address), "SVG", tmp_path)
    root = ElementTree.fromstring(path.read_text("utf-8"))  # noqa: S314 - ours
    images = [image for image in root.iter(f"{SVG}image") if image.get("width") == image.get("height")]
    assert len(images) == LAYERS * HEADS
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "largest attention, of cells of 8 × 8 entries" in texts
    assert said == []


def png_pixels(content: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a PNG file; (rows, cols, 3)."""
    return (imread(io.BytesIO(content))[..., :3] * 255).round().astype(np.uint8)
