"""The page of an atlas in a real browser, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from attlas.view.page import page as page_of
from viewing import HEADS, LAYERS, measured, opened, written

HOSTILE = ["</script><img src=x onerror=alert(1)>", "\u202egnp.exe", "\ud800", " b\n", "<b>bold</b>", "\u2028"] * 7
SMALL = "document.querySelector('[data-head=\"1.2\"] canvas').toDataURL()"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    text = page_of(measured(HOSTILE), title="<i>a text</i>", error=2e-6)
    return written(tmp_path_factory.mktemp("atlas"), "atlas", text)


def test_it_opens_offline_and_quietly(page: Page, address: str, said: list[str]) -> None:
    opened(page, address)
    expect(page.locator(".cell")).to_have_count(LAYERS * HEADS)
    expect(page.locator("h1")).to_have_text("<i>a text</i>")
    expect(page.locator("#facts")).to_contain_text("3 layers × 4 heads · 42 tokens")
    expect(page.locator("#facts")).to_contain_text("2.0·10⁻⁶")
    assert said == []


def test_hostile_tokens_are_text(page: Page, address: str, said: list[str]) -> None:
    opened(page, address, "head=0.0&at=1,0")
    expect(page.locator("#reading")).to_contain_text("⟨U+202E⟩gnp.exe")
    expect(page.locator("#reading")).to_contain_text("</script><img·src=x·onerror=alert(1)>")
    for _ in range(6):
        page.keyboard.press("ArrowDown")
    assert page.locator("img, b:not(#notes b), i").count() == 0
    assert said == []


def test_a_click_opens_a_head_and_escape_closes_it(page: Page, address: str) -> None:
    opened(page, address)
    page.click('[data-head="1.2"]')
    expect(page.locator("#head-title")).to_have_text("Layer 1 · head 2")
    expect(page.locator("#numbers tr")).to_have_count(10)
    assert "head=1.2" in page.url
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    assert "head=" not in page.url
    assert page.evaluate("document.activeElement.dataset.head") == "1.2", "the focus returns to where it came from"


def test_the_keyboard_goes_everywhere(page: Page, address: str) -> None:
    opened(page, address)
    page.locator('[data-head="0.0"]').focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    where = page.evaluate("document.activeElement.dataset.head")
    assert where in ("0.2", "2.0"), "two steps down and back to the edge, whichever way the grid lies"
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "at=8,1" in page.url
    layer, head = where.split(".")
    page.keyboard.press("]")
    expect(page.locator("#head-title")).to_have_text(f"Layer {layer} · head {int(head) + 1}")
    page.keyboard.press("g")
    assert "scale=log" in page.url


def test_the_reading_is_the_matrix(page: Page, address: str) -> None:
    """Under one token a cell, the weights of a row that the page shows sum to one."""
    opened(page, address, "head=2.3&at=5,0")
    statistics = measured(HOSTILE).layers[2]
    for col in range(6):
        value = float(statistics.mean[3, 5, col]) * 6
        shown = page.locator("#reading .big").inner_text().removesuffix("×")
        lift = 1 / float(shown[2:].replace(",", "")) if shown.startswith("1/") else float(shown.replace(",", ""))
        assert lift == pytest.approx(value, rel=0.07 if shown.startswith("1/") else 0.02)
        page.keyboard.press("ArrowRight")
    expect(page.locator("#reading")).to_contain_text("hidden")


def test_colours_follow_the_choices(page: Page, address: str) -> None:
    opened(page, address)
    pictures = {page.evaluate(SMALL)}
    for label in ("Log", "Raw"):
        page.locator("#controls").get_by_text(label, exact=True).click()
        pictures.add(page.evaluate(SMALL))
    assert len(pictures) == 3
    assert "scale=raw" in page.url


def test_the_address_restores_everything(page: Page, address: str) -> None:
    state = "scale=log&cell=max&size=large&order=-entropy&head=1.3&at=20,7"
    opened(page, address, state)
    expect(page.locator("#head-title")).to_have_text("Layer 1 · head 3")
    expect(page.locator("#reading")).to_contain_text("20")
    assert page.evaluate("[...document.querySelectorAll('input:checked')].map((i) => i.value).sort()") == [
        "large",
        "log",
        "max",
    ]
    assert page.input_value("#order") == "-entropy"
    page.evaluate("location.hash = 'head=0.1'")
    expect(page.locator("#head-title")).to_have_text("Layer 0 · head 1")


@pytest.mark.parametrize("state", ["head=9.9&scale=%3Cb%3E&order=x&at=1e9,-3", "%E0%A4%A", "head=0.0&at=99999,0"])
def test_an_address_of_nonsense_is_ignored(page: Page, address: str, state: str, said: list[str]) -> None:
    opened(page, address, state)
    expect(page.locator(".cell")).to_have_count(LAYERS * HEADS)
    assert said == []


def test_ordering_by_a_statistic(page: Page, address: str) -> None:
    opened(page, address)
    page.select_option("#order", "first_token")
    statistics = measured(HOSTILE)
    rows = sorted(statistics.rows(), key=lambda row: -row["first_token"])
    boxes = page.evaluate(
        """[...document.querySelectorAll('.cell')]
            .sort((a, b) => a.offsetTop - b.offsetTop || a.offsetLeft - b.offsetLeft)
            .map((cell) => cell.dataset.head)"""
    )
    assert boxes == [f"{row['layer']}.{row['head']}" for row in rows]


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("state", ["", "order=entropy", "size=large", "head=1.1&at=3,2"])
def test_no_width_overflows(page: Page, address: str, width: int, state: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, address, state)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if "head" in state:
        assert page.evaluate(
            "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
        )


def test_dark_and_light_differ(context: BrowserContext, address: str) -> None:
    pictures = []
    for scheme in ("dark", "light"):
        page = context.new_page()
        page.emulate_media(color_scheme=scheme)
        opened(page, address)
        pictures.append(
            (page.evaluate("getComputedStyle(document.documentElement).backgroundColor"), page.evaluate(SMALL))
        )
    assert pictures[0][0] != pictures[1][0]
    assert pictures[0][1] != pictures[1][1]


def test_hovering_shows_the_heads_numbers(page: Page, address: str) -> None:
    opened(page, address)
    page.hover('[data-head="2.1"]')
    expect(page.locator("#card h2")).to_have_text("Layer 2 · head 1")
    expect(page.locator("#card dt")).to_have_count(10)


def test_the_page_is_small(address: str) -> None:
    assert Path(address.removeprefix("file://")).stat().st_size < 300_000
