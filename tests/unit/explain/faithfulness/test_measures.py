"""Measures against loops that are written straight from their definitions."""

import math
import statistics
from collections.abc import Sequence

import pytest
import torch

from attlas.explain.faithfulness.measures import (
    CURVE_MEASURES,
    CurveMeasure,
    foretold,
    lds,
    lds_interval,
    nearest_share,
    shuffled_lds,
)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlate mean ranks, counted one by one."""
    ranked = [
        [sum(b < a for b in series) + (sum(b == a for b in series) + 1) / 2 for a in series]
        for series in (first, second)
    ]
    return statistics.correlation(*ranked)


VALUES = [-1.5, -1.0, -4.0, -3.5, -6.0]
FULL, EMPTY = -0.5, -9.0


def written_out(name: str) -> float:
    if name == "aopc":
        return sum(FULL - value for value in VALUES) / 5
    if name == "top_k_drop":
        return FULL - VALUES[2]
    if name == "insertion":
        return sum(value - EMPTY for value in VALUES) / 5
    if name in ("comprehensiveness", "sufficiency"):
        return sum(FULL - value for value in VALUES) / 5
    total, extreme = 0.0, math.inf if name == "comprehensiveness_monotone" else -math.inf
    for value in VALUES:
        extreme = min(extreme, value) if name == "comprehensiveness_monotone" else max(extreme, value)
        total += FULL - extreme
    return total / 5


@pytest.mark.parametrize("measure", CURVE_MEASURES, ids=lambda one: one.name)
def test_measures_of_curves(measure: CurveMeasure) -> None:
    curves = torch.tensor([VALUES, VALUES[::-1]], dtype=torch.float64)
    found = measure.of(curves, FULL, EMPTY, 2)
    assert found.shape == (2,)
    assert float(found[0]) == pytest.approx(written_out(measure.name))


def test_the_envelope_is_never_below_the_plain_comprehensiveness_and_never_above_the_plain_sufficiency() -> None:
    of = {measure.name: measure.of for measure in CURVE_MEASURES}
    curves = torch.rand(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain, envelope = (of[f"comprehensiveness{end}"](curves, 1.0, 0.0, 0) for end in ("", "_monotone"))
    assert bool((envelope >= plain - 1e-12).all())
    plain, envelope = (of[f"sufficiency{end}"](curves, 1.0, 0.0, 0) for end in ("", "_monotone"))
    assert bool((envelope <= plain + 1e-12).all())


def test_top_k_is_the_share_nearest_to_five_tokens() -> None:
    assert nearest_share([1, 2, 3, 5, 12]) == 3
    assert nearest_share([20, 40]) == 0


def drawn(ablations: int = 30, parts: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    keeps = torch.rand(ablations, parts, generator=generator) < 0.5
    scores = torch.randint(-2, 3, (parts,), generator=generator).double()
    return keeps, scores, keeps.double() @ scores.exp() + torch.randn(ablations, generator=generator)


def test_lds_is_the_rank_correlation_of_summed_scores() -> None:
    keeps, scores, values = drawn()
    sums = [sum(float(score) for score, stays in zip(scores, row, strict=True) if stays) for row in keeps]
    assert lds(keeps, scores, values) == pytest.approx(spearman(sums, values.tolist()))
    assert lds(keeps, 3 * scores + 0.0, values) == pytest.approx(lds(keeps, scores, values))


def test_lds_of_the_true_worth_is_one_and_of_its_opposite_minus_one() -> None:
    keeps, scores, _ = drawn()
    values = foretold(keeps, scores)
    assert lds(keeps, scores, values) == pytest.approx(1)
    assert lds(keeps, -scores, values) == pytest.approx(-1)


def test_scores_or_values_that_are_all_alike_foretell_nothing() -> None:
    keeps, scores, values = drawn()
    assert lds(keeps, torch.zeros_like(scores), values) == 0
    assert lds(keeps, scores, torch.ones_like(values)) == 0
    # Equal scores foretell how many parts stay, whatever the rounding of their sums.
    even = spearman(keeps.sum(1).tolist(), values.tolist())
    assert lds(keeps, torch.full_like(scores, 0.1), values) == pytest.approx(even)


def test_shuffled_scores_are_the_same_numbers_on_other_parts() -> None:
    keeps, scores, values = drawn()
    found = shuffled_lds(keeps, scores, values, 250, torch.Generator().manual_seed(3))
    assert found.shape == (250,)
    generator = torch.Generator().manual_seed(3)
    orders = torch.rand(100, len(scores), generator=generator).argsort(1)
    for i in (0, 57, 99):
        assert float(found[i]) == pytest.approx(lds(keeps, scores[orders[i]], values))


def test_the_interval_holds_the_true_correlation_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(12, generator=generator, dtype=torch.float64)
    many = torch.rand(16_000, 12, generator=generator) < 0.5
    noise = torch.randn(16_000, generator=generator, dtype=torch.float64)
    values = many.double() @ scores + 2 * noise
    truth = lds(many[:4000], scores, values[:4000])
    inside = 0
    for start in range(4000, 16_000, 60):
        part = slice(start, start + 60)
        low, high = lds_interval(many[part], scores, values[part], 500, generator)
        inside += low <= truth <= high
    # 200 intervals of 95 %: fewer than 180 would be three standard errors and a half below 95 %.
    assert inside >= 180
