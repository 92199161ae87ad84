"""Blocks of rows that keep blocks of keys: named ones, a rule's, or those that each head scores highest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix
from attlas.patterns.blocks import Blocks
from attlas.patterns.full import Full
from attlas.patterns.keep import HEIGHT
from attlas.patterns.keep_set import KeepSet, whole_number, work_of
from attlas.patterns.pattern import Work
from attlas.patterns.pooled_blocks import PooledBlocks, choose_blocks


@dataclass(frozen=True)
class BlockSparse(KeepSet):
    """Each block of rows keeps some blocks of keys; give just one of `blocks`, `local` and `top`.

    Parameters
    ----------
    block : int
        Positions of a block; block `i` begins at position ``i * block``.
    blocks : tuple of (row block, column block), optional
        The blocks that are kept, by name. Those beyond a text's end do nothing; a row block that is not named keeps
        nothing.
    local : int, optional
        Keep the blocks near the row block's own: those with ``0 <= row block - column block < local`` where the matrix
        is causal, ``|row block - column block| < local`` otherwise.
    stride : int, optional
        Beside `local`, keep every stride-th column block: those with ``(column block + 1) % stride == 0``.
    top : int, optional
        Keep so many column blocks, each head its own for each row block: the row block's own, the first, and those
        whose mean key scores highest with the mean query of the row block's rows. Ties and order are settled by the
        numbers alone, so that the same heads choose the same blocks.

    Raises
    ------
    ArgumentError
        A number is too small, or not just one of `blocks`, `local` and `top` is given.

    Notes
    -----
    With `top`, the choice for a row looks at the queries of its own row block, later ones among them, and at all keys
    that the row block may see; biases, sinks and masks other than key padding play no part in it. Under cached decoding
    it looks at those queries of the row block that are there.

    References
    ----------
    Child et al. (2019), "Generating long sequences with sparse transformers", arXiv 1904.10509, section 4.3, for
    `local` with `stride`; Jiang et al. (2024), "MInference 1.0", arXiv 2407.02490, section 3.2, for blocks chosen by
    pooled scores.
    """

    kind = "block_sparse"

    block: int
    blocks: tuple[tuple[int, int], ...] | None = None
    local: int | None = None
    stride: int | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        whole_number("block", self.block, 1)
        given = [name for name in ("blocks", "local", "top") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise ArgumentError(complaint("blocks, local, top", wanted="just one of them", got=got))
        if self.stride is not None:
            whole_number("stride", self.stride, 1)
            if self.local is None:
                raise ArgumentError(complaint("stride", wanted="None without `local`", got=self.stride))
        if self.local is not None:
            whole_number("local", self.local, 1)
        if self.top is not None:
            whole_number("top", self.top, 2)
        if self.blocks is not None:
            object.__setattr__(self, "blocks", tuple(sorted({_pair(pair) for pair in self.blocks})))

    def fixed(self, n_key: int, *, causal: bool) -> Blocks | None:
        return _blocks(self, -(-n_key // self.block), causal) if self.top is None else None

    def keep(self, exact: AttentionMatrix) -> Blocks | PooledBlocks:
        if self.top is not None:
            return choose_blocks(exact, self.block, self.top)
        return _blocks(self, -(-exact.shape[3] // self.block), exact.visibility.causal)

    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        count = -(-n_key // self.block)
        if self.top is None:
            return work_of(_blocks(self, count, causal), n_query, n_key, causal=causal)
        width = min(self.top, count) * self.block
        rows = min(n_query, n_key)
        first = n_key - rows
        # Up to here there are no more blocks to choose from, and rows run as exact attention does.
        free = min(max(width - first, 0), rows) if causal else 0
        free = free if free >= HEIGHT else 0
        exact = Full().work(free, first + free, causal=True).pairs
        chosen = rows - free
        return Work(pairs=exact + chosen * width, moved=(count - (n_key - chosen) // self.block) * width)


def _pair(pair: object) -> tuple[int, int]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ArgumentError(complaint("blocks", wanted="pairs (row block, column block)", got=pair))
    for number in pair:
        whole_number("blocks", number, 0)
    return pair[0], pair[1]


@lru_cache(maxsize=64)
def _blocks(pattern: BlockSparse, count: int, causal: bool) -> Blocks:
    kept: list[set[int]] = [set() for _ in range(count)]
    for row, column in pattern.blocks or ():
        if row < count and column <= (row if causal else count - 1):
            kept[row].add(column)
    if pattern.local is not None:
        for row, columns in enumerate(kept):
            stop = row + 1 if causal else count
            columns.update(range(max(row - pattern.local + 1, 0), min(row + pattern.local, stop)))
            if pattern.stride is not None:
                columns.update(range(pattern.stride - 1, stop, pattern.stride))
    return Blocks(pattern.block, tuple(tuple(sorted(columns)) for columns in kept), causal)
