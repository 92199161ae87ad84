"""The viewer's address: it holds what is looked at, survives reloads, and what makes no sense in it does no harm."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from visiting import at, until

STATE = (
    "a.1.2&reduce=max&scale=linear,0,0.5,locked&sink=in&at=300,310,60&row=320&col=305&by=col&shade=linear&panels=text"
)


def title(page: Page) -> str:
    return page.locator(".head-bar h2").inner_text()


def shown_state(page: Page) -> None:
    expect(page.locator(".head-bar h2")).to_have_text("Layer 1, head 2")
    expect(page.get_by_role("radio", name="max")).to_be_checked()
    expect(page.get_by_role("radio", name="linear", exact=True)).to_be_checked()
    expect(page.get_by_role("switch", name="first token aside")).not_to_be_checked()
    expect(page.get_by_role("slider", name="Upper end of the colours")).to_have_attribute("aria-valuenow", "0.5")
    expect(page.get_by_role("button", name="Lock the range")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".map-where b")).to_have_text(["320", "305"])
    expect(page.locator('.text [data-i="305"]')).to_have_class(re.compile("selected"))
    expect(page.get_by_role("radio", name="looked at by")).to_be_checked()
    expect(page.get_by_role("radio", name="Linear", exact=True)).to_be_checked()
    expect(page.get_by_role("button", name="Head", exact=True)).to_have_attribute("aria-expanded", "false")


def test_a_state_comes_back_from_its_address_alone_and_from_a_reload(visitor: Page) -> None:
    page = at(visitor, STATE)
    shown_state(page)
    address = page.url
    page.reload()
    shown_state(page)
    assert page.url == address
    other = page.context.new_page()
    other.goto(address)
    shown_state(other)
    other.close()


def test_what_is_done_on_the_page_is_in_the_address(visitor: Page) -> None:
    page = visitor
    page.locator('.cell[data-head="1.2"]').click()
    until(page, lambda: "#a.1.2" in page.url)
    page.get_by_role("toolbar", name="The map").get_by_text("mass", exact=True).click()
    until(page, lambda: "reduce=mass" in page.url)
    page.get_by_text("first token aside", exact=True).click()
    until(page, lambda: "sink=in" in page.url)
    page.get_by_role("button", name="Zoom in").click()
    until(page, lambda: "at=" in page.url)
    page.locator('.text [data-i="3"]').click()
    until(page, lambda: "row=3" in page.url)
    page.get_by_role("button", name="Head", exact=True).click()
    until(page, lambda: "panels=text" in page.url)
    page.get_by_role("button", name=re.compile("^Theme")).click()
    until(page, lambda: "theme=light" in page.url)
    page.get_by_role("searchbox").fill("word3")
    until(page, lambda: "find=word3" in page.url)


def test_back_and_forward_go_from_head_to_head(visitor: Page) -> None:
    page = visitor
    page.locator('.cell[data-head="0.1"]').click()
    expect(page.locator(".head-bar h2")).to_have_text("Layer 0, head 1")
    page.get_by_role("button", name="Next head").click()
    expect(page.locator(".head-bar h2")).to_have_text("Layer 0, head 2")
    page.get_by_text("mean of heads", exact=True).click()
    expect(page.locator(".head-bar h2")).to_have_text("Layer 0, mean of heads")
    for expected in ("Layer 0, head 2", "Layer 0, head 1"):
        page.go_back()
        expect(page.locator(".head-bar h2")).to_have_text(expected)
    page.go_back()
    expect(page.locator(".cell").first).to_be_visible()
    page.go_forward()
    expect(page.locator(".head-bar h2")).to_have_text("Layer 0, head 1")


@pytest.mark.parametrize(
    "wrong",
    [
        ["z.9.9"],
        ["a.0.99", "a.99.0"],
        ["a.1.2&at=1e999,0,10", "a.1.2&at=0,0,0", "a.1.2&at=NaN,0,1", "a.1.2&at=0,0,99999999"],
        ["a.1.2&row=700", "a.1.2&row=-1", "a.1.2&col=1e3", "a.1.2&row=0x10"],
        ["a.1.2&scale=log,0,1", "a.1.2&scale=lift,4,2", "a.1.2&reduce=max&scale=linear,0"],
        ["a.1.2&__proto__=1", "a.1.2&constructor=1", "a.1.2&reduce=toString", "a.1.2&nothing=1"],
        ["a.1.2&find=%", "a.1.2&%E0%A4%A", "a.1.2&find=" + "x" * 300],
        ["a.1.2&minus=d.0.0", "a.1.2&with=b.9.9", "a.1.2&with=a.0.1:~"],
        ["a.1.2&show=<img src=x onerror=alert(1)>", "a.1.2&sort=javascript:alert(1)", "a.1.2&theme=</script>"],
    ],
    ids=["capture", "head", "window", "position", "scale", "name", "escape", "other", "markup"],
)
def test_what_means_nothing_is_left_out_and_said_so(visitor: Page, wrong: list[str]) -> None:
    page = visitor
    for state in wrong:
        at(page, state)
        notice = page.locator(".notice", has_text="mean nothing here and were left out")
        expect(notice.first).to_be_visible()
        for button in page.get_by_role("button", name="Dismiss").all():
            button.click()
        expect(page.locator(".notice")).to_have_count(0)
        # What is left of the address is shown as ever.
        if state.startswith("a.1.2"):
            expect(page.locator(".head-bar h2")).to_have_text("Layer 1, head 2")
        else:
            expect(page.locator(".cell").first).to_be_visible()
    at(page, "a.0.3")
    expect(page.locator(".head-bar h2")).to_have_text("Layer 0, head 3")
    expect(page.locator(".map-entropy-name")).not_to_be_empty()


def test_two_pages_at_once_do_not_disturb_one_another(visitor: Page) -> None:
    first = at(visitor, "a.1.2&row=20&col=10")
    second = first.context.new_page()
    second.goto(first.url.split("#")[0] + "#a.2.1&row=30&col=15")
    for page, place in ((first, ["20", "10"]), (second, ["30", "15"])):
        expect(page.locator(".map-where b")).to_have_text(place)
        expect(page.locator(".map-value .number")).to_be_visible()
    numbers = [page.locator(".map-value .number").inner_text() for page in (first, second)]
    second.get_by_role("button", name="Next head").click()
    second.get_by_role("toolbar", name="The map").get_by_text("max", exact=True).click()
    until(second, lambda: "reduce=max" in second.url)
    assert title(second) == "Layer 2, head 2"
    assert title(first) == "Layer 1, head 2"
    assert "reduce" not in first.url
    assert first.locator(".map-value .number").inner_text() == numbers[0]
    second.close()
    first.locator("section.matrix").focus()
    first.keyboard.press("ArrowDown")
    expect(first.locator(".map-where b")).to_have_text(["21", "10"])
