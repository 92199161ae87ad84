"""The document beside a matrix: which tokens are coloured, by what, and what a click on one does."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from gallery import LONG, long
from visiting import at, number_in, until

HEAD = "a.1.2"
ROW = 420


def token(page: Page, position: int) -> Locator:
    return page.locator(f'.text [data-i="{position}"]')


def shares(page: Page) -> dict[int, float]:
    """Return how strongly each token that is in the page is coloured; in per cent."""
    found = page.locator(".text").evaluate(
        """(text) => [...text.querySelectorAll(".t")]
            .map((one) => [one.dataset.i, one.style.getPropertyValue("--s")])"""
    )
    return {int(i): float(share.rstrip("%")) for i, share in found if share}


def listed(page: Page) -> list[tuple[int, float]]:
    """Return the positions and the values of the list below the text."""
    rows = page.locator(".top li").all()
    return [(int(r.locator(".position").inner_text()), number_in(r.locator(".value").inner_text())) for r in rows]


def test_a_token_is_selected_in_the_text_and_in_the_matrix(visitor: Page) -> None:
    page = at(visitor, HEAD)
    token(page, 5).click()
    expect(token(page, 5)).to_have_class(re.compile("selected"))
    until(page, lambda: "row=5" in page.url)
    page.locator(".top li button").first.click()
    until(page, lambda: "col=" in page.url)
    page.mouse.move(2, 500)
    expect(page.locator(".map-where")).to_contain_text("selectedquery 5·word5")
    expect(page.locator(".map-value .number")).to_be_visible()
    token(page, 5).click()
    until(page, lambda: "row=" not in page.url)


def test_what_a_token_looks_at_is_coloured_and_listed(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&row={ROW}")
    row = long().capture[1][0, 2, ROW : ROW + 1, :].reshape(-1)
    expect(page.locator(".top p")).to_contain_text(f"looked at most by {ROW}")
    most = [int(i) + 1 for i in row[1:].argsort(descending=True)[:3]]  # the first token is aside
    found = listed(page)
    assert [position for position, _ in found[:3]] == most
    for position, value in found[:6]:
        assert value == pytest.approx(float(row[position]), rel=0.01)
    assert number_in(page.locator(".top p span").last.inner_text()) == pytest.approx(float(row[0]), rel=0.01)
    strong = shares(page)
    assert strong, "some of the text in sight is coloured"
    assert all(i <= ROW for i in strong), "nothing after the token can be seen by it"


def test_who_looks_at_a_token_is_another_question(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&row={ROW}&col=7")
    page.get_by_text("looked at by", exact=True).click()
    expect(page.locator(".top p")).to_contain_text("look most at 7")
    column = long().capture[1][0, 2, :, 7:8].reshape(-1)
    position, value = listed(page)[0]
    assert position == int(column.argmax())
    assert value == pytest.approx(float(column.max()), rel=0.01)
    until(page, lambda: "by=col" in page.url)
    expect(token(page, 7)).to_have_class(re.compile("selected"))
    until(page, lambda: bool(shares(page)) and all(i >= 7 for i in shares(page)))
    page.get_by_text("looks at", exact=True).click()
    expect(page.locator(".top p")).to_contain_text(f"looked at most by {ROW}")


def test_with_nothing_selected_it_is_what_each_token_receives(visitor: Page) -> None:
    page = at(visitor, HEAD)
    expect(page.locator(".top p")).to_contain_text("most attention received")
    received = long().capture[1].received()[0, 2]
    position, value = listed(page)[0]
    assert position == int(received[1:].argmax()) + 1
    assert value == pytest.approx(float(received[position]), rel=0.01)


def test_the_shade_is_a_logarithm_or_the_value_itself(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&row=60")
    until(page, lambda: len(shares(page)) > 20)
    before = shares(page)
    page.get_by_role("group", name="Shade").get_by_text("Linear", exact=True).click()
    until(page, lambda: shares(page) != before)
    assert sum(shares(page).values()) < sum(before.values()), "small shares are fainter than their logarithms"


def test_arrows_walk_through_the_text(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&row=10")
    expect(token(page, 10)).to_have_class(re.compile("selected"))
    page.get_by_label(re.compile(f"The document, {LONG} tokens")).focus()
    page.keyboard.press("ArrowRight")
    expect(token(page, 11)).to_have_class(re.compile("selected"))
    page.keyboard.press("End")
    expect(token(page, LONG - 1)).to_have_class(re.compile("selected"))
    expect(token(page, LONG - 1)).to_be_in_viewport()


def test_resting_on_a_token_tells_its_string_and_its_number(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&row=60")
    until(page, lambda: len(shares(page)) > 20)
    token(page, 30).hover()
    card = page.get_by_role("tooltip")
    expect(card).to_contain_text('" word30"')
    value = float(long().capture[1][0, 2, 60:61, 30:31])
    said = re.search(r"\(([\d.e-]+)\)", card.inner_text())
    assert said is not None
    assert float(said[1]) == pytest.approx(value, rel=1e-4)
    page.mouse.move(2, 500)
    expect(card).to_have_count(0)
