"""Rotations: the score of two positions depends on their offset alone, and is that of the matrix R."""

import pytest
import torch
from torch import Tensor

import attlas
from attlas.projections.rotation import Rotation, pairings

FREQUENCIES = torch.tensor([1.0, 0.3, 0.01], dtype=torch.float64)


def rotation(kind: int, dim: int = 8, amplitude: float = 1.0) -> Rotation:
    first, second = pairings(6, dim)[kind]
    return Rotation(FREQUENCIES, first, second, amplitude, dim)


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 2, 3, 11, 8, generator=generator, dtype=torch.float64)
    return query, key


@pytest.mark.parametrize("kind", range(4), ids=["half-split", "interleaved", "half-split, last", "interleaved, last"])
@pytest.mark.parametrize("amplitude", [1.0, 1.25])
def test_scores_of_rotated_vectors_are_those_of_the_matrix(
    kind: int, amplitude: float, vectors: tuple[Tensor, Tensor]
) -> None:
    R = rotation(kind, amplitude=amplitude)
    query, key = vectors
    positions = torch.arange(11)
    scores = R.rotate(query, positions) @ R.rotate(key, positions).mT
    i, j = torch.meshgrid(positions, positions, indexing="ij")
    matrices = R.matrix(i - j)
    assert matrices.shape == (11, 11, 8, 8)
    expected = torch.einsum("bhid,ijde,bhje->bhij", query, matrices, key)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)  # the angles of `rotate` are rounded to float32
    relative = R.relative(query[:, :, 7], 4.0)
    torch.testing.assert_close(relative, query[:, :, 7] @ R.matrix(4.0), rtol=0, atol=1e-12)


def test_it_is_the_rotation_of_the_paper() -> None:
    R = Rotation(torch.tensor([0.5], dtype=torch.float64), torch.tensor([0]), torch.tensor([1]))
    turned = R.rotate(torch.tensor([[1.0, 0.0]]), torch.tensor([3]))
    torch.testing.assert_close(
        turned, torch.tensor([[1.5, 1.5]]).cos() * torch.tensor([[1.0, 0]]) + torch.tensor([[0.0, 1.5]]).sin()
    )


def test_dimensions_without_a_pair_stay(vectors: tuple[Tensor, Tensor]) -> None:
    query, _ = vectors
    assert torch.equal(rotation(0).rotate(query, torch.arange(11))[..., 6:], query[..., 6:])
    assert torch.equal(rotation(2, amplitude=2.0).relative(query, 5)[..., :2], query[..., :2])


def test_position_zero_changes_nothing_but_the_amplitude(vectors: tuple[Tensor, Tensor]) -> None:
    query, _ = vectors
    assert torch.equal(rotation(1).rotate(query, torch.zeros(11)), query)
    twice = rotation(1, amplitude=2.0).rotate(query, torch.zeros(11))
    assert torch.equal(twice[..., :6], 2 * query[..., :6])


def test_each_text_of_a_batch_may_have_its_own_positions(vectors: tuple[Tensor, Tensor]) -> None:
    query, _ = vectors
    positions = torch.stack([torch.arange(11), torch.arange(11) + 100])
    both = rotation(0).rotate(query, positions[:, None])
    for b in range(2):
        assert torch.equal(both[b], rotation(0).rotate(query[b], positions[b]))


def test_pairings_are_all_pairs_once() -> None:
    for first, second in pairings(6, 8):
        assert len({*first.tolist(), *second.tolist()}) == 6
    assert len(pairings(8, 8)) == 2


def test_pairs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(attlas.ArgumentError, match="first: wanted one int64 dimension"):
        Rotation(FREQUENCIES, torch.arange(2), torch.arange(3))
    with pytest.raises(attlas.ArgumentError, match="second"):
        Rotation(FREQUENCIES, torch.arange(3), torch.arange(3.0))
