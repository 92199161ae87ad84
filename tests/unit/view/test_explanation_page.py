from __future__ import annotations

import base64
import json
import math
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attlas._agreement import spearman
from attlas.errors import ArgumentError
from attlas.explain.targets import Target
from attlas.view.encoding import AGAINST, from_codes
from attlas.view.explanation_page import BINS, explanation_page, write_explanation
from explaining import LAYERS, TOKENS, explained, several, trusted


def content(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def tables(known: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """Return the numbers of each view, as the page reads them."""
    planes = zlib.decompress(base64.b64decode(known["codes"]))
    half = len(planes) // 2
    codes = np.frombuffer(planes[:half], np.uint8).astype(int) | np.frombuffer(planes[half:], np.uint8).astype(int) << 8
    found, at = [], 0
    for view in known["views"]:
        numbers = {}
        for name, table in view["tables"].items():
            count = math.prod(table["shape"])
            part = codes[at : at + count].astype(np.uint16)
            sign = np.where(part & AGAINST, -1, 1)
            numbers[name] = (sign * from_codes((part & (AGAINST - 1)).astype(np.uint16)) * table["most"]).reshape(
                table["shape"]
            )
            at += count
        found.append(numbers)
    assert at == half
    return found


def test_scores_arrive_within_a_step_of_the_coding() -> None:
    given = several(by=2)
    for one, numbers in zip(given, tables(content(explanation_page(given))), strict=True):
        for name, tensor in (("scores", one.scores), ("spans", one.span_scores), ("layers", one.layers)):
            assert tensor is not None
            np.testing.assert_allclose(numbers[name], tensor.numpy(), rtol=2 ** (1 / 128) - 1 + 1e-6, atol=1e-11)


def test_long_strips_are_sums_of_bins() -> None:
    tokens = [f" w{i}" for i in range(1000)]
    one = explained(tokens=tokens)
    assert one.layers is not None
    (numbers,) = tables(content(explanation_page(one)))
    assert numbers["layers"].shape == (LAYERS, BINS)
    np.testing.assert_allclose(numbers["layers"].sum(1), one.layers.sum(1).numpy(), rtol=0.006)
    np.testing.assert_allclose(numbers["layers"][2, 0], one.layers[2, :3].sum(), rtol=0.006)


def test_pieces_spell_the_text() -> None:
    known = content(explanation_page(several()))
    assert "".join(known["pieces"]) == "".join(TOKENS)
    assert sum(known["counts"]) == known["tokens"] == len(TOKENS)
    assert known["spans"] is None
    assert not known["code"]
    code = explained(tokens=["def f():\n", "    return 1\n", "    # end\n"])
    assert content(explanation_page(code))["code"]


def test_spans_and_targets_are_told_apart() -> None:
    other = Target(3, 9, name="' Rome'")
    given = [*several(by=4), explained("chefer", target=other, by=4)]
    known = content(explanation_page(given))
    assert known["spans"] == {"starts": [0, 4, 8, 12], "stops": [4, 8, 12, 15]}
    assert [target["name"] for target in known["targets"]] == ["' Paris'", "' Rome'"]
    assert [view["target"] for view in known["views"]] == [0, 0, 0, 0, 1]
    assert [len(table) for table in known["agreement"]] == [4, 1]


def test_agreement_is_spearmans() -> None:
    given = several()
    known = content(explanation_page(given))["agreement"][0]
    for i, row in enumerate(known):
        for j, value in enumerate(row):
            assert value == pytest.approx(spearman(given[i].scores, given[j].scores), rel=1e-4)
    even = replace(given[0], scores=torch.ones(len(TOKENS), dtype=torch.float64))
    assert content(explanation_page([even, given[1]]))["agreement"][0][0][1] is None, "it has no ranks"


def test_trust_is_told_whole() -> None:
    known = content(explanation_page(several()))
    trust = known["views"][1]["trust"]
    assert trust["verdict"] == "more faithful than chance"
    assert trust["measures"][0]["name"] == "aopc"
    assert [curve["order"] for curve in trust["curves"] if curve["own"]] == ["chefer", "chefer"]
    assert known["views"][3]["trust"] is None
    assert known["warnings"] == [[]]
    doubtful = content(explanation_page(explained(verdict="cannot tell")))
    assert "not more faithful than chance" in doubtful["warnings"][0][0]


def test_how_it_was_made_is_in_words() -> None:
    trust = replace(trusted(), notes={"left_out": "lds: 4 passes are too few"})
    about = dict(content(explanation_page(explained(preset="paper").with_faithfulness(trust)))["views"][0]["about"])
    assert about["preset"] == "paper"
    assert about["residual"] == "0.5"
    assert about["faithfulness: removal"] == "mask"
    assert about["faithfulness: left out"] == "lds: 4 passes are too few"
    assert about["dtype"] == "float32"


def test_numbers_that_are_none_stay_out() -> None:
    one = explained()
    assert one.faithfulness is not None
    main = replace(one.faithfulness.measures[0], low=math.nan, high=math.inf)
    known = content(explanation_page(one.with_faithfulness(replace(one.faithfulness, measures=(main,)))))
    assert known["views"][0]["trust"]["measures"][0]["low"] is None
    nothing = replace(
        one, scores=torch.zeros_like(one.scores), span_scores=torch.zeros_like(one.span_scores), layers=None
    )
    (numbers,) = tables(content(explanation_page(nothing)))
    assert not numbers["scores"].any()
    assert "layers" not in numbers


def test_bounds_are_kept() -> None:
    one = explained("flow")
    (numbers,) = tables(content(explanation_page(replace(one, low=one.scores * 0.5, high=one.scores * 2))))
    np.testing.assert_allclose(numbers["high"], 2 * one.scores.numpy(), rtol=0.006, atol=1e-11)


def test_a_page_is_of_one_text() -> None:
    with pytest.raises(ArgumentError, match="explanations of one text, in the same spans, got none"):
        explanation_page([])
    for other in (explained(tokens=["a", "b"]), explained(by=2)):
        with pytest.raises(ArgumentError, match="got several texts or spans"):
            explanation_page([explained(), other])


def test_it_is_written(tmp_path: Path) -> None:
    place = write_explanation(explained(), tmp_path / "made" / "page.html", title="a title")
    assert place.read_text(encoding="utf-8") == explanation_page(explained(), title="a title")


def test_a_long_page_is_small() -> None:
    tokens = [f" w{i % 977}" for i in range(7600)]
    assert len(explanation_page(several(tokens)).encode()) < 300_000
