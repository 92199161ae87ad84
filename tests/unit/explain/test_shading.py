from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attlas.explain.answering import place
from attlas.explain.shading import ends, full, shade
from explaining import explained


def test_the_first_token_does_not_set_the_scale() -> None:
    assert full(torch.tensor([0.9, 0.05, -0.04, 0.01])) == pytest.approx(0.05)


def test_what_holds_next_to_nothing_is_not_blown_up() -> None:
    assert full(torch.tensor([0.97, 0.01, -0.01, 0.01])) == pytest.approx(0.97)


def test_one_in_two_hundred_may_be_stronger() -> None:
    scores = torch.arange(401, dtype=torch.float64)
    assert full(scores) == 398  # of 400 beside the first, two are stronger


@pytest.mark.parametrize(("scores", "end"), [([0.0, 0.0], 0.0), ([2.0], 2.0), ([3.0, 0.0, 0.0], 3.0)])
def test_where_little_is_known(scores: list[float], end: float) -> None:
    assert full(torch.tensor(scores)) == end


def test_shades_end_at_full() -> None:
    assert [shade(score, 2.0) for score in (-9.0, -1.0, 0.0, 1.0, 9.0)] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert shade(1.0, 0.0) == 0.0


def test_where_the_model_answers_does_not_set_the_scale() -> None:
    scores = torch.tensor([0.01, 0.02, 0.05, 0.92])
    assert full(scores) == pytest.approx(0.92)
    assert full(scores, 3) == pytest.approx(0.05)
    assert full(torch.tensor([0.0, 0.0, 0.7]), 2) == pytest.approx(0.7), "there is nothing else"


def test_spans_have_a_scale_of_their_own() -> None:
    one = explained(by=3)
    scores = one.scores.clone()
    scores[-1] = 9.0
    sums = one.span_scores.clone()
    sums[-1] = 9.0
    one = replace(one, scores=scores, span_scores=sums)
    assert ends(one) == (full(scores, 14), full(sums, 4))
    assert max(ends(one)) < 9.0
    said_by_a_decoder = replace(one, answer=(1, 2))
    assert ends(said_by_a_decoder)[0] == 9.0, "its positions are none of the text's"
    assert place(said_by_a_decoder) == "at token 14 of what the decoder said"
    assert place(replace(one, target=replace(one.target, position=None))) == "over all tokens"
