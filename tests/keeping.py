"""What patterns keep, dense and written straight from their definitions, for tests of what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from attlas import AttentionMatrix
from attlas.matrix.reference import dense_attention
from attlas.patterns import (
    BigBird,
    BlockSparse,
    Dilated,
    Full,
    GlobalTokens,
    Pattern,
    SlidingWindow,
    VerticalSlash,
    band,
    blocks,
    choosing,
    lines,
    running,
)
from attlas.patterns.chunk import attend_chunks
from attlas.patterns.fused import fused

STATIC = {
    "window": SlidingWindow(5),
    "window and sinks": SlidingWindow(6, sinks=3),
    "window of one": SlidingWindow(1),
    "more sinks than window": SlidingWindow(4, sinks=19),
    "wide window": SlidingWindow(1000, sinks=2),
    "dilated": Dilated(4, 3),
    "dilated and sinks": Dilated(3, 5, sinks=2),
    "not dilated": Dilated(6, 1, sinks=1),
    "global tokens": GlobalTokens((0, 7, 8, 23), 4),
    "named blocks": BlockSparse(8, blocks=((0, 0), (2, 0), (3, 1), (3, 3), (90, 4))),
    "local and strided blocks": BlockSparse(6, local=2, stride=3),
    "local blocks": BlockSparse(16, local=1),
    "bigbird": BigBird(5, window=2, global_=1, random=2, seed=3),
}
CHOOSING = {
    "top blocks": BlockSparse(7, top=3),
    "two large blocks": BlockSparse(16, top=2),
    "vertical and slash": VerticalSlash(3, 8, probe=6, band=4),
    "slash alone": VerticalSlash(0, 3, probe=9, band=1),
}
KEEPING: dict[str, Pattern] = {**STATIC, **CHOOSING}
EVERY: dict[str, Pattern] = {"full": Full(), **KEEPING}


def kept(pattern: Pattern, query: Tensor, key: Tensor, rules: dict[str, Any]) -> Tensor:
    """Return which pairs a pattern keeps, (batch, head, n_query, n_key), one pair at a time."""
    batch, head, n_query, _ = query.shape
    n_key = key.shape[2]
    causal = bool(rules.get("causal"))
    keeps = _rule(pattern, n_key, causal)
    grid = torch.zeros(n_query, n_key, dtype=torch.bool)
    if keeps is not None:
        for row in range(n_query):
            position = row + n_key - n_query
            for column in range(n_key):
                grid[row, column] = keeps(position, column)
        return grid.expand(batch, head, -1, -1)
    if isinstance(pattern, VerticalSlash):
        return _lines(pattern, query, key, rules)
    return _top_blocks(pattern, query, key, rules)


def _rule(pattern: Pattern, n_key: int, causal: bool) -> Callable[[int, int], bool] | None:
    def near(ahead: int, width: int) -> bool:
        return 0 <= ahead < width if causal else abs(ahead) < width

    match pattern:
        case Full():
            return lambda i, j: True
        case SlidingWindow(width, sinks):
            return lambda i, j: near(i - j, width) or j < sinks
        case Dilated(width, step, sinks):
            offsets = {side * m * step for m in range(width) for side in ((1,) if causal else (1, -1))}
            return lambda i, j: i - j in offsets or j < sinks
        case GlobalTokens(tokens, width):
            return lambda i, j: near(i - j, width) or j in tokens or i in tokens
        case BlockSparse(block, named) if named is not None:
            return lambda i, j: (i // block, j // block) in named
        case BlockSparse(block, _, local, stride) if local is not None:
            last = stride if stride is not None else n_key + 1
            return lambda i, j: i >= 0 and (near(i // block - j // block, local) or (j // block) % last == last - 1)
        case BigBird(block, window, global_, _, _):
            drawn = pattern.at(n_key, causal=causal).kept

            def keeps(i: int, j: int) -> bool:
                if i < 0:
                    return False
                row, column = i // block, j // block
                fixed = row < global_ or column < global_ or near(row - column, window)
                return fixed or column in drawn[row]

            return keeps
    return None


def _seen(query: Tensor, key: Tensor, rules: dict[str, Any]) -> Tensor:
    """Return which pairs the matrix's own position rules and padding show."""
    n_query, n_key = query.shape[2], key.shape[2]
    ahead = torch.arange(n_query).view(-1, 1) + n_key - n_query - torch.arange(n_key)
    seen = torch.ones(query.shape[0], 1, n_query, n_key, dtype=torch.bool)
    if rules.get("causal"):
        seen = seen & (ahead >= 0)
    if rules.get("window"):
        seen = seen & (ahead.abs() < rules["window"])
    mask = rules.get("mask")
    if isinstance(mask, Tensor) and mask.shape[1] == mask.shape[2] == 1:
        seen = seen & mask
    return seen


