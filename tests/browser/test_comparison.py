"""The page of a comparison in a real browser, without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from attlas.compare import Comparison
from attlas.view.comparison_page import comparison_page
from viewing import compared, opened, renamed, written

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e"
SHOWN = "</script><img src=x onerror=alert(1)>⟨U+202E⟩"
ORDER = "[...document.querySelectorAll('#heads tbody [data-open]')].map((button) => button.dataset.open)"
MODULES = "[...document.querySelectorAll('#modules tbody th')].map((cell) => cell.textContent)"
INK = """([x, y]) => {
  const canvas = document.querySelector('#map canvas');
  const scale = canvas.width / canvas.clientWidth;
  return [...canvas.getContext('2d').getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data];
}"""


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compared()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, found: Comparison) -> str:
    return written(tmp_path_factory.mktemp("comparison"), "comparison", comparison_page(found, maps=4))


def holding(part: str) -> re.Pattern[str]:
    return re.compile(re.escape(part))


def label(head: tuple[int, int]) -> str:
    return f"{head[0]}.{head[1]}"


def test_it_opens_offline_and_quietly(page: Page, address: str, found: Comparison, said: list[str]) -> None:
    opened(page, address)
    expect(page.locator("h1")).to_have_text("What tiny changed in tiny")
    expect(page.locator("#facts")).to_contain_text("two models · 2 layers, 8 heads")
    expect(page.locator("#facts")).to_contain_text("a text of 23 tokens, all rows measured")
    expect(page.locator("#outcome")).to_contain_text("nats from the base's")
    expect(page.locator("#grid .cell")).to_have_count(len(found))
    expect(page.locator("#grid .cell.mapped")).to_have_count(4)
    expect(page.locator("#heads tbody tr")).to_have_count(len(found))
    expect(page.locator("#modules tbody tr")).to_have_count(len(found.modules))
    expect(page.locator("#text span")).to_have_count(23)
    assert said == []


def test_hostile_words_are_text(page: Page, tmp_path: Path, found: Comparison, said: list[str]) -> None:
    odd = comparison_page(renamed(found, HOSTILE, [HOSTILE]), maps=4, title=HOSTILE)
    head = label(found.ranked("moved", 1)[0])
    opened(page, written(tmp_path, "hostile", odd), f"head={head}&modules=role")
    expect(page.locator("h1")).to_have_text(SHOWN)
    for place in ("#outcome", "#head-facts", "#text", "#modules"):
        expect(page.locator(place)).to_contain_text(SHOWN)
    expect(page.locator("#numbers")).to_contain_text(SHOWN.replace(" ", "·"))
    page.locator("#map canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#reading")).to_contain_text(SHOWN.replace(" ", "·")[:20])
    assert page.locator("img").count() == 0
    assert said == []


def test_heads_are_coloured_by_any_figure(page: Page, address: str, found: Comparison) -> None:
    opened(page, address)
    first, last = (label(head) for head in (found.ranked("ov_relative")[0], found.ranked("ov_relative")[-1]))
    page.select_option("#colour", "ov_relative")
    assert "colour=ov_relative" in page.url
    expect(page.locator(f'#grid [data-head="{first}"]')).to_have_attribute("style", holding("100%"))
    assert "100%" not in (page.locator(f'#grid [data-head="{last}"]').get_attribute("style") or "")
    expect(page.locator(f'#grid [data-head="{first}"]')).to_have_attribute("aria-label", holding("ΔOV / OV"))
    page.select_option("#colour", "restored")
    expect(page.locator("#grid .cell.none")).to_have_count(len(found) - 2)
    expect(page.locator("#grid-key")).to_contain_text("hatched")
    assert page.locator("#colour optgroup").count() == 3


def test_the_keyboard_walks_the_grid_and_opens_a_card(page: Page, address: str) -> None:
    opened(page, address)
    assert page.locator("#grid [tabindex='0']").count() == 1
    page.locator("#grid [tabindex='0']").focus()
    expect(page.locator("#card h2")).to_have_text("Layer 0 · head 0")
    seen = [page.evaluate("document.activeElement.dataset.head")]
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        seen.append(page.evaluate("document.activeElement.dataset.head"))
    assert len(set(seen)) == 4
    page.keyboard.press("Enter")
    layer, head = seen[-1].split(".")
    expect(page.locator("#head-title")).to_have_text(f"Layer {layer} · head {head}")
    page.keyboard.press("]")
    expect(page.locator("#head-title")).not_to_have_text(f"Layer {layer} · head {head}")
    page.keyboard.press("[")
    expect(page.locator("#head-title")).to_have_text(f"Layer {layer} · head {head}")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    assert page.evaluate("document.activeElement.dataset.head") == seen[-1], "the focus returns to where it came from"


def test_a_map_is_what_moved(page: Page, address: str, found: Comparison) -> None:
    head = found.ranked("restored")[0]
    opened(page, address, f"head={label(head)}")
    n = 23
    drawn = found.difference(head[0], head[1], (n, n))
    row, column = divmod(int(drawn.abs().argmax()), n)
    place = page.evaluate("({x: place.x, y: place.y, side: place.side})")
    at = [place[axis] + (i + 0.5) * place["side"] / n for axis, i in (("x", column), ("y", row))]
    expected = "gain" if drawn[row, column] > 0 else "loss"
    red, green, blue, _ = page.evaluate(INK, at)
    assert [red, green, blue] == page.evaluate(f"colours('{expected}').map(parts)[0].map(Math.round)")
    hidden = [place["x"] + place["side"] - 4, place["y"] + 4]
    assert page.evaluate(INK, hidden)[:3] == page.evaluate("colours('raised').map(parts)[0].map(Math.round)")
    page.locator("#map canvas").hover(position={"x": at[0], "y": at[1]})
    reading = page.locator("#reading")
    expect(reading).to_contain_text(f"query {row} ")
    expect(reading).to_contain_text(f"→ key {column} ")
    expect(reading).to_contain_text("+" if drawn[row, column] > 0 else "−")
    page.locator("#map canvas").focus()
    page.keyboard.press("ArrowUp")
    expect(reading).to_contain_text(f"query {row - 1} ")


def test_a_card_tells_what_was_found(page: Page, address: str, found: Comparison) -> None:
    head = found.ranked("restored")[0]
    row = found.row(*head)
    opened(page, address, f"head={label(head)}")
    expect(page.locator("#head-facts")).to_have_text(row["module"])
    expect(page.locator("#spectra svg")).to_have_count(2)
    layer = next(one for one in found.layers if one.layer == head[0])
    assert page.locator("#spectra .bar-qk").count() == int(layer.qk.singular.shape[1])
    expect(page.locator("#places text.name")).to_have_text(
        ["first", "itself", "previous", "near", "far", "same token", "after same token"]
    )
    expect(page.locator("#places")).to_contain_text(f"{100 * abs(row['to_first']):.2f} %")
    expect(page.locator("#causes rect")).to_have_count(4)
    expect(page.locator("#numbers .part")).to_have_text(["weights", "attention", "output"])
    expect(page.locator("#numbers")).to_contain_text("chance")


def test_a_head_without_a_map_says_so(page: Page, address: str, found: Comparison) -> None:
    opened(page, address)
    bare = page.locator("#grid .cell:not(.mapped)").first
    bare.click()
    expect(page.locator("#map canvas")).to_have_count(0)
    expect(page.locator("#reading")).to_contain_text("attlas compare --maps draws more")
    expect(page.locator("#spectra svg")).to_have_count(2)


def test_the_text_is_coloured_by_what_gained_and_lost(page: Page, address: str, found: Comparison) -> None:
    assert found.moved is not None
    head = found.ranked("restored")[0]
    opened(page, address)
    page.select_option("#whose", label(head))
    assert f"whose={label(head)}" in page.url
    received = found.moved[head[0]].received[head[1]]
    for sign, name, best in ((1, "gain", int(received.argmax())), (-1, "loss", int(received.argmin()))):
        assert float(received[best]) * sign > 0
        expect(page.locator("#text span").nth(best)).to_have_class(name)
        if best == int(received.abs().argmax()):
            expect(page.locator("#text span").nth(best)).to_have_attribute("style", holding("100%"))
        listed = page.locator(f"#{'gained' if sign > 0 else 'lost'} button").first
        expect(listed).to_contain_text(str(best))
        listed.click()
        assert page.evaluate("document.activeElement.at") == best
        expect(page.locator("#card")).to_contain_text("gained" if sign > 0 else "lost")


@pytest.mark.parametrize("column", ["moved", "qk_relative", "restored"])
def test_tables_sort_by_any_column(page: Page, address: str, found: Comparison, column: str) -> None:
    group = {"moved": "attention", "qk_relative": "weights", "restored": "output"}[column]
    opened(page, address, f"group={group}&sort=name")
    assert page.evaluate(ORDER) == [label(head) for head in found.heads]
    page.click(f'#heads [data-sort="{column}"]')
    ranked = [label(head) for head in found.ranked(column)]
    assert page.evaluate(ORDER)[: len(ranked)] == ranked
    assert page.locator(f'#heads th:has([data-sort="{column}"])').get_attribute("aria-sort") == "descending"
    assert page.evaluate("document.activeElement.dataset.sort") == column, "the heading keeps the focus"
    page.keyboard.press("Enter")
    assert f"sort=-{column}" in page.url
    assert page.evaluate(ORDER)[: len(ranked)] == ranked[::-1], "what is not known stays last"


def test_weight_matrices_sort(page: Page, address: str, found: Comparison) -> None:
    opened(page, address)
    rows = found.modules.rows()
    page.click('#modules [data-sort="relative"]')
    assert page.evaluate(MODULES)[0] == max(rows, key=lambda row: row["relative"])["module"]
    expect(page.locator('#modules th[aria-sort="descending"]')).to_have_count(1)


def test_a_link_opens_what_it_names_and_ignores_the_rest(page: Page, address: str, found: Comparison) -> None:
    opened(page, address, "head=1.2&colour=nonsense&whose=9.9&group=nothing&sort=<b>&modules=-relative")
    expect(page.locator("#head-title")).to_have_text("Layer 1 · head 2")
    assert page.evaluate("state.colour") == "moved"
    assert page.evaluate("state.whose") == ""
    assert page.evaluate("state.group") == "attention"
    rows = found.modules.rows()
    assert page.evaluate(MODULES)[0] == min(rows, key=lambda row: row["relative"])["module"]
    page.evaluate("location.hash = 'head=0.1'")
    expect(page.locator("#head-title")).to_have_text("Layer 0 · head 1")


def test_without_a_text_there_is_no_text(page: Page, tmp_path: Path, said: list[str]) -> None:
    opened(page, written(tmp_path, "weights", comparison_page(compared(text=False))), "head=0.0")
    expect(page.locator("#text-section")).to_be_hidden()
    expect(page.locator("#map-section")).to_be_hidden()
    expect(page.locator("#outcome")).to_contain_text("no attention: it needs a text")
    expect(page.locator("#numbers .part")).to_have_text(["weights"])
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_it_fits_any_width_in_both_colours(
    context: BrowserContext, address: str, found: Comparison, scheme: str, width: int
) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    opened(page, address)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(22, 23, 26)" if scheme == "dark" else "rgb(251, 250, 247)")
    opened(page, address, f"head={label(found.ranked('restored')[0])}")
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")


def test_the_map_takes_the_colours_of_the_page(page: Page, address: str, found: Comparison) -> None:
    opened(page, address, f"head={label(found.ranked('restored')[0])}")
    corner = page.evaluate("[place.x + place.side - 4, place.y + 4]")
    light = page.evaluate(INK, corner)
    page.emulate_media(color_scheme="dark")
    for _ in range(50):
        if page.evaluate(INK, corner)[0] < 100:
            break
        page.wait_for_timeout(100)
    assert (light[0] > 200, page.evaluate(INK, corner)[0] < 100) == (True, True)
