"""The viewer as a whole: its themes, its names for those who hear it, what it saves, and text that is hostile."""

from __future__ import annotations

import http.client
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from attlas.view.serving.running import Server
from gallery import HOSTILE, SHOWN
from visiting import at, colours, labels, pixels, until

INK = "getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"


def test_light_and_dark_are_chosen_and_kept(visitor: Page) -> None:
    page = at(visitor, "a.1.2")
    page.emulate_media(color_scheme="dark")
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    until(page, lambda: colours(page, ".map-zoom canvas") > 20)
    dark, map_in_dark = page.evaluate(INK), pixels(page, ".map-zoom canvas")
    page.get_by_role("button", name=re.compile("^Theme: auto")).click()
    expect(root).to_have_attribute("data-theme", "light")
    assert page.evaluate(INK) != dark
    until(page, lambda: pixels(page, ".map-zoom canvas") != map_in_dark)
    until(page, lambda: "theme=light" in page.url)
    page.reload()
    expect(root).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name=re.compile("^Theme: light")).click()
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name=re.compile("^Theme: dark")).click()
    page.emulate_media(color_scheme="light")
    expect(root).to_have_attribute("data-theme", "light")


def test_parts_have_names_for_those_who_hear_the_page(viewer: Page) -> None:
    page = viewer
    for part in (
        page.get_by_role("region", name="Atlas of all heads"),
        page.get_by_role("group", name="Attention of every head"),
        page.get_by_role("form", name="How the atlas is shown"),
        page.get_by_role("search"),
        page.get_by_role("searchbox", name="Search for text, a position, or a head"),
        page.get_by_role("combobox", name="Document"),
        page.get_by_role("button", name="Help"),
    ):
        expect(part).to_have_count(1)
    at(page, "a.1.2&panels=text,card,explain")
    for part in (
        page.get_by_role("region", name="The matrix"),
        page.get_by_role("region", name="Matrix of base, layer 1, head 2"),
        page.get_by_role("img", name=re.compile("Map of base, layer 1, head 2: .* queries by .* keys")),
        page.get_by_role("toolbar", name="The map"),
        page.get_by_role("slider", name="Upper end of the colours"),
        page.get_by_role("slider", name="Lower end of the colours"),
        page.get_by_role("complementary", name="Text and head"),
        page.get_by_role("region", name="Text", exact=True),
        page.get_by_role("region", name="Explain", exact=True),
        page.get_by_role("region", name="Head", exact=True),
        page.get_by_role("button", name="Previous head"),
    ):
        expect(part).to_have_count(1)
    nameless = page.locator("button, select, input, [role=slider]").evaluate_all(
        """(all) => all
            .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_help_opens_and_closes_by_key(viewer: Page) -> None:
    viewer.keyboard.press("?")
    dialog = viewer.get_by_role("dialog", name="Keys, and how to read the maps")
    expect(dialog).to_be_visible()
    viewer.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


@pytest.mark.parametrize(("state", "name"), [("a.1.2&row=8&col=4", "matrix"), ("a", "atlas")], ids=["matrix", "atlas"])
def test_pictures_are_saved(viewer: Page, state: str, name: str, tmp_path: Path) -> None:
    page = at(viewer, state)
    if name == "matrix":
        until(page, lambda: colours(page, ".map-zoom canvas") > 20)
    saved: dict[str, bytes] = {}
    for kind in ("PNG", "SVG"):
        page.locator(".save summary").click()
        with page.expect_download() as download:
            page.get_by_role("button", name=re.compile(f"^{kind} ?[a-z]")).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.suffix == f".{kind.lower()}"
        saved[kind] = path.read_bytes()
        expect(page.locator(".save-list")).to_be_hidden()
    assert saved["PNG"].startswith(b"\x89PNG")
    assert len(saved["PNG"]) > 5_000, "more than an empty sheet"
    root = ElementTree.fromstring(saved["SVG"])  # noqa: S314 - ours
    assert root.tag.endswith("svg")
    assert any("head" in "".join(text.itertext()).lower() for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_hostile_text_is_nothing_but_text(visitor: Page) -> None:
    page = at(visitor, "b.1.2&at=-2,-2,14&row=9&col=1")
    # The title, in the list of documents and in the window's own.
    expect(page.locator(".document option").nth(1)).to_contain_text(f"b: {HOSTILE[0]}⟨U+202E⟩")
    expect(page).to_have_title(f"1.2 · {HOSTILE[0]}⟨U+202E⟩ · attlas")
    # The axes.
    for axis in ("map-left", "map-top"):
        for beginning in ("</scr", "⟨U+202", "◌\u0301", "␀", "<b", "javasc", "⟨U+FFF", "%00"):
            until(page, lambda name=axis, text=beginning: any(said.startswith(text) for said in labels(page, name)))
        assert not any(re.search("[\u202e\u2028\x00\ufffe\u200d]", label) for label in labels(page, axis))
    # The text, the list, and what is selected.
    text = page.locator(".text .t")
    for i, shown in enumerate(SHOWN):
        expect(text.nth(i)).to_have_text(shown.replace("·", " "))
    expect(page.locator(".top .words").filter(has_text="<b·onmouseover=alert(2)>bold</b>").first).to_be_visible()
    expect(page.locator(".map-where .token")).to_have_text([SHOWN[9], SHOWN[1]])
    # The card of a token, and the search.
    text.nth(0).hover()
    expect(page.get_by_role("tooltip")).to_contain_text("</script><img src=x onerror=alert(1)>")
    page.get_by_role("searchbox").fill("<img src=x")
    expect(page.locator(".search output")).to_contain_text("4")
    assert page.locator("img, .text b, .text script").count() == 0
    # Beside another one the titles stand above the maps.
    at(page, "b.1.2&minus=b.1.3&find=%3Cimg%20src%3Dx")
    expect(page.locator(".map-title")).to_have_text(re.compile(re.escape(f"{HOSTILE[0]}⟨U+202E⟩, layer 1, head 2 − ")))
    assert page.locator("img").count() == 0


def test_the_icon_is_the_page_s_own(visitor: Page, gallery: Server) -> None:
    href = visitor.locator('link[rel="icon"]').get_attribute("href") or ""
    assert href.startswith("/assets/")
    connection = http.client.HTTPConnection("127.0.0.1", gallery.port, timeout=30)
    connection.request("GET", href)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "image/svg+xml")
    assert answer.read().startswith(b"<svg")
    connection.close()
