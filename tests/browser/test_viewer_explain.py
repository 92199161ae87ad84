"""Explaining and comparing in the viewer, in a real browser that asks a real server."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from visiting import at, colours, until

SHADED = "[...document.querySelectorAll('.text .t')].filter((token) => token.style.getPropertyValue('--s')).length"


def explanations(page: Page) -> Locator:
    return page.get_by_role("list", name="Explanations of this document").locator("li")


def asked(page: Page, method: str, faithfulness: str | None = None) -> None:
    """Ask for an explanation with the keyboard alone."""
    choice = page.get_by_role("combobox", name="Method")
    choice.focus()
    choice.select_option(method)
    if faithfulness is not None:
        page.get_by_role("combobox", name="Faithfulness").select_option(faithfulness)
    button = page.locator("form").get_by_role("button", name="Explain", exact=True)
    button.focus()
    page.keyboard.press("Enter")


def test_an_explanation_is_asked_for_judged_and_switched(viewer: Page) -> None:
    page = at(viewer, "a.1.0&panels=text,explain")
    asked(page, "chefer", "160")
    first = explanations(page).nth(0)
    expect(first).to_contain_text("chefer")
    expect(first.locator(".verdict")).to_have_text(
        re.compile("more faithful than chance|less faithful than chance|cannot tell")
    )
    trust = page.get_by_role("region", name="How far it can be trusted")
    expect(trust).to_contain_text("log-probability")
    expect(page.locator(".curves figure")).to_have_count(2)
    expect(page.locator(".curves .lines")).to_contain_text("random")
    expect(page.locator(".ranked tbody tr").first).to_be_visible()
    until(page, lambda: page.evaluate(SHADED) > 3)
    most = page.locator(".ranked tbody .position").first.text_content()

    asked(page, "recency", "0")
    expect(explanations(page)).to_have_count(2)
    expect(explanations(page).nth(1).locator(".verdict")).to_have_text("not measured")
    expect(trust).to_contain_text("nothing here says whether the model needed")
    expect(page.locator(".ranked thead th").nth(1)).to_have_text("recency")

    # Back to the first, and the second beside it.
    first.get_by_role("radio").focus()
    page.keyboard.press("Space")
    expect(page.locator(".ranked tbody .position").first).to_have_text(most or "")
    page.get_by_role("button", name=re.compile("Compare with recency")).click()
    expect(page.locator(".ranked thead th")).to_have_count(3)
    page.get_by_role("button", name="recency", exact=True).click()
    expect(page.locator(".ranked thead th").nth(2)).to_have_attribute("aria-sort", "descending")
    expect(page).to_have_url(re.compile("why=chefer/160/-1&also=recency/0/-1&colour=explanation"))


def test_a_saved_page_keeps_what_was_found(viewer: Page, page: Page, said: list[str], tmp_path: Path) -> None:
    at(viewer, "a.1.0&panels=text,explain")
    asked(viewer, "chefer", "160")
    expect(explanations(viewer).nth(0).locator(".verdict")).to_have_count(1)
    asked(viewer, "recency", "0")
    expect(explanations(viewer).nth(1).locator(".verdict")).to_have_text("not measured")
    coloured = viewer.evaluate(SHADED)
    most = viewer.locator(".ranked tbody .position").first.inner_text()
    viewer.locator(".save summary").click()
    with viewer.expect_download() as download:
        viewer.get_by_role("button", name=re.compile("^Page")).click()
    path = tmp_path / "page.html"
    download.value.save_as(path)

    # Another browser profile, and no network.
    page.goto(path.as_uri())
    expect(explanations(page)).to_have_count(2)
    expect(page.locator(".ranked tbody .position").first).to_have_text(most)
    assert coloured > 3
    until(page, lambda: page.evaluate(SHADED) == coloured)
    expect(page.locator(".explain form")).to_have_count(0)
    expect(page.locator(".explain")).to_contain_text("nothing else can be explained here")
    expect(page.get_by_role("button", name=re.compile("^Remove"))).to_have_count(0)
    page.get_by_role("radio", name=re.compile("chefer")).check()
    expect(page.get_by_role("region", name="How far it can be trusted")).to_contain_text("log-probability")
    expect(page.locator(".curves figure")).to_have_count(2)
    for i in range(2):
        verdict = explanations(viewer).nth(i).locator(".verdict").inner_text()
        expect(explanations(page).nth(i).locator(".verdict")).to_have_text(verdict)
    page.get_by_role("button", name=re.compile("Compare with recency")).click()
    expect(page.locator(".ranked thead th")).to_have_count(3)
    assert said == []


def test_an_address_brings_an_explanation_back(viewer: Page) -> None:
    page = at(viewer, "a.0.1&why=value_norm/0/5&colour=explanation&panels=text,explain")
    expect(explanations(page)).to_have_count(1)
    expect(explanations(page).first).to_contain_text("what comes after token 5")
    expect(page.locator(".text .answers")).to_have_attribute("data-i", "5")
    page.get_by_text("looks at", exact=True).click()
    expect(page.locator(".ranked")).to_have_count(0)
    expect(page.locator(".top")).to_be_visible()


def test_what_does_not_fit_is_said_where_it_was_asked_for(viewer: Page) -> None:
    page = at(viewer, "a.0.1&panels=text,explain")
    page.get_by_text("written", exact=True).click()
    written = page.get_by_label("What is explained", exact=True)
    button = page.locator("form").get_by_role("button", name="Explain", exact=True)
    written.fill("Paris")
    expect(button).to_be_disabled()
    written.fill("-1: two words of it")
    written.press("Enter")
    expect(explanations(page).get_by_role("alert")).to_contain_text("target: wanted one token")


def test_a_pattern_is_written_refused_and_compared_with(viewer: Page) -> None:
    page = at(viewer, "a.1.2")
    page.get_by_role("button", name="Compare …").click()
    dialog = page.get_by_role("dialog")
    written = dialog.get_by_label("as written")
    for wrong, message in [("a.9.9", "There is no layer 9"), ("magic:width=4", "pattern"), ("?", "neither a head nor")]:
        written.fill(wrong)
        written.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text(message)
    written.fill("sliding_window:width=4")
    written.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator(".map-title")).to_contain_text("−")
    line = page.locator(".apart")
    expect(line).to_contain_text(
        re.compile(r"moves [\d.]+ % of its attention on average, at most [\d.]+ % in query \d+")
    )
    expect(line).to_contain_text(re.compile(r"largest in sight [+−]0\.\d+ at query \d+ → key \d+"))
    until(page, lambda: colours(page, ".map-zoom canvas") > 8)
    line.get_by_role("button").last.click()
    expect(page.locator(".map-readout")).to_contain_text("A − A")
    expect(page).to_have_url(re.compile("minus=a.1.2:sliding_window:width%3D4|minus=a.1.2:sliding_window:width=4"))


def test_the_same_head_of_the_other_capture_beside_and_as_a_difference(viewer: Page) -> None:
    page = at(viewer, "a.1.2")
    page.get_by_role("button", name="Compare …").click()
    page.get_by_role("button", name="the same head of b: tuned").click()
    expect(page.locator(".map-title")).to_have_text(re.compile("base, layer 1, head 2 − tuned, layer 1, head 2"))
    page.get_by_text("Beside", exact=True).click()
    expect(page.locator(".map-pane")).to_have_count(2)
    expect(page.locator(".apart")).to_contain_text("of its attention on average")
    page.get_by_text("Off", exact=True).click()
    expect(page.locator(".map-pane")).to_have_count(1)
    expect(page.locator(".apart")).to_have_count(0)
