"""The page of projections in a real browser, without a network; and the heads' cards on the page of an atlas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from attlas.view.page import page as atlas_of
from viewing import ALL_HEADS, EDGES, HEADS, LAYERS, known, measured, opened, projected, written

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e"
SHOWN = "</script><img src=x onerror=alert(1)>⟨U+202E⟩"
ORDER = "[...document.querySelectorAll('#heads tbody [data-open]')].map((button) => button.dataset.open)"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("projections"), "projections", projected())


def test_it_opens_offline_and_quietly(page: Page, address: str, said: list[str]) -> None:
    opened(page, address)
    expect(page.locator("h1")).to_have_text("tiny")
    expect(page.locator("#facts")).to_contain_text("3 layers × 4 heads · 2 key and value heads · width 8 of 32")
    expect(page.locator("#facts")).to_contain_text("3.0·10⁻⁷")
    expect(page.locator("#parameter-names")).to_contain_text("query 3,072")
    expect(page.locator("#spectra .cell")).to_have_count(LAYERS * HEADS)
    expect(page.locator("#graph .edge")).to_have_count(len(EDGES))
    expect(page.locator("#graph .node")).to_have_count(3)
    expect(page.locator("#ranks .dot")).to_have_count(2 * LAYERS * HEADS)
    expect(page.locator("#heads tbody tr")).to_have_count(LAYERS * HEADS)
    assert said == []


def test_hostile_words_are_text(page: Page, tmp_path: Path, said: list[str]) -> None:
    address = written(tmp_path, "hostile", projected(HOSTILE, model=HOSTILE))
    opened(page, address, "head=2.3&sort=word")
    expect(page.locator("h1")).to_have_text(SHOWN)
    for place in ("#head-title", "#head-facts", "#numbers", "#did"):
        expect(page.locator(place)).to_contain_text(SHOWN)
    expect(page.locator("#graph .word")).to_have_text(["previous token", SHOWN])
    assert page.locator("img").count() == 0
    assert said == []


def test_the_graph_can_be_filtered(page: Page, address: str) -> None:
    opened(page, address)
    page.locator(".kinds .q").click()
    page.locator(".kinds .k").click()
    expect(page.locator("#graph .edge")).to_have_count(1)
    expect(page.locator("#graph .edge.v")).to_have_count(1)
    assert "kinds=v" in page.url
    page.locator(".kinds .v").click()
    expect(page.locator("#graph-facts")).to_have_text("None of these kinds is among the strongest compositions.")


def test_hovering_a_head_lights_what_it_composes_with(page: Page, address: str) -> None:
    opened(page, address)
    page.hover('#graph [data-head="1.0"]')
    expect(page.locator("#graph .edge.lit")).to_have_count(2)
    expect(page.locator("#card h2")).to_have_text("Layer 1 · head 0")
    page.mouse.move(1, 1)
    expect(page.locator("#graph svg.lit")).to_have_count(0)
    expect(page.locator("#card")).to_be_hidden()


def test_the_keyboard_walks_the_graph(page: Page, address: str) -> None:
    opened(page, address)
    page.locator('#graph [data-head="0.1"]').focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.head") == "1.0"
    expect(page.locator("#graph .edge.lit")).to_have_count(2)
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.head") == "2.3"
    page.keyboard.press("Enter")
    expect(page.locator("#head-title")).to_have_text("Layer 2 · head 3 induction")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    assert page.evaluate("document.activeElement.dataset.head") == "2.3", "the focus returns to where it came from"


def test_a_figure_is_one_stop_of_the_tab_key(page: Page, address: str) -> None:
    opened(page, address)
    for figure in ("#graph svg", "#spectra", "#ranks .qk", "#ranks .ov"):
        assert page.locator(f"{figure} [tabindex='0']").count() == 1
    page.locator("#spectra [tabindex='0']").focus()
    for key, head in (("ArrowRight", {"1.0", "0.1"}), ("ArrowDown", {"1.1"}), ("ArrowLeft", {"0.1", "1.0"})):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.head") in head


@pytest.mark.parametrize(
    ("column", "first", "last"), [("qk_effective_rank", "2.3", "0.0"), ("share", "2.3", "0.0"), ("role", "0.1", "2.2")]
)
def test_the_table_sorts_by_any_column(page: Page, address: str, column: str, first: str, last: str) -> None:
    opened(page, address)
    page.click(f'#heads [data-sort="{column}"]')
    order = page.evaluate(ORDER)
    assert (order[0], order[-1]) == (first, last)
    assert page.locator(f'#heads th:has([data-sort="{column}"])').get_attribute("aria-sort") == "descending"
    assert page.evaluate("document.activeElement.dataset.sort") == column, "the heading keeps the focus"
    page.keyboard.press("Enter")
    assert f"sort=-{column}" in page.url
    assert page.evaluate(ORDER)[0] != first


def test_what_is_not_known_comes_last_either_way(page: Page, address: str) -> None:
    for sort in ("share", "-share"):
        opened(page, address, f"sort={sort}")
        assert page.evaluate(ORDER)[-1] == "0.0"


def test_a_card_tells_what_is_known(page: Page, address: str) -> None:
    opened(page, address, "head=2.3")
    expect(page.locator("#head-title .badge")).to_have_text("induction")
    expect(page.locator("#did tr.passes")).to_have_count(1)
    expect(page.locator("#from .chip")).to_have_text(["0.1", "1.0"])
    expect(page.locator("#from")).to_contain_text("0.500 · 2.78× chance")
    expect(page.locator("#to")).to_contain_text("none among the strongest")
    expect(page.locator("#numbers tr").first).to_contain_text("11")
    expect(page.locator("#figures svg.kernel")).to_have_count(1)
    page.locator("#from .chip").last.click()
    expect(page.locator("#head-title")).to_have_text("Layer 1 · head 0")
    page.keyboard.press("]")
    expect(page.locator("#head-title")).to_have_text("Layer 1 · head 1")
    page.keyboard.press("[")
    page.keyboard.press("[")
    expect(page.locator("#head-title")).to_have_text("Layer 0 · head 3")


def test_spectra_are_those_that_were_given(page: Page, address: str) -> None:
    """The figure of a head is as high, at each place, as its singular value over the largest."""
    opened(page, address)
    path = page.locator('#spectra [data-head="1.2"] .qk').get_attribute("d")
    assert path
    heights = [30 - float(step.split("H")[0].split(",")[1]) for step in path.split("L")[1:-1]]
    spectrum = known().tracks["qk"][ALL_HEADS.index((1, 2))]
    assert heights == pytest.approx((29 * spectrum / spectrum.max()).tolist(), abs=0.2)


@pytest.mark.parametrize("state", ["head=9.9&kinds=x&edges=1e9&sort=%3Cb%3E", "%E0%A4%A", "head=&sort=-"])
def test_an_address_of_nonsense_is_ignored(page: Page, address: str, state: str, said: list[str]) -> None:
    opened(page, address, state)
    expect(page.locator("#graph .edge")).to_have_count(len(EDGES))
    assert said == []


def test_the_address_restores_everything(page: Page, address: str) -> None:
    opened(page, address, "kinds=qk&edges=40&sort=-share&head=0.1")
    expect(page.locator("#head-title")).to_contain_text("Layer 0 · head 1")
    expect(page.locator("#graph .edge")).to_have_count(2)
    assert page.evaluate(ORDER)[0] == "0.1"
    page.evaluate("location.hash = 'head=2.0'")
    expect(page.locator("#head-title")).to_have_text("Layer 2 · head 0")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("state", ["", "head=2.3"])
def test_no_width_overflows(page: Page, address: str, width: int, state: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, address, state)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if state:
        assert page.evaluate(
            "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
        )


def test_dark_and_light_differ(context: BrowserContext, address: str) -> None:
    colours = []
    for scheme in ("dark", "light"):
        page = context.new_page()
        page.emulate_media(color_scheme=scheme)
        opened(page, address)
        wanted = ("'html', 'backgroundColor'", "'#graph .edge.k', 'stroke'", "'#spectra .area.qk', 'fill'")
        read = "(selector, name) => getComputedStyle(document.querySelector(selector))[name]"
        colours.append([page.evaluate(f"({read})({one})") for one in wanted])
    assert all(dark != light for dark, light in zip(*colours, strict=True))


def test_a_page_without_roles_or_compositions_is_whole(page: Page, tmp_path: Path, said: list[str]) -> None:
    bare = replace(known(), edges=(), level=None, roles=(), role=(), tracks={}, columns=(), values={}, chance={})
    opened(page, written(tmp_path, "bare", projected(cards=bare)), "head=1.1")
    expect(page.locator("#head-title")).to_have_text("Layer 1 · head 1")
    expect(page.locator("#did")).to_be_hidden()
    assert said == []


# ---- the page of an atlas ----


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> str:
    text = atlas_of(measured(), title="text", cards=known(HOSTILE))
    return written(tmp_path_factory.mktemp("atlas"), "atlas", text)


def test_the_atlas_shows_cards(page: Page, atlas: str, said: list[str]) -> None:
    opened(page, atlas, "head=2.3")
    expect(page.locator("#head-title .badge")).to_have_text(SHOWN)
    expect(page.locator("#did tr.passes")).to_have_count(1)
    expect(page.locator("#learnt svg.feather")).to_have_count(1)
    expect(page.locator("#learnt svg.kernel")).to_have_count(1)
    expect(page.locator("#weights tr")).to_have_count(4)
    page.locator("#from .chip").first.click()
    expect(page.locator("#head-title")).to_contain_text("Layer 0 · head 1")
    assert "head=0.1" in page.url
    assert page.locator("img").count() == 0
    assert said == []


def test_hovering_the_atlas_names_the_role(page: Page, atlas: str) -> None:
    opened(page, atlas)
    page.hover('[data-head="0.1"]')
    expect(page.locator("#card h2")).to_have_text("Layer 0 · head 1 previous token")
    assert page.locator('[data-head="0.1"]').get_attribute("aria-label") == "Layer 0, head 1, previous token"


def test_an_atlas_without_cards_shows_none(page: Page, tmp_path: Path) -> None:
    opened(page, written(tmp_path, "atlas", atlas_of(measured(), title="text")), "head=2.3")
    expect(page.locator("#head-title")).to_have_text("Layer 2 · head 3")
    expect(page.locator("#did")).to_be_hidden()
    expect(page.locator("#learnt")).to_be_hidden()
