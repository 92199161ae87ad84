"""Factors and rotations are found from what went in and what came out, and nothing is found where there is none."""

import pytest
import torch

from attlas.projections.fitting import Fit, Rotary, error_by_head, error_of, fit, tolerance_of
from attlas.projections.rotation import Rotation, pairings

ALLOWED = tolerance_of(torch.float32)
FREQUENCIES = 10000 ** -(torch.arange(4, dtype=torch.float64) / 4)
POSITIONS = torch.arange(12).expand(2, 12)


@pytest.fixture
def made() -> torch.Tensor:
    return torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def found(made: torch.Tensor, recorded: torch.Tensor, *frequencies: torch.Tensor) -> Fit:
    result = fit(made, recorded, POSITIONS, Rotary(frequencies, ()), None, ALLOWED)
    assert result is not None
    return result


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("amplitude", [1.0, 1.3])
@pytest.mark.parametrize("known", [True, False], ids=["frequencies known", "frequencies estimated"])
def test_a_rotation_is_found(made: torch.Tensor, kind: int, amplitude: float, known: bool) -> None:
    true = Rotation(FREQUENCIES, *pairings(8, 8)[kind], amplitude, 8)
    recorded = true.rotate(made, POSITIONS[:, None])
    result = found(made, recorded, *([FREQUENCIES] if known else []))
    assert result.error <= ALLOWED
    assert result.rotation is not None
    assert torch.equal(result.rotation.first, true.first)
    assert torch.equal(result.rotation.second, true.second)
    torch.testing.assert_close(result.rotation.frequencies, FREQUENCIES, rtol=0, atol=0 if known else 1e-7)
    assert result.rotation.amplitude == pytest.approx(amplitude, abs=1e-6)


def test_of_several_sets_of_frequencies_the_right_one_is_taken(made: torch.Tensor) -> None:
    others = [FREQUENCIES * 0.7, FREQUENCIES**1.3, FREQUENCIES + 1e-3]
    recorded = Rotation(FREQUENCIES, *pairings(8, 8)[0], 1.0, 8).rotate(made, POSITIONS[:, None])
    result = found(made, recorded, *others, FREQUENCIES)
    assert result.rotation is not None
    assert torch.equal(result.rotation.frequencies, FREQUENCIES)


def test_a_partial_rotation_leaves_the_rest(made: torch.Tensor) -> None:
    true = Rotation(FREQUENCIES[:2], *pairings(4, 8)[0], 1.0, 8)
    for factor in (1.0, 0.5):
        result = found(made, factor * true.rotate(made, POSITIONS[:, None]), FREQUENCIES[:2])
        assert result.rotation is not None
        assert (result.rotation.dims, result.rotation.amplitude) == (4, pytest.approx(1.0))
        assert result.factor == pytest.approx(factor)
    # Without a hint the width shows in what has changed.
    assert found(made, true.rotate(made, POSITIONS[:, None])).error <= ALLOWED


def test_a_factor_is_no_rotation(made: torch.Tensor) -> None:
    result = found(made, made * 0.25, FREQUENCIES)
    assert (result.rotation, result.factor) == (None, pytest.approx(0.25))
    assert found(made, made * (1 + 1e-9)).factor == 1.0


def test_what_is_no_rotation_by_position_is_not_explained(made: torch.Tensor) -> None:
    grid = Rotation(FREQUENCIES, *pairings(8, 8)[0], 1.0, 8).rotate(made, (POSITIONS[:, None] % 4) ** 2)
    assert found(made, grid, FREQUENCIES).error > 0.1
    assert found(made, torch.randn_like(made), FREQUENCIES).error > 0.5
    assert fit(made, made[..., :4], POSITIONS, Rotary((), ()), None, ALLOWED) is None


def test_errors_are_relative_and_never_nan(made: torch.Tensor) -> None:
    assert error_of(made * 1.5, made) == pytest.approx(0.5)
    assert error_of(made * torch.nan, made) == float("inf")
    assert error_of(made[0], made) == float("inf")
    assert error_of(made * 0, made * 0) == 0
    one_wrong = made.clone()
    one_wrong[:, 2] *= 3
    assert error_by_head(one_wrong, made) == pytest.approx(2.0)
