"""Simultaneous intervals hold for all heads at once, about as often as they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attlas._intervals import FEWEST, halves, simultaneous
from attlas.errors import ArgumentError


def draw(examples: int, heads: int, generator: torch.Generator) -> Tensor:
    """Return shares that are correlated over heads and skewed, of mean 1/3 each."""
    common = torch.randn(examples, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(examples, heads, generator=generator, dtype=torch.float64)
    return torch.special.ndtr(0.7 * common + 0.51**0.5 * own).square()


@pytest.mark.parametrize("examples", [32, 48])
def test_all_intervals_hold_together_about_as_often_as_they_say(examples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    rounds = 120
    for _ in range(rounds):
        found = simultaneous(draw(examples, 60, generator), resamples=500)
        held += bool(((found.low <= 1 / 3) & (found.high >= 1 / 3)).all())
    # Of 120 rounds at 95 %, fewer than 104 would be three standard deviations off.
    assert held >= 104


def test_plain_intervals_of_each_head_would_not() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(40):
        scores = draw(48, 60, generator)
        half = 1.96 * scores.std(0) / 48**0.5
        held += bool(((scores.mean(0) - 1 / 3).abs() <= half).all())
    assert held <= 20


def test_means_and_errors() -> None:
    scores = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    found = simultaneous(scores)
    torch.testing.assert_close(found.mean, scores.double().mean(0))
    torch.testing.assert_close(found.error, scores.double().std(0) / 40**0.5)
    torch.testing.assert_close(found.high - found.mean, found.mean - found.low)
    wider = simultaneous(scores, level=0.99)
    assert bool((wider.high > found.high).all())
    assert torch.equal(simultaneous(scores).low, found.low)
    assert not torch.equal(simultaneous(scores, seed=1).low, found.low)


def test_more_heads_make_wider_intervals() -> None:
    scores = torch.rand(40, 200, generator=torch.Generator().manual_seed(1))
    alone, together = simultaneous(scores[:, :1]), simultaneous(scores)
    assert together.high[0] - together.low[0] > 1.3 * (alone.high[0] - alone.low[0])


def test_examples_without_an_answer_are_left_out() -> None:
    scores = torch.rand(20, 2, generator=torch.Generator().manual_seed(1))
    holes = torch.cat([scores[:5], torch.full((3, 2), torch.nan), scores[5:]])
    with_holes = simultaneous(holes)
    assert with_holes.examples == 20
    assert torch.equal(with_holes.low, simultaneous(scores).low)


def test_a_head_that_never_fails_is_not_proved_to_be_certain() -> None:
    scores = torch.ones(20, 3)
    scores[:10, 1] = 0
    surely = simultaneous(scores)
    assert surely.low[0] == surely.high[0] == 1
    hits = simultaneous(scores, hits=True)
    assert hits.low[0] < 0.95
    torch.testing.assert_close(hits.error[0], torch.tensor(1 / 20, dtype=torch.float64))


def test_heads_without_any_spread() -> None:
    found = simultaneous(torch.zeros(20, 3))
    assert torch.equal(found.low, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(found.high, torch.zeros(3, dtype=torch.float64))


def test_halves_share_nothing_and_are_all_there_is() -> None:
    first, second = halves(21, seed=3)
    assert len(first) == 10
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(21))
    assert not torch.equal(first, halves(21, seed=4)[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resamples": 99}, "resamples: wanted a whole number from 100, got 99"),
        ({"resamples": True}, "resamples: wanted a whole number from 100, got True"),
        ({"level": 1.0}, "level: wanted a number between 0 and 1, got 1.0"),
    ],
)
def test_options_that_do_not_fit(options: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        simultaneous(torch.rand(20, 2), **options)


def test_too_few_examples() -> None:
    with pytest.raises(ArgumentError, match=f"scores: wanted at least {FEWEST} examples, got 7"):
        simultaneous(torch.rand(7, 2))
