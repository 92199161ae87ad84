"""The page of an explanation in a real browser, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from attlas.explain.targets import Target
from attlas.view.explanation_page import explanation_page
from explaining import LAYERS, TOKENS, explained, several
from viewing import opened, written

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "\u202egnp.exe",
    "\ud800",
    "<b>bold</b>",
    "\u2028",
    "\n",
    " 🎉",
    "🎉",
]
SHADES = "[...document.querySelectorAll('#text span')].map((span) => getComputedStyle(span).backgroundColor)"
CONTRAST = """(name) => {
    const span = document.querySelector('#text span');
    span.className = name;
    const luminance = (colour) => {
        const drawing = document.createElement('canvas').getContext('2d');
        drawing.fillStyle = colour;
        drawing.fillRect(0, 0, 1, 1);
        const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = [...drawing.getImageData(0, 0, 1, 1).data].map((c) => linear(c / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(span);
    const [high, low] = [luminance(style.color), luminance(style.backgroundColor)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
}"""
INSIDE = """(() => {
    const box = document.activeElement.getBoundingClientRect();
    const frame = document.getElementById('text').getBoundingClientRect();
    return box.top >= frame.top && box.bottom <= frame.bottom;
})()"""
STRIP = "document.querySelector('#strip canvas').toDataURL()"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    given = [*several(by=3), explained("rollout", by=3, target=Target(4, 9, name="' Rome'"), seed=9)]
    return written(tmp_path_factory.mktemp("explanation"), "page", explanation_page(given, title="a text"))


def test_it_opens_offline_and_quietly(page: Page, address: str, said: list[str]) -> None:
    opened(page, address)
    expect(page.locator("h1")).to_have_text("Why ' Paris'?")
    expect(page.locator("#facts")).to_have_text(
        "a text · tiny · 15 tokens · answered at token 14 · probability 49.7 % (log −0.7)"
    )
    expect(page.locator("#text span")).to_have_count(len(TOKENS))
    assert page.locator("#text").text_content() == "".join(TOKENS)
    expect(page.locator("#methods tbody tr")).to_have_count(4)
    expect(page.locator("#plots svg")).to_have_count(2)
    expect(page.locator("#warning")).to_be_hidden()
    assert said == []


def test_it_opens_with_the_most_faithful_method(page: Page, address: str) -> None:
    opened(page, address)
    expect(page.locator("#methods tbody th")).to_have_text(
        ["chefer (paper)", "attention_gradient", "rollout", "random"]
    )
    expect(page.locator("#methods tr.chosen th")).to_have_text("chefer (paper)")
    expect(page.locator("#methods .verdict")).to_have_text(
        ["more faithful than chance", "cannot tell", "less faithful than chance", "not measured"]
    )
    expect(page.locator("#summary")).to_contain_text("costs 0.80 nats more")


def test_hostile_tokens_are_text(page: Page, tmp_path: Path, said: list[str]) -> None:
    text = "".join(HOSTILE).replace("🎉🎉", "🎉")
    hostile = [
        explained(HOSTILE[0], HOSTILE, text=text, target=Target(1, 2, name=HOSTILE[0])),
        explained("b", HOSTILE, text=text),
    ]
    opened(page, written(tmp_path, "hostile", explanation_page(hostile, title=HOSTILE[0])))
    expect(page.locator("h1")).to_have_text(f"Why {HOSTILE[0]}?")
    shown = page.locator("#text").text_content()
    assert shown == "</script><img src=x onerror=alert(1)>⟨U+202E⟩gnp.exe\ufffd<b>bold</b>⟨U+2028⟩\n 🎉"
    page.hover("#text span >> nth=0")
    expect(page.locator("#card h2")).to_have_text("</script><img·src=x·onerror=alert(1)>")
    assert page.locator("img, #text b").count() == 0
    assert said == []


def test_the_tokens_of_one_character_are_one_piece(page: Page, tmp_path: Path) -> None:
    one = explained(tokens=["a", " 🎉", "🎉", "🎉"], text="a 🎉")
    opened(page, written(tmp_path, "pieces", explanation_page(one)))
    expect(page.locator("#text span")).to_have_count(2)
    page.hover("#text span >> nth=1")
    expect(page.locator("#card dl")).to_contain_text("1 to 3")


def test_choosing_a_method_colours_the_text(page: Page, address: str) -> None:
    opened(page, address, "by=token")
    pictures = {str(page.evaluate(SHADES))}
    strips = {page.evaluate(STRIP)}
    for name in ("rollout", "attention_gradient"):
        page.get_by_role("radio", name=name).check()
        expect(page.locator("#methods tr.chosen th")).to_have_text(name)
        assert f"method={name}" in page.url
        pictures.add(str(page.evaluate(SHADES)))
        strips.add(page.evaluate(STRIP))
    assert len(pictures) == len(strips) == 3
    expect(page.locator("#key")).to_contain_text("speaks against")
    page.get_by_role("radio", name="random").check()
    expect(page.locator("#curves")).to_be_hidden()
    expect(page.locator("#key")).not_to_contain_text("against")


def test_methods_are_reached_by_keyboard(page: Page, address: str) -> None:
    opened(page, address)
    page.locator("#methods input:checked").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#methods tr.chosen th")).to_have_text("attention_gradient")
    assert page.evaluate("document.activeElement.checked"), "the focus stays on the choice"
    page.keyboard.press("ArrowDown")
    expect(page.locator("#methods tr.chosen th")).to_have_text("rollout")


def test_stronger_scores_have_stronger_colours(page: Page, address: str) -> None:
    opened(page, address, "by=token&method=rollout")
    scores = several(by=3)[0].scores.tolist()
    levels = page.evaluate("parts.map((piece) => Number(piece.level.slice(1) || 0))")
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    assert [levels[i] for i in order] == sorted(levels)
    assert len(set(levels)) > 4
    page.get_by_text("Rank", exact=True).click()
    ranked = page.evaluate("parts.map((piece) => Number(piece.level.slice(1) || 0))")
    assert ranked != levels
    assert sum(level > 0 for level in ranked) == 4, "the first quarter of 15"
    assert "shade=rank" in page.url


def test_both_hues_say_which_way_a_score_speaks(page: Page, address: str) -> None:
    opened(page, address, "by=token&method=attention_gradient")
    signs = page.evaluate("parts.map((piece) => piece.level[0] ?? '')")
    for score, sign in zip(several(by=3)[2].scores.tolist(), signs, strict=True):
        assert sign in ("", "f" if score > 0 else "a")
    assert {"f", "a"} <= set(signs)


def test_spans_are_coloured_as_one(page: Page, address: str) -> None:
    opened(page, address)
    shades = page.evaluate(SHADES)
    for start in range(0, 15, 3):
        assert len(set(shades[start : start + 3])) == 1
    page.get_by_text("Token", exact=True).click()
    assert len(set(page.evaluate(SHADES)[:3])) == 3
    assert "by=token" in page.url


def test_a_card_tells_score_rank_and_span(page: Page, address: str) -> None:
    opened(page, address, "method=rollout")
    one = several(by=3)[0]
    best = int(one.scores.argmax())
    page.hover(f"#text span >> nth={best}")
    expect(page.locator("#card h2")).to_have_text(TOKENS[best].replace(" ", "·").replace("\n", "⏎"))
    expect(page.locator("#card dl")).to_contain_text("1 of 15")
    expect(page.locator("#card dl")).to_contain_text(one.spans[best // 3].text.replace("\n", "⏎"))
    page.mouse.move(1, 1)
    expect(page.locator("#card")).to_be_hidden()


def test_the_keyboard_walks_the_text(page: Page, address: str) -> None:
    opened(page, address, "by=token&method=rollout")
    assert page.locator("#text [tabindex='0']").count() == 1
    page.locator("#text [tabindex='0']").focus()
    focused = "parts.indexOf(document.activeElement.piece)"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == 1
    expect(page.locator("#card h2")).to_have_text("·is")
    page.keyboard.press("ArrowDown")
    below = page.evaluate(focused)
    assert below > 9, "the second line"
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) in (0, 1, 2)
    order = several(by=3)[0].scores.argsort(descending=True).tolist()
    page.locator(f"#text span >> nth={order[0]}").focus()
    page.keyboard.press("n")
    assert page.evaluate(focused) == order[1]
    page.keyboard.press("p")
    assert page.evaluate(focused) == order[0]
    assert page.locator("#text [tabindex='0']").count() == 1


def test_the_list_leads_to_the_text(page: Page, address: str) -> None:
    opened(page, address, "method=rollout")
    one = several(by=3)[0]
    expect(page.locator("#top button")).to_have_count(5)
    page.locator("#top button").first.click()
    span, _ = one.top(1)[0]
    assert page.evaluate("document.activeElement.piece.start") == span.start


def test_the_strip_is_the_layers(page: Page, address: str) -> None:
    opened(page, address, "method=rollout")
    page.locator("#strip canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#strip-reading")).to_contain_text(f"Layer {LAYERS - 1} · token 1 “is”")
    page.keyboard.press("ArrowDown")
    layers = several(by=3)[0].layers
    assert layers is not None
    share = 100 * float(layers[LAYERS - 2, 1] / layers[LAYERS - 2].sum())
    expect(page.locator("#strip-reading")).to_contain_text(f"Layer {LAYERS - 2} · token 1")
    said = page.locator("#strip-reading").inner_text().split(", ")[-1].split(" %")[0]
    assert float(said) == pytest.approx(share, rel=0.02)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.piece.start") == 1


def test_another_target(page: Page, address: str) -> None:
    opened(page, address)
    page.select_option("#target", "1")
    expect(page.locator("h1")).to_have_text("Why ' Rome'?")
    expect(page.locator("#methods tbody tr")).to_have_count(1)
    expect(page.locator("#agreement")).to_be_hidden()
    assert "target=1" in page.url
    page.select_option("#target", "0")
    expect(page.locator("#methods tr.chosen th"), "the method stays").to_have_text("rollout")


def test_the_address_restores_everything(page: Page, address: str) -> None:
    opened(page, address, "target=0&method=attention_gradient&by=token&shade=rank")
    expect(page.locator("#methods tr.chosen th")).to_have_text("attention_gradient")
    assert page.evaluate("[...document.querySelectorAll('#controls input:checked')].map((i) => i.value)") == [
        "token",
        "rank",
    ]
    page.evaluate("location.hash = 'target=1'")
    expect(page.locator("h1")).to_have_text("Why ' Rome'?")


@pytest.mark.parametrize("state", ["target=9&method=%3Cb%3E&by=x&shade=__proto__", "%E0%A4%A", "target=1e9&target=-1"])
def test_an_address_of_nonsense_is_ignored(page: Page, address: str, state: str, said: list[str]) -> None:
    opened(page, address, state)
    expect(page.locator("h1")).to_have_text("Why ' Paris'?")
    expect(page.locator("#methods tr.chosen th")).to_have_text("chefer (paper)")
    assert said == []


def test_doubt_is_said_aloud(page: Page, tmp_path: Path) -> None:
    opened(page, written(tmp_path, "doubt", explanation_page(explained(verdict="cannot tell", advantage=0.1))))
    expect(page.locator("#warning")).to_contain_text("not more faithful than chance")
    opened(page, written(tmp_path, "bare", explanation_page(explained(verdict=None))))
    expect(page.locator("#methods-facts")).to_contain_text("Faithfulness was not measured")
    for place in ("#warning", "#curves", "#measured", "#agreement"):
        expect(page.locator(place)).to_be_hidden()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_overflows(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_differ_and_both_can_be_read(context: BrowserContext, address: str) -> None:
    """The strongest shades leave the text the contrast that WCAG AA asks for, 4.5."""
    grounds = []
    for scheme in ("dark", "light"):
        page = context.new_page()
        page.emulate_media(color_scheme=scheme)
        opened(page, address, "by=token&method=attention_gradient")
        grounds.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
        for name in ("f12", "a12"):
            contrast = page.evaluate(CONTRAST, name)
            assert contrast >= 4.5, f"{scheme} {name}"
    assert grounds[0] != grounds[1]


def test_a_long_text_is_shown_whole(page: Page, tmp_path: Path, said: list[str]) -> None:
    tokens = [f" w{i % 977}" if i % 12 else f"\nw{i}" for i in range(7600)]
    opened(page, written(tmp_path, "long", explanation_page(several(tokens, by=5))))
    expect(page.locator("#text span")).to_have_count(7600)
    page.get_by_role("radio", name="rollout").check()
    page.locator("#top button").first.click()
    assert page.evaluate(INSIDE), "the list scrolls the text to what it names"
    assert said == []


def test_each_paragraph_runs_its_own_way(page: Page, tmp_path: Path) -> None:
    tokens = ["مرحبا", " بالعالم", "\nHello", " world", "\nשלום", " עולם"]  # noqa: RUF001 - Hebrew is meant
    opened(page, written(tmp_path, "both", explanation_page(explained(tokens=tokens))))
    left = page.evaluate(
        "[...document.querySelectorAll('#text span')].map((span) => [...span.getClientRects()].at(-1).left)"
    )
    assert left[0] > left[1], "Arabic runs from right to left"
    assert left[2] < left[3], "English does not"
    assert left[4] > left[5]
    page.locator("#text span >> nth=0").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.piece.start") in (0, 1)
