"""Still pictures for notebooks: right numbers, nothing but text where text stands, no script, bounded size."""

import base64
import io
import struct
import zlib
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import attlas
from attlas.explain.markup import SHOWN
from attlas.matrix.even import even_spread
from attlas.results import Provenance
from attlas.testing import no_dense
from attlas.testing.tiny_models import TINY_MODELS
from attlas.view.colours import colour_table
from attlas.view.notebook.stills import CELLS, ENTRIES, capture_still, lifts, matrix_still
from attlas.view.png import png
from explaining import explained
from viewing import captured

T5 = next(model for model in TINY_MODELS if model.family == "T5")
HOSTILE = "<script>alert(1)</script>\"'&\u202e\x00\n<img src=x onerror=alert(1)>"
ALLOWED = {"div", "b", "table", "tr", "td", "img", "span", "br"}


class Page(HTMLParser):
    """Takes a fragment apart, and complains of what is never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def matrix(n: int = 60, heads: int = 3, **options: Any) -> attlas.AttentionMatrix:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, heads, n, 8, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    return attlas.AttentionMatrix(query, key, **options)


def pixels(address: str) -> np.ndarray:
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    cols, rows = struct.unpack(">II", content[16:24])
    data = content[content.index(b"IDAT") + 4 : content.index(b"IEND") - 8]
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(rows, 1 + 4 * cols)[:, 1:].reshape(rows, cols, 4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"causal": True, "window": 9},
        {"softcap": 3.0},
        {"causal": True, "sinks": torch.ones(3, dtype=torch.float64)},
        {"mask": torch.arange(60).view(1, 1, 1, -1) > 4},
    ],
    ids=["plain", "causal", "window", "softcap", "sinks", "padding"],
)
def test_lift_of_some_rows_is_that_of_the_dense_matrix(options: dict[str, Any]) -> None:
    A = matrix(**options)
    rows, bins = torch.tensor([0, 3, 17, 59]), 12
    found = lifts(A, 1, rows, bins)
    dense, even = (one.to_dense()[0, min(1, one.shape[1] - 1), rows] for one in (A, even_spread(A)))
    mass, level = (part.view(4, bins, -1).sum(-1) for part in (dense, even))
    expected = torch.where(level > 0, mass / level, torch.nan)
    torch.testing.assert_close(found, expected.to(found), equal_nan=True)


def test_a_matrix_shows_its_size_its_rules_and_its_heads() -> None:
    text = matrix_still(matrix(causal=True, window=9))
    page = Page(text)
    words = " ".join(page.words)
    assert "3 heads of 60 queries × 60 keys" in words
    assert "causal, window of 9" in words
    assert [value for name, value in page.attributes if name == "alt"] == ["[0, 0]", "[0, 1]", "[0, 2]"]
    assert matrix(causal=True, window=9)._repr_html_() == text


def test_a_map_is_coloured_by_lift_and_clear_where_nothing_is_visible() -> None:
    A = matrix(CELLS, causal=True)
    first = next(value for name, value in Page(matrix_still(A)).attributes if name == "src")
    image = pixels(first)
    assert image.shape == (CELLS, CELLS, 4)
    assert (image[..., 3] == 255 * np.tri(CELLS, dtype=np.uint8)).all()
    # The first query sees one key: as much as an even spread.
    assert image[0, 0, :3].tolist() == pytest.approx(colour_table("lift-light")[128].tolist(), abs=3)


def test_a_capture_shows_what_was_read() -> None:
    cap = captured(50, layers=9)
    text = cap.of_document("word " * 50, [" word"] * 50, model="tiny", fingerprint="f00d")._repr_html_()
    page = Page(text)
    words = " ".join(page.words)
    assert "9: 0 to 8" in words
    assert "4 heads of 50 queries × 50 keys" in words
    names = [value for name, value in page.attributes if name == "alt"]
    assert names[:3] == ["layer 0, head 0", "layer 0, head 1", "layer 0, head 3"]
    assert {name.split(",")[0] for name in names} == {"layer 0", "layer 2", "layer 5", "layer 8"}


def test_hostile_text_is_shown_and_does_nothing() -> None:
    cap = captured(12).of_document(HOSTILE, [HOSTILE] * 12, model=HOSTILE, fingerprint="f")
    for text in (capture_still(cap), explained(tokens=[HOSTILE] * 12)._repr_html_()):
        page = Page(text)
        assert set(page.tags) <= ALLOWED
        assert not any(name.startswith("on") for name, _ in page.attributes)
        assert "\u202e" not in text
        assert "\x00" not in text
        assert any("<script>alert(1)</script>" in words for words in page.words)


def test_an_empty_capture_and_unequal_layers() -> None:
    empty = attlas.Capture({}, provenance=Provenance("0", "tiny", "f00d", {}))
    assert "empty: tiny" in " ".join(Page(empty._repr_html_()).words).replace("  ", " ").replace(" , ", ", ")
    crossed = T5.build()
    with attlas.capture(crossed) as cap, torch.no_grad():
        crossed(**T5.inputs())
    assert "shapes, the first" in " ".join(Page(cap._repr_html_()).words)


def test_the_work_and_the_size_are_bounded_whatever_the_length() -> None:
    long = matrix(30_000, heads=12, causal=True)
    short = matrix(300, heads=12, causal=True)
    with no_dense(30_000 * 30_000):
        text = long._repr_html_()
    assert len(text) < 60_000
    assert text.count("<img") * CELLS * 30_000 <= ENTRIES
    assert short._repr_html_().count("<img") == 8
    assert long.sums_known is False
    many = explained(tokens=[" word"] * 32_768)._repr_html_()
    assert many.count("<span") <= SHOWN + 3


def test_a_png_is_what_others_read() -> None:
    image = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4)
    assert (np.round(imread(io.BytesIO(png(image))) * 255) == image).all()
