"""Principal angles and overlaps of subspaces with known positions, and of random ones."""

import math

import pytest
import torch

from attlas.projections.subspaces import basis, compare_subspaces


def test_known_angles():
    first = torch.eye(4, dtype=torch.float64)[:, :2]
    turned = torch.tensor([[math.cos(0.3), 0], [0, 0], [math.sin(0.3), 0], [0, 1]], dtype=torch.float64)
    found = compare_subspaces(first, turned)
    assert found.angles.tolist() == pytest.approx([0.3, math.pi / 2])
    assert float(found.overlap) == pytest.approx(math.cos(0.3) ** 2)
    assert float(found.chance) == 1.0


def test_missing_directions_are_right_angles():
    first = torch.eye(5, dtype=torch.float64)[:, :3]
    second = first * torch.tensor([1.0, 0.0, 0.0])
    found = compare_subspaces(first, second)
    assert found.angles.tolist() == pytest.approx([0, math.pi / 2, math.pi / 2])
    assert float(found.overlap) == 1.0
    assert float(found.chance) == pytest.approx(3 / 5)


def test_overlap_of_random_subspaces_has_the_stated_mean_and_deviation():
    generator = torch.Generator().manual_seed(0)
    first = basis(torch.randn(4000, 12, 3, generator=generator))
    second = basis(torch.randn(4000, 12, 5, generator=generator))
    found = compare_subspaces(first, second)
    deviation = float(found.deviation[0])
    assert abs(float(found.overlap.mean()) - 15 / 12) < 5 * deviation / math.sqrt(4000)
    assert float(found.overlap.std()) == pytest.approx(deviation, rel=0.08)
    assert float(found.z.mean()) == pytest.approx(0, abs=5 / math.sqrt(4000))


def test_the_whole_space_overlaps_by_necessity():
    whole = torch.eye(4, dtype=torch.float64)
    found = compare_subspaces(whole, whole[:, :2])
    assert float(found.overlap) == float(found.chance) == 2.0
    assert float(found.z) == 0.0


def test_a_basis_leaves_out_what_is_not_there():
    tall = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tall[1, :, 2] = tall[1, :, 0] - tall[1, :, 1]
    tall[2] = 0
    found = basis(tall)
    assert found.square().sum((-2, -1)).round().tolist() == [4, 3, 0]
    torch.testing.assert_close(found @ (found.mT @ tall), tall)
