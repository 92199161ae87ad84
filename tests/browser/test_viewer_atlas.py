"""All heads at a glance in the page: painted, ordered, chosen from, and opened by pointer and by keyboard."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import numpy as np
from matplotlib.image import imread
from playwright.sync_api import Locator, Page, expect

from visiting import number_in, until

HEADS = 12
"""Of three layers of four heads."""


def cells(page: Page) -> Locator:
    return page.locator(".cell")


def painted(page: Page) -> int:
    """Return how many colours the grid shows."""
    # Hiding the caret would need a style of its own, which the page's policy refuses.
    picture = imread(io.BytesIO(page.locator(".grid").screenshot(caret="initial")))
    return len(np.unique((picture[..., :3] * 255).round().astype(np.uint8).reshape(-1, 3), axis=0))


def heads(page: Page) -> list[str]:
    """Return the heads in the order in which they stand: line by line."""
    found = cells(page).evaluate_all(
        """(cells) => cells
            .map((cell) => [cell.offsetTop, cell.offsetLeft, cell.dataset.head])
            .sort((a, b) => a[0] - b[0] || a[1] - b[1])"""
    )
    return [head for _, _, head in found]


class Place(NamedTuple):
    left: float
    top: float
    head: str


def focused(page: Page) -> Place:
    """Return where the cell stands that has the focus."""
    left, top, head = page.evaluate(
        """() => {
            const {offsetLeft, offsetTop, dataset} = document.activeElement;
            return [offsetLeft, offsetTop, dataset.head];
        }"""
    )
    return Place(left, top, head)


def said(page: Page, head: str) -> float:
    """Return the statistic that a head's name says."""
    name = page.locator(f'.cell[data-head="{head}"]').get_attribute("aria-label") or ""
    return number_in(name.split(", ", 2)[2])


def measured(page: Page) -> None:
    """Wait until every head has its statistic."""
    expect(page.get_by_role("button", name=re.compile(r"^Layer \d, head \d, .*\d"))).to_have_count(HEADS)


def test_every_head_has_a_map(viewer: Page) -> None:
    page = viewer
    expect(cells(page)).to_have_count(HEADS)
    until(page, lambda: painted(page) > 200)
    measured(page)


def test_another_reducer_paints_other_maps(viewer: Page) -> None:
    page = viewer
    until(page, lambda: painted(page) > 200)
    grid = page.locator(".grid")
    before = grid.screenshot(caret="initial")
    page.get_by_text("Max", exact=True).click()
    until(page, lambda: "reduce=max" in page.url)
    until(page, lambda: grid.screenshot(caret="initial") != before and painted(page) > 100)


def test_heads_are_ordered_by_a_statistic(viewer: Page) -> None:
    page = viewer
    measured(page)
    by_layer = heads(page)
    for statistic in ("entropy", "distance"):
        page.get_by_role("combobox", name="Statistic").select_option(statistic)
        page.get_by_text("Highest", exact=True).click()
        until(page, lambda name=statistic: f"sort={name}" in page.url)
        values = [said(page, head) for head in heads(page)]
        assert values == sorted(values, reverse=True)
        page.get_by_text("Lowest", exact=True).click()
        until(page, lambda name=statistic: f"sort=-{name}" in page.url)
        values = [said(page, head) for head in heads(page)]
        assert values == sorted(values)
    page.get_by_text("By layer", exact=True).click()
    until(page, lambda: "sort=" not in page.url)
    assert heads(page) == by_layer


def test_only_some_heads_are_shown(viewer: Page) -> None:
    page = viewer
    measured(page)
    show = page.get_by_role("combobox", name="Show")
    choices = [
        value for value in show.locator("option").evaluate_all("(all) => all.map((o) => o.value)") if ">" in value
    ]
    assert choices
    for choice in choices:
        statistic = choice.split(">")[0]
        page.get_by_role("combobox", name="Statistic").select_option(statistic)
        show.select_option("")
        expect(cells(page)).to_have_count(HEADS)
        measured(page)
        above = {head for head in heads(page) if said(page, head) > 0.5}
        show.select_option(choice)
        page.get_by_text("Highest", exact=True).click()
        expect(cells(page)).to_have_count(len(above))
        assert set(heads(page)) == above
        assert page.get_by_text("No head is like that.").count() == (0 if above else 1)
        page.get_by_text("By layer", exact=True).click()


def test_maps_can_be_large(viewer: Page) -> None:
    page = viewer
    cell = cells(page).first
    expect(cell).to_be_visible()
    before = (cell.bounding_box() or {})["width"]
    page.get_by_text("Large", exact=True).click()
    until(page, lambda: "size=large" in page.url)
    assert (cells(page).first.bounding_box() or {})["width"] > before or before > 150


def test_a_card_tells_of_the_head_that_is_pointed_at(viewer: Page) -> None:
    page = viewer
    measured(page)
    page.locator('.cell[data-head="1.2"]').hover()
    card = page.get_by_role("tooltip")
    expect(card).to_contain_text("Layer 1, head 2")
    expect(card).to_contain_text("entropy")
    page.mouse.move(2, 2)
    expect(card).to_have_count(0)


def test_arrows_go_from_head_to_head_and_enter_opens_one(viewer: Page) -> None:
    page = viewer
    expect(cells(page)).to_have_count(HEADS)
    page.locator('.cell[data-head="0.0"]').focus()
    start = focused(page)
    page.keyboard.press("ArrowRight")
    right = focused(page)
    assert right.left > start.left
    assert right.top == start.top
    page.keyboard.press("ArrowDown")
    below = focused(page)
    assert below.left == right.left
    assert below.top > right.top
    head = below.head.split(".")
    expect(page.get_by_role("tooltip")).to_contain_text(f"Layer {head[0]}, head {head[1]}")
    page.keyboard.press("ArrowLeft")
    assert focused(page)._replace(head="") == (start.left, below.top, "")
    page.keyboard.press("End")
    assert focused(page).left >= right.left
    page.keyboard.press("Home")
    first = focused(page)
    assert (first.left, first.top) == (start.left, below.top)
    page.keyboard.press("Enter")
    layer, number = first.head.split(".")
    expect(page.locator(".head-bar h2")).to_have_text(f"Layer {layer}, head {number}")
    page.keyboard.press("Escape")
    expect(page.locator(f'.cell[data-head="{first.head}"]')).to_have_class(re.compile("marked"))


def test_a_click_opens_a_head_and_back_returns(viewer: Page) -> None:
    page = viewer
    page.locator('.cell[data-head="1.0"]').click()
    expect(page.locator(".head-bar h2")).to_have_text("Layer 1, head 0")
    expect(page).to_have_title(re.compile(r"^1\.0 · base"))
    page.go_back()
    expect(cells(page)).to_have_count(HEADS)
    until(page, lambda: painted(page) > 200)
    page.get_by_role("searchbox").fill("2.3")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator(".head-bar h2")).to_have_text("Layer 2, head 3")
    page.get_by_role("button", name="attlas").click()
    expect(cells(page)).to_have_count(HEADS)
