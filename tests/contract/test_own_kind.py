"""A kind of matrix that a user writes in a few lines gets every product, index and question."""

import pytest
import torch
from torch import Tensor

from attlas import ArgumentError, AttentionOperator
from attlas.matrix import Reader, Tile, streaming
from attlas.matrix.visibility import Indices, take, take_heads
from attlas.testing import check_operator


class Held(AttentionOperator):
    """A dense matrix, as an operator."""

    def __init__(self, entries: Tensor) -> None:
        self.entries = entries

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, head, n_query, n_key = self.entries.shape
        return batch, head, n_query, n_key

    @property
    def dtype(self) -> torch.dtype:
        return self.entries.dtype

    @property
    def device(self) -> torch.device:
        return self.entries.device

    def narrow(self, batch: Indices, head: Indices) -> AttentionOperator:
        return Held(take_heads(self.entries, batch, head))

    def reader(self) -> Reader:
        return HeldReader(self.entries)


class HeldReader(Reader):
    """Its tiles."""

    def __init__(self, entries: Tensor) -> None:
        self.entries = entries

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        return Tile(take(take(self.entries, 2, rows), 3, cols).clone())


@pytest.fixture
def entries() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(2, 3, 29, 41, generator=generator, dtype=torch.float64) * 3
    return torch.softmax(scores.masked_fill(torch.rand(scores.shape, generator=generator) < 0.3, -torch.inf), -1)


@pytest.mark.parametrize("tile", [8, 512])
def test_it_keeps_the_contract(entries, tile, monkeypatch):
    monkeypatch.setattr(streaming, "TILE", tile)
    check_operator(Held(entries.float()), entries, entries.float())
    check_operator(Held(entries.float()).T, entries.mT, entries.float().mT)


def test_a_gradient_that_it_cannot_give_is_refused(entries):
    with pytest.raises(ArgumentError, match="x: wanted no gradient, for Held has none, got requires_grad=True; detach"):
        _ = Held(entries) @ torch.ones(41, 2, dtype=torch.float64, requires_grad=True)
