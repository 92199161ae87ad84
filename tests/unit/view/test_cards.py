from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from attlas.view.cards import Cards, visible_words
from attlas.view.encoding import from_codes
from viewing import ALL_HEADS, known


def unpacked(content: dict[str, object]) -> np.ndarray:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(str(content["codes"]))), np.uint8).astype(np.uint16)
    low, high = np.split(planes, 2)
    return from_codes((low | (high << 8)).astype(np.uint16))


def test_the_content_is_plain_and_whole() -> None:
    cards = known()
    content = json.loads(json.dumps(cards.content(), allow_nan=False))
    assert content["heads"] == [list(head) for head in ALL_HEADS]
    assert [track["name"] for track in content["tracks"]] == list(cards.tracks)
    assert sum(track["rows"] * track["width"] for track in content["tracks"]) == len(unpacked(content))
    assert content["edges"][0] == [1, 11, "k", 0.5, 9.0]


def test_spectra_are_shown_by_their_shape() -> None:
    cards = known()
    values = unpacked(cards.content())[: len(ALL_HEADS) * 8].reshape(len(ALL_HEADS), 8)
    wanted = cards.tracks["qk"] / cards.tracks["qk"].amax(-1, keepdim=True)
    np.testing.assert_allclose(values, wanted.numpy(), rtol=0.006)


def test_edges_to_heads_without_a_card_are_left_out() -> None:
    cards = Cards(heads=ALL_HEADS[:4], edges=known().edges)
    assert cards.content()["edges"] == []


def test_what_is_not_finite_is_not_known() -> None:
    cards = replace(known(), level=float("nan"), chance={"share": [float("inf")] * 12})
    content = cards.content()
    assert content["level"] is None
    assert content["chance"] == {"share": [None] * 12}


def test_a_head_without_weights_has_a_flat_spectrum() -> None:
    content = Cards(heads=ALL_HEADS[:1], tracks={"qk": torch.zeros(1, 4)}).content()
    assert unpacked(content).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "shown"), [("a b", "a b"), ("a\u202eb c", "a⟨U+202E⟩b c"), ("\ud800", "\ufffd"), ("", "")]
)
def test_words_keep_their_spaces(text: str, shown: str) -> None:
    assert visible_words(text) == shown