def _top_blocks(pattern: Pattern, query: Tensor, key: Tensor, rules: dict[str, Any]) -> Tensor:
    assert isinstance(pattern, BlockSparse)
    assert pattern.top is not None
    size, (batch, head, n_query, _), n_key = pattern.block, query.shape, key.shape[2]
    offset, groups = n_key - n_query, head // key.shape[1]
    causal, window, mask = rules.get("causal"), rules.get("window"), rules.get("mask")
    padding = mask if isinstance(mask, Tensor) and mask.shape[1] == mask.shape[2] == 1 else None
    grid = torch.zeros(batch, head, n_query, n_key, dtype=torch.bool)
    count = -(-n_key // size)
    for b in range(batch):
        there = torch.ones(n_key, dtype=torch.bool) if padding is None else padding[b % len(padding), 0, 0]
        for h in range(head):
            for own in range(max(offset, 0) // size, count):
                rows = [i for i in range(n_query) if (i + offset) // size == own and i + offset >= 0]
                if not rows:
                    continue
                mean = query[b, h, rows].double().mean(0)
                scores = {}
                for column in range(count):
                    span = [j for j in range(column * size, min((column + 1) * size, n_key)) if there[j]]
                    gap = max(0, (abs(own - column) - 1) * size + 1)
                    if not span or (causal and column > own) or (window and gap >= window):
                        continue
                    score = float(mean @ key[b, h // groups, span].double().mean(0)) * query.shape[3] ** -0.5
                    scores[column] = float("inf") if column == 0 else score
                scores.pop(own, None)
                best = sorted(scores, key=scores.__getitem__, reverse=True)[: pattern.top - 1]
                for column in (own, *best):
                    grid[b, h, rows, column * size : (column + 1) * size] = True
    return grid


def _lines(pattern: VerticalSlash, query: Tensor, key: Tensor, rules: dict[str, Any]) -> Tensor:
    batch, head, n_query, _ = query.shape
    n_key = key.shape[2]
    probe = min(pattern.probe, n_query, n_key)
    weights = dense_attention(query, key, **rules).detach()[:, :, n_query - probe :]
    position = torch.arange(n_query).view(-1, 1) + n_key - n_query
    column = torch.arange(n_key)
    band = torch.div(position - column, pattern.band, rounding_mode="floor")
    grid = torch.zeros(batch, head, n_query, n_key, dtype=torch.bool)
    for b in range(batch):
        for h in range(head):
            received = weights[b, h].sum(0)
            columns = [j for j in received.argsort(descending=True).tolist() if received[j] > 0][: pattern.vertical]
            probed = band[n_query - probe :]
            mass = {int(line): float(weights[b, h][probed == line].sum()) for line in probed.unique()}
            mass = {line: held for line, held in mass.items() if held > 0}
            mass[0] = float("inf")
            best = sorted(mass, key=mass.__getitem__, reverse=True)[: pattern.slash // pattern.band]
            kept_here = torch.isin(column, torch.tensor(columns, dtype=torch.int64)) | torch.isin(
                band, torch.tensor(best)
            )
            grid[b, h] = kept_here & (position >= 0)
    return grid


def truth(
    pattern: Pattern, query: Tensor, key: Tensor, rules: dict[str, Any], dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return the pattern's matrix, dense: the softmax over what is kept and may be seen."""
    mask = kept(pattern, query.detach(), key.detach(), rules)
    own = rules.get("mask")
    if isinstance(own, Tensor):
        mask = mask & own
    elif own is not None:
        batch, head = torch.arange(query.shape[0]).view(-1, 1, 1, 1), torch.arange(query.shape[1]).view(1, -1, 1, 1)
        position = torch.arange(query.shape[2]).view(1, 1, -1, 1) + key.shape[2] - query.shape[2]
        mask = mask & own(batch, head, position, torch.arange(key.shape[2]).view(1, 1, 1, -1))
    return dense_attention(query, key, **{**rules, "mask": mask}, dtype=dtype)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Collect how many scores count in each product of chunks, and in the fused kernel."""
    pairs: list[int] = []

    def counting(query: Tensor, keys: Any, *arguments: Any) -> Tensor:
        pairs.append(query.shape[0] * query.shape[1] * sum(value.shape[1] for _, value in keys))
        return attend_chunks(query, keys, *arguments)

    def counting_fused(exact: AttentionMatrix, value: Tensor) -> Tensor:
        batch, head, n_query, n_key = exact.shape
        pairs.append(batch * head * Full().work(n_query, n_key, causal=True).pairs)
        return fused(exact, value)

    with monkeypatch.context() as patch:
        for module in (running, choosing):
            patch.setattr(module, "attend_chunks", counting)
        patch.setattr(running, "fused", counting_fused)
        yield pairs


def low_chunks(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    """Let chunks be so low that small matrices have many of them."""
    for module in (band, blocks, lines):
        monkeypatch.setattr(module, "HEIGHT", height)
