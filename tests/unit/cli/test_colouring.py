from __future__ import annotations

import io
from dataclasses import replace

import torch
from rich.console import Console

from attlas.cli.colouring import coloured, legend
from attlas.explain.attribution import Attribution, Span
from explaining import explained, several


def told(one: Attribution, *, colours: bool = False, width: int = 80, top: int = 3) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        markup=False,
        highlight=False,
        emoji=False,
        force_terminal=colours,
        color_system="truecolor" if colours else None,
    )
    console.print(coloured(one, width, colours=colours, top=top), soft_wrap=True)
    return out.getvalue().removesuffix("\n")


def scored(tokens: list[str], scores: list[float], spans: list[tuple[int, int]] | None = None) -> Attribution:
    parts = tuple(
        Span(start, stop, "".join(tokens[start:stop]))
        for start, stop in spans or [(i, i + 1) for i in range(len(tokens))]
    )
    values = torch.tensor(scores, dtype=torch.float64)
    summed = torch.stack([values[span.start : span.stop].sum() for span in parts])
    return replace(explained(tokens=tokens), scores=values, spans=parts, span_scores=summed)


def test_brackets_where_there_are_no_colours() -> None:
    one = scored(["The", " cat", " sat", " on", "\nmats"], [0.0, 1.0, -1.0, 0.4, -0.5])
    assert told(one) == "The [[cat]] {{sat}} [on]\n{mats}"


def test_a_span_is_marked_once() -> None:
    one = scored(["a", " capital", " of", " b"], [0.0, 0.5, 0.5, 0.1], [(0, 1), (1, 3), (3, 4)])
    assert told(one) == "a [[capital of]] b"


def test_colours_are_black_on_shades() -> None:
    said = told(scored(["The", " cat", " sat"], [0.0, 1.0, -1.0]), colours=True)
    assert "48;2;255;155;69" in said
    assert "48;2;98;189;255" in said
    assert said.count("38;2;0;0;0") == 2


def test_of_a_long_text_the_passages_that_matter() -> None:
    tokens = [part for i in range(300) for part in (f"line{i}", " end", "\n")]
    scores = [0.0] * len(tokens)
    scores[3 * 40], scores[3 * 41 + 1], scores[3 * 200] = 1.0, 0.9, 0.8
    assert told(scored(tokens, scores)).split("\n") == [
        "  …",
        " 41  [[line40]] end",
        " 42  line41 [[end]]",
        "  …",
        "201  [line200] end",
        "  …",
    ]


def test_of_a_long_line_the_surroundings_of_what_matters() -> None:
    tokens = [f" w{i:04d}" for i in range(2000)]
    scores = [0.0] * 2000
    scores[500], scores[1500] = 1.0, 0.9
    (shown,) = told(scored(tokens, scores)).split("\n")
    assert shown.startswith("1   … ")
    assert "[[w0500]]" in shown
    assert "[[w1500]]" in shown
    assert "w0490" in shown
    assert "w1000" not in shown
    assert len(shown) < 450


def test_text_cannot_speak_to_the_terminal() -> None:
    assert told(scored(["\x1b[2J", "\u202ex", "\r"], [0.0, 0.0, 0.0])) == "⟨U+001B⟩[2J⟨U+202E⟩x␍"


def test_the_legend_says_what_is_shown() -> None:
    signed, plain = several()[2], several()[0]
    assert legend(signed, colours=False).plain.startswith("[for] [[most for]] {against} {{most against}}")
    assert legend(plain, colours=False).plain.startswith("[relevant] [[most relevant]]  full from ")
    assert "speaks against" in legend(signed, colours=True).plain
    assert "against" not in legend(plain, colours=True).plain
