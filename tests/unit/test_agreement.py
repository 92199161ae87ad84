"""Correlation of values and of ranks."""

import math

import pytest
import torch

from attlas._agreement import pearson, ranks, spearman

FIRST = torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_correlation_of_values() -> None:
    assert pearson(FIRST, 3 - 2 * FIRST) == pytest.approx(-1)
    assert pearson(FIRST, torch.tensor([1.0, 0.0, 0.0, 1.0])) == pytest.approx(0)


def test_correlation_of_ranks() -> None:
    assert spearman(FIRST, FIRST.exp()) == pytest.approx(1)
    assert spearman(FIRST, -FIRST) == pytest.approx(-1)
    assert spearman(FIRST, torch.tensor([1.0, 2.0, 2.0, 4.0])) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_equal_values_share_their_mean_rank() -> None:
    assert ranks(torch.tensor([7.0, 5.0, 7.0, 9.0])).tolist() == [2.5, 1, 2.5, 4]


def test_a_constant_correlates_with_nothing() -> None:
    assert math.isnan(pearson(FIRST, torch.ones(4)))
    assert math.isnan(spearman(torch.ones(4), FIRST))
