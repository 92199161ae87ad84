"""Chance levels: the moments under a random rotation against drawn rotations, the spectra against drawn heads."""

import math

import pytest
import torch

from attlas.projections.chance import DRAWS, of_random_heads, rotation_variance


def rotations(count, d, generator):
    """Draw from the uniform distribution on the orthogonal group (Mezzadri 2007)."""
    q, r = torch.linalg.qr(torch.randn(count, d, d, generator=generator, dtype=torch.float64))
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]


def share(matrix):
    energy = torch.linalg.svdvals(matrix).square()
    return energy.square().sum() / energy.sum().square()


@pytest.mark.parametrize(("d", "ranks"), [(2, (1, 1)), (3, (2, 1)), (8, (3, 2)), (24, (4, 6))])
def test_moments_under_a_random_rotation(d, ranks):
    generator = torch.Generator().manual_seed(d)
    steep = torch.linspace(1, 3, ranks[0], dtype=torch.float64)[:, None]
    first = torch.randn(ranks[0], d, generator=generator, dtype=torch.float64) * steep
    second = torch.randn(d, ranks[1], generator=generator, dtype=torch.float64)
    count = 40_000
    drawn = (first @ rotations(count, d, generator) @ second).square().sum((1, 2))
    drawn = drawn / first.square().sum() / second.square().sum()
    deviation = rotation_variance(d, share(first), share(second)).sqrt()
    # Five standard errors of the drawn mean; and of the drawn variance, from the drawn fourth moment.
    assert abs(drawn.mean() - 1 / d) < 5 * deviation / math.sqrt(count)
    fourth = (drawn - 1 / d).pow(4).mean()
    assert abs(drawn.var() - deviation**2) < 5 * ((fourth - deviation**4) / count).sqrt()


def test_a_rotation_changes_nothing_for_an_isotropic_matrix():
    assert rotation_variance(12, 1 / 12, 0.5) == 0
    assert rotation_variance(1, 1.0, 1.0) == 0


def test_a_rank_of_one_on_both_sides_is_the_square_of_one_entry():
    # An entry of a uniform rotation squared is Beta(1/2, (d − 1)/2) distributed.
    d = 10
    assert float(rotation_variance(d, 1.0, 1.0)) == pytest.approx(2 * (d - 1) / (d**2 * (d + 2)))


def test_random_heads_are_always_the_same_and_near_other_draws():
    known = of_random_heads(40, 6, 40)
    assert known.draws == DRAWS
    assert set(known.mean) == set(known.deviation) == {"effective_rank", "stable_rank", "rank_90", "positivity"}
    of_random_heads.cache_clear()
    assert of_random_heads(40, 6, 40) == known
    generator = torch.Generator().manual_seed(99)
    products = torch.randn(400, 40, 6, generator=generator, dtype=torch.float64) @ torch.randn(
        400, 6, 40, generator=generator, dtype=torch.float64
    )
    stable = (torch.linalg.matrix_norm(products) / torch.linalg.matrix_norm(products, 2)).square()
    assert abs(float(stable.mean()) - known.mean["stable_rank"]) < 5 * known.deviation["stable_rank"] / math.sqrt(DRAWS)
    assert abs(known.mean["positivity"]) < 5 * known.deviation["positivity"] / math.sqrt(DRAWS)


def test_a_product_that_is_not_square_has_no_positivity():
    assert "positivity" not in of_random_heads(10, 3, 12).mean
