"""The map of one matrix in the viewer: moving, reading, selecting and colouring it, and that what it says is true."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor

from attlas.view.serving.running import Server
from gallery import COLS, KEYS, LONG, PADDING, QUERIES, ROWS, between, going_on, long
from visiting import Window, at, colours, labels, number_in, pixels, point, rest, until, visited, window

HEAD = "a.1.2"
CELL = 2  # entries along the side of a cell while the whole of 700 is in sight


@cache
def dense() -> Tensor:
    """Return every entry of the head that is open; (query, key)."""
    return long().capture[1][0, 2].to_dense()[0, 0]


def read_out(page: Page) -> Locator:
    return page.locator(".map-value .number")


def where(page: Page, row: int | str, col: int | str) -> None:
    expect(page.locator(".map-where b")).to_have_text([str(row), str(col)])


def cell_told(page: Page) -> list[tuple[int, int]]:
    """Return the first and the last row, and column, of the cell that is told of, once it is one of this zoom."""

    def spans() -> list[tuple[int, ...]]:
        return [tuple(map(int, text.split(" – "))) for text in page.locator(".map-where b").all_inner_texts()]

    until(page, lambda: all(len(span) == 2 and span[1] - span[0] == CELL - 1 for span in spans()))
    return [(span[0], span[-1]) for span in spans()]


def asked_for(page: Page, name: str) -> str | None:
    """Return what the address says of something."""
    found = re.search(rf"[#&]{name}=([^&]*)", page.url)
    return found and found[1]


def moved(page: Page) -> Window:
    """Return what part is in sight, once the address says so."""
    until(page, lambda: window(page) is not None)
    found = window(page)
    assert found is not None
    return found


# ---- reading


def test_the_read_out_says_what_the_capture_holds(visitor: Page) -> None:
    A = long().capture[1]
    entries = [(350, 12), (500, 500), (699, 0), (1, 0), (612, 611)]
    for row, col in entries:
        point(at(visitor, f"{HEAD}&reduce=max"), HEAD, row, col)
        where(visitor, row, col)
        expect(visitor.locator(".map-where .token")).to_have_text([f"·word{row}", f"·word{col}"])
        expect(read_out(visitor)).to_be_visible()
        said = read_out(visitor).inner_text()
        value = float(A[0, 2, row : row + 1, col : col + 1])
        assert float(said) == pytest.approx(value, rel=1e-6), (row, col)
        assert said == repr(float(said)), "the number in full"
        lift, score, rank = visitor.locator(".map-value i").all_inner_texts()
        assert number_in(lift) == pytest.approx(value * (row + 1), rel=0.04)
        expected = float(torch.log(dense()[row, col].double()) + A.lse[0, 2, row])
        assert number_in(score) == pytest.approx(expected, rel=2e-3, abs=1e-4)
        assert number_in(rank) == 1 + int((dense()[row] > dense()[row, col]).sum())


def test_an_entry_that_may_not_be_seen_is_said_to_be_hidden(visitor: Page) -> None:
    point(visitor, HEAD, 12, 350)
    where(visitor, 12, 350)
    expect(visitor.locator(".map-value")).to_have_text("hidden: this query may not see this key")


def test_a_cell_of_several_entries_says_what_was_made_of_them(visitor: Page) -> None:
    page = at(visitor, HEAD)
    box = page.locator(".map-zoom").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    for reduce in ("max", "mean", "mass", "lift"):
        page.get_by_role("toolbar", name="The map").get_by_text(reduce, exact=True).click()
        rest(page, lambda _: (0.3 * side, 0.8 * side))
        (first, last), (left, right) = cell_told(page)
        expect(page.locator(".map-value")).to_contain_text("largest" if reduce == "max" else reduce)
        expect(read_out(page)).not_to_have_text("…")
        cell = dense()[first : last + 1, left : right + 1].double()
        even = sum((right + 1 - left) / (row + 1) for row in range(first, last + 1))
        made = {"max": cell.max(), "mean": cell.mean(), "mass": cell.sum(), "lift": cell.sum() / even}
        # Cells travel as half-precision numbers, and are read with three or four figures.
        assert number_in(read_out(page).inner_text()) == pytest.approx(float(made[reduce]), rel=6e-3), reduce


def test_tracks_run_along_the_axes(visitor: Page) -> None:
    page = at(visitor, HEAD)
    A = long().capture[1]
    for name, values in (("entropy", A.entropy()[0, 2]), ("distance", A.distance()[0, 2])):
        expect(page.locator(f".map-{name}-name")).to_contain_text(re.compile(rf"{name} ≤ [\d.]+"))
        said = number_in(page.locator(f".map-{name}-name").inner_text())
        assert said == pytest.approx(float(values.max()), rel=0.06)
        assert colours(page, f"canvas.map-{name}") > 1
    expect(page.locator(".map-received-name")).to_contain_text("received ≤")
    assert colours(page, "canvas.map-received") > 1


# ---- moving


def test_wheel_keys_and_buttons_zoom(visitor: Page) -> None:
    page = at(visitor, HEAD)
    page.locator(".map-zoom").hover()
    page.mouse.wheel(0, -300)
    close = moved(page).width
    assert close < LONG
    page.locator("section.matrix").focus()
    page.keyboard.press("+")
    until(page, lambda: moved(page).width < 0.7 * close)
    page.keyboard.press("-")
    until(page, lambda: moved(page).width == pytest.approx(close, rel=0.01))
    page.keyboard.press("0")
    until(page, lambda: window(page) is None)
    page.get_by_role("button", name="Zoom in").click()
    assert moved(page).width < LONG
    page.get_by_role("button", name="whole").click()
    until(page, lambda: window(page) is None)


def test_drags_and_arrows_pan(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&at=300,300,100")
    page.locator("section.matrix").focus()
    page.keyboard.press("ArrowRight")
    until(page, lambda: moved(page).x > 310)
    right = moved(page)
    assert right.y == pytest.approx(300, abs=0.1)
    page.keyboard.press("ArrowDown")
    until(page, lambda: moved(page).y > 305)
    down = moved(page).y
    page.locator(".map-zoom").hover()
    box = page.locator(".map-zoom").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.down()
    page.mouse.move(x + 50, y, steps=5)
    page.mouse.move(x + 100, y, steps=5)
    page.mouse.up()
    until(page, lambda: moved(page).x < right.x - 10)
    assert moved(page).y == pytest.approx(down, abs=3)
    assert asked_for(page, "row") is None, "a drag is no click"


def test_a_double_click_goes_where_tokens_can_be_read(visitor: Page) -> None:
    page = at(visitor, HEAD)
    expect(page.locator(".map-entropy-name")).not_to_be_empty()
    assert not any("word" in label for label in labels(page, "map-left")), "numbers alone while all is in sight"
    box = page.locator(".map-zoom").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    page.mouse.dblclick(box["x"] + 0.3 * side, box["y"] + 0.7 * side)
    assert moved(page).width < 40
    until(page, lambda: asked_for(page, "row") is not None)
    row, col = asked_for(page, "row"), asked_for(page, "col")
    until(page, lambda: f"·word{row}" in labels(page, "map-left"))
    assert f"·word{col}" in labels(page, "map-top")


def test_the_diagonal_is_found_and_kept_to(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&at=20,560,60")
    box = page.locator(".map-zoom").bounding_box()
    assert box is not None

    def off() -> float:
        found = moved(page)
        return abs(found.x + found.width / 2 - found.y - found.width / 2 * box["height"] / box["width"])

    assert off() > 400
    button = page.get_by_role("button", name="diagonal")
    button.click()
    until(page, lambda: off() < 2)
    expect(button).to_have_attribute("aria-pressed", "true")
    before = moved(page).x
    page.locator("section.matrix").focus()
    page.keyboard.press("ArrowDown")
    until(page, lambda: moved(page).x > before + 1)
    assert off() < 2
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_the_whole_stays_whole_when_its_room_changes(visitor: Page) -> None:
    page = at(visitor, HEAD)
    page.get_by_role("button", name="Compare …").click()
    page.get_by_role("dialog").get_by_label("as written").fill("1.3")
    page.keyboard.press("Enter")
    expect(page.locator(".map-title")).to_contain_text("−")
    expect(page.locator(".apart")).to_contain_text("on average")
    page.get_by_text("Beside", exact=True).click()
    expect(page.locator(".map-pane")).to_have_count(2)
    page.get_by_text("Difference", exact=True).click()
    expect(page.locator(".map-pane")).to_have_count(1)
    page.set_viewport_size({"width": 1100, "height": 700})
    last = str(LONG - 1)
    until(page, lambda: _reads_the_last(page, last))
    assert window(page) is None


def _reads_the_last(page: Page, last: str) -> bool:
    """Point at the lower right corner of the whole matrix, whatever size it has now."""
    box = page.locator(".map-zoom").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    page.mouse.move(box["x"] + side - 5, box["y"] + side - 5)
    said = page.locator(".map-where b").all_inner_texts()
    return len(said) == 2 and all(int(text.split(" – ")[-1]) > int(last) - 8 for text in said)


# ---- touching


def test_fingers_pinch_pan_and_tap(browser: Browser, gallery: Server) -> None:
    with visited(browser, gallery, name="touch", has_touch=True) as page:
        at(page, f"{HEAD}&at=300,300,100")
        expect(page.locator(".map-entropy-name")).not_to_be_empty()
        box = page.locator(".map-zoom").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        fingers = page.context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            given = [{"x": x + a, "y": y + b, "id": i} for i, (a, b) in enumerate(points)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

        touch("touchStart", (-20, 0), (20, 0))
        for far in (40, 60, 80):
            touch("touchMove", (-far, 0), (far, 0))
        touch("touchEnd")
        until(page, lambda: moved(page).width < 60)
        near = moved(page)
        touch("touchStart", (0, 0))
        for far in (30, 60, 90):
            touch("touchMove", (far, 0))
        touch("touchEnd")
        until(page, lambda: moved(page).x < near.x - 1)
        assert asked_for(page, "row") is None
        touch("touchStart", (0, 0))
        touch("touchEnd")
        until(page, lambda: asked_for(page, "row") is not None)


# ---- selecting


def test_a_click_selects_the_largest_entry_of_a_cell(visitor: Page) -> None:
    page = at(visitor, HEAD)
    box = page.locator(".map-zoom").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    x, y = rest(page, lambda _: (0.2 * side, 0.6 * side))
    (first, last), (left, right) = cell_told(page)
    page.mouse.click(x, y)
    until(page, lambda: asked_for(page, "row") is not None)
    cell = dense()[first : last + 1, left : right + 1]
    row, col = divmod(int(cell.argmax()), cell.shape[1])
    assert (asked_for(page, "row"), asked_for(page, "col")) == (str(first + row), str(left + col))
    page.mouse.move(2, 400)
    expect(page.locator(".map-where")).to_contain_text("selected")
    expect(page.locator(f'.text [data-i="{first + row}"]')).to_have_class(re.compile("selected"))
    page.locator("section.matrix").focus()
    page.keyboard.press("ArrowUp")
    where(page, first + row - 1, left + col)
    page.keyboard.press("Escape")
    until(page, lambda: asked_for(page, "row") is None)


def test_a_search_finds_a_token_and_a_position(visitor: Page) -> None:
    page = at(visitor, HEAD)
    expect(page.locator(".text .t").first).to_be_visible()
    page.keyboard.press("/")
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    page.keyboard.type("word350")
    expect(page.locator(".search output")).to_have_text("1")
    page.keyboard.press("Enter")
    expect(page.locator(".search output")).to_have_text("1 / 1")
    expect(page.locator('.text [data-i="350"]')).to_have_class(re.compile("selected"))
    expect(page.locator('.text [data-i="350"]')).to_be_in_viewport()
    box.fill("#12")
    box.press("Enter")
    expect(page.locator('.text [data-i="12"]')).to_have_class(re.compile("selected"))
    box.fill("nowhere to be found")
    expect(page.locator(".search output")).to_have_text("none")


# ---- colours


def test_ends_of_the_colours_are_moved_locked_and_fitted(visitor: Page) -> None:
    page = at(visitor, f"{HEAD}&reduce=max")
    upper = page.get_by_role("slider", name="Upper end of the colours")
    until(page, lambda: asked_for(page, "scale") is not None)

    def end() -> float:
        return float(upper.get_attribute("aria-valuenow") or "nan")

    fitted, before = end(), pixels(page, ".map-zoom canvas")
    upper.focus()
    for _ in range(8):
        page.keyboard.press("ArrowDown")
    until(page, lambda: end() < 0.9 * fitted)
    until(page, lambda: pixels(page, ".map-zoom canvas") != before)
    chosen = end()
    page.get_by_role("button", name="Lock the range").click()
    until(page, lambda: (asked_for(page, "scale") or "").endswith("locked"))
    page.get_by_role("button", name="Next head").click()
    expect(page.locator("h2").first).to_have_text("Layer 1, head 3")
    expect(page.locator(".map-entropy-name")).not_to_be_empty()
    assert end() == chosen
    page.get_by_role("button", name="Lock the range").click()
    page.get_by_role("button", name="fit", exact=True).click()
    until(page, lambda: end() != chosen)
    page.get_by_role("button", name="Previous head").click()
    until(page, lambda: end() == pytest.approx(fitted, rel=1e-4))


def test_scales_change_the_picture_and_a_ratio_has_none(visitor: Page) -> None:
    page = at(visitor, HEAD)
    expect(page.get_by_role("radio", name="linear", exact=True)).to_have_count(0)
    expect(page.locator(".map-unit")).to_have_text("lift")
    page.get_by_role("toolbar", name="The map").get_by_text("max", exact=True).click()
    expect(page.locator(".map-unit")).to_have_text("attention")
    until(page, lambda: (asked_for(page, "scale") or "").startswith("log"))
    until(page, lambda: colours(page, ".map-zoom canvas") > 20)
    before = pixels(page, ".map-zoom canvas")
    page.get_by_text("linear", exact=True).click()
    until(page, lambda: (asked_for(page, "scale") or "").startswith("linear"))
    until(page, lambda: pixels(page, ".map-zoom canvas") != before)


def test_the_first_token_is_set_aside_and_taken_back(visitor: Page) -> None:
    page = at(visitor, HEAD)
    aside = page.get_by_role("switch", name="first token aside")
    expect(aside).to_be_checked()
    until(page, lambda: colours(page, "canvas.map-sink") > 3)
    page.get_by_text("first token aside", exact=True).click()
    expect(aside).not_to_be_checked()
    expect(page.locator(".map-pane.with-sink")).to_have_count(0)
    until(page, lambda: asked_for(page, "sink") == "in")


def test_spans_stand_beside_the_axes(viewer: Page) -> None:
    page = at(viewer, "a.1.0&at=0,0,14")
    until(page, lambda: any("capital" in label for label in labels(page, "map-left")))
    assert not any("capital·of" in label for label in labels(page, "map-left")), "single tokens"
    page.get_by_role("combobox", name="Spans").select_option("sentence")
    until(page, lambda: any(label.startswith("The·capital·of") for label in labels(page, "map-left")))
    assert any(label.startswith("The·capital·of") for label in labels(page, "map-top"))
    until(page, lambda: asked_for(page, "spans") == "sentence")


# ---- matrices that are not square, and such as hide some keys


def test_queries_that_are_the_last_of_the_keys(visitor: Page) -> None:
    page = visitor
    matrix = going_on().capture[0]
    row, col = 4, 50
    point(page, "c.0.1&reduce=max", row, col)
    where(page, row, col)
    expect(page.locator(".map-where .token")).to_have_text([f"·word{KEYS - QUERIES + row}", f"·word{col}"])
    expect(read_out(page)).to_be_visible()
    value = float(matrix[0, 1, row : row + 1, col : col + 1])
    assert float(read_out(page).inner_text()) == pytest.approx(value, rel=1e-6)
    point(page, "c.0.1&reduce=max", row, KEYS - QUERIES + row + 1)
    expect(page.locator(".map-value")).to_contain_text("hidden")
    # A token of the prompt has no row; one of the continuation has.
    page.locator(f'.text [data-i="{KEYS - 1}"]').click()
    until(page, lambda: asked_for(page, "row") == str(QUERIES - 1))
    page.locator('.text [data-i="3"]').click()
    expect(page.locator(f'.text [data-i="{KEYS - 1}"]')).to_have_class(re.compile("selected"))


def test_keys_zoom_about_the_middle_of_what_is_in_sight(visitor: Page) -> None:
    page = at(visitor, "c.0.1")
    page.locator("section.matrix").focus()
    for times in range(1, 4):
        page.keyboard.press("+")
        until(page, lambda times=times: moved(page).width < KEYS / 1.5**times)
    box = page.locator(".map-zoom").bounding_box()
    assert box is not None
    seen = moved(page)
    assert seen.x < KEYS / 2 < seen.x + seen.width
    assert seen.y < QUERIES / 2 < seen.y + seen.width * box["height"] / box["width"]


def test_a_matrix_between_two_texts(visitor: Page) -> None:
    page = at(visitor, "d.0.0")
    expect(page.locator(".map-zoom")).to_have_attribute("aria-label", re.compile(f"{ROWS} queries by {COLS} keys"))
    until(page, lambda: colours(page, ".map-zoom canvas") > 20)
    expect(page.get_by_role("complementary")).to_contain_text("This capture has no text, only matrices.")
    point(page, "d.0.0&reduce=max", 3, 45)
    where(page, 3, 45)
    expect(read_out(page)).to_be_visible()
    value = float(between().capture[0][0, 0, 3:4, 45:46])
    assert float(read_out(page).inner_text()) == pytest.approx(value, rel=1e-6)


def test_keys_that_nobody_may_see_have_no_lift_and_no_colour(visitor: Page) -> None:
    page = at(visitor, "e.0.1&at=0,400,200")
    until(page, lambda: colours(page, ".map-zoom canvas") > 20)
    shown = page.locator(".map-value")
    for state, width in ((f"e.0.1&at={PADDING - 60},400,600", 600), (f"e.0.1&at={PADDING - 10},400,20", 20)):
        at(page, state)
        box = page.locator(".map-zoom").bounding_box()
        assert box is not None
        entry = box["width"] / width
        rest(page, lambda _, entry=entry: (4 * entry, 4 * entry))
        expect(shown).to_contain_text("hidden: ")
        expect(page.locator(".map-where b").nth(1)).to_have_text(re.compile(r"^(?:\d|[1-7]\d)\b"))
        rest(page, lambda _, entry=entry, width=width: ((width / 2 + 5) * entry, 4 * entry))
        expect(shown).not_to_contain_text("hidden")
        expect(read_out(page)).to_be_visible()


def test_beside_a_shorter_one_the_read_out_says_where_that_ends(visitor: Page) -> None:
    page = at(visitor, "c.0.1&with=d.0.0")
    page.get_by_text("Beside", exact=True).click()
    expect(page.locator(".map-pane")).to_have_count(2)
    rest(page, lambda box: (0.3 * box["width"], 0.2 * box["height"]), pane=1)
    lines = page.locator(".map-value")
    expect(lines).to_have_count(2)
    expect(lines.nth(0)).to_contain_text(f"ends before this place: {QUERIES} queries")
    expect(lines.nth(1)).not_to_contain_text("ends before")
