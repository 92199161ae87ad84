"""Detectors give the means that a dense matrix gives."""

from __future__ import annotations

import torch

from attlas._intervals import halves
from attlas.heads.detectors import (
    EVEN,
    Evens,
    Pairs,
    Sets,
    Tally,
    even_of,
    lines,
    offset_of,
    offset_samples,
    sums_of_pairs,
    sums_of_sets,
)
from attlas.matrix import AttentionMatrix


def matrix(batch: int = 1, n: int = 40) -> AttentionMatrix:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, 4, n, 8, generator=generator) * 2
    return AttentionMatrix(query, torch.randn(batch, 2, n, 8, generator=generator), causal=True)


def test_lines_are_means_of_diagonals() -> None:
    A = matrix(batch=3)
    dense = A.to_dense().double()
    found = sums_of_pairs(A, list(lines(40, 1, [0, 1, 5, -2])))
    for offset, first in ((0, 1), (1, 0), (5, 0)):
        diagonal = dense.diagonal(-offset, dim1=-2, dim2=-1)[..., first:]
        torch.testing.assert_close(found[offset_of(offset)], diagonal.mean(-1))
    assert not found[offset_of(-2)].any()


def test_pairs_are_averaged_over_the_queries_of_their_example() -> None:
    A = matrix()
    dense = A.to_dense()[0].double()
    query, key = torch.tensor([3, 4, 5, 20, 21]), torch.tensor([1, 1, 2, 20, 3])
    example = torch.tensor([0, 0, 1, 1, 1])
    found = sums_of_pairs(A, [Pairs("some", query, key, example, torch.tensor([2.0, 5.0]))])["some"]
    values = dense[:, query, key]
    torch.testing.assert_close(found[0], values[:, :2].sum(1) / 2)
    torch.testing.assert_close(found[1], values[:, 2:].sum(1) / 5)


def test_sets_are_averaged_over_the_rows_that_count() -> None:
    A = matrix()
    dense = A.to_dense()[0].double()
    generator = torch.Generator().manual_seed(1)
    rows, example = torch.tensor([4, 9, 17, 30]), torch.tensor([0, 0, 1, 2])
    keys = torch.rand(4, 2, 40, generator=generator) > 0.5
    counts = torch.tensor([[True, True], [True, False], [True, True], [False, True]])
    found = sums_of_sets(A, Sets(("a", "b"), rows, keys, counts, example, 3))
    mass = torch.einsum("hrk,rmk->rmh", dense[:, rows], keys.double())
    torch.testing.assert_close(found["a"][0], mass[:2, 0].mean(0))
    torch.testing.assert_close(found["b"][0], mass[0, 1])
    torch.testing.assert_close(found["b"][2], mass[3, 1])
    assert bool(found["a"][2].isnan().all())


def test_even_spreads_are_asked_the_same_once() -> None:
    A, groups, evens = matrix(), list(lines(40, 1, [1])), Evens()
    found = evens.pairs(A, groups)
    counts = torch.arange(2, 41).double()
    torch.testing.assert_close(found[even_of("offset 1")], (1 / counts).mean().view(1, 1))
    assert evens.pairs(A, groups) is found
    windowed = AttentionMatrix(A.query, A.key, causal=True, window=2)
    # The query at position 1 sees two keys, like all others.
    torch.testing.assert_close(evens.pairs(windowed, groups)["offset 1 even"], torch.full((1, 1), 0.5).double())


def test_a_tally_joins_layers_and_batches() -> None:
    tally = Tally()
    for batch in (0, 10):
        for layer, heads in ((1, 2), (2, 3)):
            tally.layer({"x": torch.full((2, heads), float(batch + layer)), "even": torch.zeros(2, 1)}, heads)
        tally.close()
    assert tally["x"].tolist() == [[1, 1, 2, 2, 2]] * 2 + [[11, 11, 12, 12, 12]] * 2
    assert tally["even"].shape == (4, 5)
    assert "y" not in tally


def test_each_heads_offset_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    offsets = [0, 1, 2]
    chosen, reported = halves(20, 5)
    scores = torch.zeros(3, 20, 2)
    scores[2, chosen, 0], scores[1, reported, 0] = 0.9, 0.8  # head 0 changes its mind
    scores[1, :, 1], scores[0, :, 1] = 0.7, 0.2  # head 1 does not
    tally = Tally()
    tally.layer({offset_of(k): scores[k] for k in offsets}, 2)
    tally.layer({even_of(offset_of(k)): torch.full((20, 1), 0.1) for k in offsets}, 2)
    tally._layers = {name: [parts[0]] for name, parts in tally._layers.items()}
    tally.close()
    samples = offset_samples(tally, offsets, seed=5)
    found = samples["offset"]
    assert found.choice is not None
    assert found.choice.tolist() == [2, 1]
    assert len(found.score) == 10
    assert not found.score[:, 0].any()
    torch.testing.assert_close(found.score[:, 1], torch.full((10,), 0.7))
    torch.testing.assert_close(found.baselines["another offset"][:, 1], torch.full((10,), 0.2))
    previous = samples["previous_token"]
    assert len(previous.score) == 20
    torch.testing.assert_close(previous.baselines[EVEN], torch.full((20, 2), 0.1))
    torch.testing.assert_close(previous.score[:, 1], torch.full((20,), 0.7))
    torch.testing.assert_close(previous.baselines["another offset"][chosen, 0], torch.full((10,), 0.9))
