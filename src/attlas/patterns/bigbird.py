"""Windows of blocks, a few global blocks, and a few blocks at random."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from attlas.patterns.blocks import Blocks
from attlas.patterns.keep_set import ByPosition, whole_number


@dataclass(frozen=True)
class BigBird(ByPosition):
    """Each block of rows keeps the blocks near it, the first blocks, and a few others at random.

    Parameters
    ----------
    block : int
        Positions of a block.
    window : int
        How many blocks near the row block's own: those with ``0 <= row block - column block < window`` where the matrix
        is causal, ``|row block - column block| < window`` otherwise.
    global_ : int
        How many first blocks all rows keep; their own rows keep everything.
    random : int
        How many other blocks each row block keeps, drawn evenly among those that it may see. Where the matrix is
        causal, a row block's draw does not depend on the text's length, so that it stays when the text grows.
    seed : int
        What the draw begins with: equal seeds, equal blocks.

    Raises
    ------
    ArgumentError
        `block` or `window` is less than 1, or another number less than 0.

    References
    ----------
    Zaheer et al. (2020), "Big Bird: transformers for longer sequences", arXiv 2007.14062, the variant whose global
    tokens are the text's own first ones (ITC).
    """

    kind = "bigbird"

    block: int
    window: int = 3
    global_: int = 1
    random: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("block", self.block, 1)
        whole_number("window", self.window, 1)
        for name in ("global_", "random", "seed"):
            whole_number(name, getattr(self, name), 0)

    def at(self, n_key: int, *, causal: bool) -> Blocks:
        return _blocks(self, -(-n_key // self.block), causal)


@lru_cache(maxsize=64)
def _blocks(pattern: BigBird, count: int, causal: bool) -> Blocks:
    kept = []
    for row in range(count):
        seen = row + 1 if causal else count
        if row < pattern.global_:
            kept.append(tuple(range(seen)))
            continue
        near = range(max(row - pattern.window + 1, 0), min(row + pattern.window, seen))
        always = {*near, *range(min(pattern.global_, seen))}
        others = [column for column in range(seen) if column not in always]
        # Each row block draws for itself, so that no draw depends on how many blocks there are. PyTorch's generator for
        # CPUs takes 32 bits of its seed.
        generator = torch.Generator().manual_seed((pattern.seed * 1_000_003 + row) % 2**32)
        drawn = torch.randperm(len(others), generator=generator)[: pattern.random].tolist()
        kept.append(tuple(sorted({*always, *(others[place] for place in drawn)})))
    return Blocks(pattern.block, tuple(kept), causal)
