"""Each row's log-sum-exp in one streaming pass, and with it A·v where no fused kernel can give it.

The online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867) with a lazy maximum: the largest score of a row's
first tile is folded into the product, and moved only when a later tile rises far above it. Most tiles then cost one
product, one pass for the maximum, one ``exp2`` and one sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attlas.errors import ArgumentError, NonFiniteError, complaint
from attlas.matrix.scores import HIDDEN, LOG2E, Scores
from attlas.matrix.streaming import Block, each_block, merge_rows, tiling_of
from attlas.matrix.visibility import Indices, take_heads

if TYPE_CHECKING:
    from attlas.matrix.operator import Progress
    from attlas.matrix.softmax import AttentionMatrix

LARGE = 32.0
"""Above this magnitude a float32 score's rounding shows in its exponential, so entries are computed in float64."""

HEADROOM = 8.0
"""How far, in powers of two, scores may rise above the maximum that is folded in before it is moved."""


@dataclass(frozen=True)
class RowSums:
    """What is known of each row's sum of exponentials, in base-2 logarithms and two parts.

    Parameters
    ----------
    top : Tensor, (batch, head, n_query)
        A number near the row's largest score: what the sum is relative to. float64 where float32 cannot carry it.
    rest : Tensor, (batch, head, n_query)
        The logarithm of the sum relative to `top`, the sink's share included; minus infinity for a row of zeros.
    valid : Tensor, (batch, head, n_query)
        Whether the row sees any key.
    """

    top: Tensor
    rest: Tensor
    valid: Tensor

    @property
    def lse(self) -> Tensor:
        """The natural log-sum-exp; (batch, head, n_query)."""
        return (self.top + self.rest) / LOG2E

    @property
    def shift(self) -> Tensor:
        """What is subtracted from a row's scores to get its entries' logarithms; (batch, head, n_query, 2)."""
        # Rows of zeros are hidden entry by entry; any finite number does for them.
        return torch.stack([self.top, torch.where(self.rest.isfinite(), self.rest, 0.0)], dim=-1)

    @property
    def precise(self) -> bool:
        """Whether entries must be computed in float64 to be exact."""
        return self.top.dtype == torch.float64 and _is_large(self.lse)

    def narrow(self, batch: Indices, head: Indices) -> RowSums:
        """Return what is known of some heads' rows."""
        return RowSums(*(take_heads(part, batch, head) for part in (self.top, self.rest, self.valid)))

    @staticmethod
    def merge(matrix: AttentionMatrix, blocks: Sequence[Block], parts: Sequence[RowSums]) -> RowSums:
        """Put blocks' sums side by side, in the widest of their dtypes."""
        widest = _widest(parts)
        return RowSums(
            merge_rows(matrix, blocks, [part.top.to(widest) for part in parts]),
            merge_rows(matrix, blocks, [part.rest.to(widest) for part in parts]),
            merge_rows(matrix, blocks, [part.valid for part in parts]),
        )

    @staticmethod
    def merge_strips(parts: Sequence[RowSums]) -> RowSums:
        """Put the sums of strips that follow one another into one, in the widest of their dtypes."""
        widest = _widest(parts)
        return RowSums(
            torch.cat([part.top.to(widest) for part in parts], dim=2),
            torch.cat([part.rest.to(widest) for part in parts], dim=2),
            torch.cat([part.valid for part in parts], dim=2),
        )


def _widest(parts: Sequence[RowSums]) -> torch.dtype:
    return torch.float64 if any(part.top.dtype == torch.float64 for part in parts) else torch.float32


def _is_large(lse: Tensor) -> bool:
    return bool(torch.where(lse.isfinite(), lse, 0.0).abs().max() > LARGE)


def stream(matrix: AttentionMatrix, progress: Progress | None = None) -> RowSums:
    """Compute every row's sum in one pass; `progress` is called as ``progress(done, total)``."""
    return attend(matrix, None, progress)[0]


def trusted(matrix: AttentionMatrix, lse: Tensor) -> RowSums | None:
    """Take a kernel's log-sum-exp for what it says; None where it cannot say it exactly enough."""
    if tuple(lse.shape) != matrix.shape[:3]:
        raise ArgumentError(
            complaint(
                "lse", wanted=f"shape (batch, head, n_query) = {matrix.shape[:3]}", got=f"shape {tuple(lse.shape)}"
            )
        )
    if bool(lse.isnan().any()) or bool((lse == math.inf).any()):
        raise NonFiniteError(complaint("lse", wanted="finite numbers or minus infinity", got="NaN or plus infinity"))
    if matrix.sinks is not None or (lse.dtype != torch.float64 and (matrix.dtype == torch.float64 or _is_large(lse))):
        # Too coarse; or a sink's share hides whether a row saw any key.
        return None
    lse = lse.detach().to(device=matrix.device, dtype=torch.float64 if lse.dtype == torch.float64 else torch.float32)
    seen = lse.isfinite()
    top = torch.where(seen, lse * LOG2E, 0.0)
    return RowSums(top, torch.where(seen, 0.0, -math.inf).to(top.dtype), seen)


def attend(
    matrix: AttentionMatrix, values: Tensor | None, progress: Progress | None = None
) -> tuple[RowSums, Tensor | None]:
    """Compute each row's sum and, if there are values, A · values, in one pass.

    Parameters
    ----------
    matrix : AttentionMatrix
        What it knows of its own sums is not used.
    values : Tensor, (batch, head, n_key, width), optional
        What to apply the matrix to.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    sums : RowSums
    out : Tensor, (batch, head, n_query, width), or None
        In float32 or float64.
    """

    def work(block: Block) -> tuple[RowSums, Tensor | None]:
        v = None if values is None else values[block.batch, block.head]
        return attend_rows(matrix.narrow(block.batch, block.head), block.rows, v)

    blocks, parts = each_block(matrix, work, progress)
    sums = RowSums.merge(matrix, blocks, [sums for sums, _ in parts])
    if values is None:
        return sums, None
    return sums, merge_rows(matrix, blocks, [out for _, out in parts if out is not None], (values.shape[-1],))


def attend_rows(heads: AttentionMatrix, rows: slice, values: Tensor | None) -> tuple[RowSums, Tensor | None]:
    """Do what `attend` does for some rows, on the calling thread."""
    sums, out = _online(heads, rows, heads.accumulator, values)
    if heads.accumulator != torch.float64 and (_overflown(sums.lse) or _is_large(sums.lse)):
        sums, out = _online(heads, rows, torch.float64, values)
    if _overflown(sums.lse):
        raise NonFiniteError(complaint("query and key", wanted="scores that float64 can hold", got="an overflow"))
    if heads.sinks is not None:
        sums, kept = _with_sinks(sums, heads.sinks.detach())
        out = None if out is None else out * kept.unsqueeze(-1)
    return sums, None if out is None else out.to(heads.accumulator)


def _overflown(lse: Tensor) -> bool:
    return bool(lse.isnan().any()) or bool((lse == math.inf).any())


def _with_sinks(sums: RowSums, sinks: Tensor) -> tuple[RowSums, Tensor]:
    """Add each head's sink to its rows' sums; return also the share of the row that the keys keep."""
    sink = sinks.to(sums.top.dtype).view(1, -1, 1) * LOG2E
    top = torch.where(sums.valid, sums.top, sink)
    keys = torch.where(sums.valid, sums.rest, -math.inf)
    both = torch.logaddexp2(keys, sink - top)
    return RowSums(top, both, sums.valid), torch.exp2(keys - both)


def _online(
    heads: AttentionMatrix, rows: slice, dtype: torch.dtype, values: Tensor | None
) -> tuple[RowSums, Tensor | None]:
    """Return the keys' sums for a span of rows, and A · values without any sink."""
    scores = Scores(heads, dtype)
    tiling = tiling_of(heads)
    values = None if values is None else values.detach().to(dtype)
    strips = []
    for strip in tiling.strips(rows):
        tiles = [c for c in tiling.tiles(heads.columns(strip), heads.shape[3]) if heads.occupied(strip, c)]
        # The nearest keys come first: they usually hold a row's largest score.
        strips.append(_online_strip(heads, scores, strip, tiles[::-1], values))
    sums = RowSums(
        *(torch.cat(parts, dim=2) for parts in zip(*((s.top, s.rest, s.valid) for s, _ in strips), strict=True))
    )
    return sums, None if values is None else torch.cat([out for _, out in strips if out is not None], dim=2)


def _online_strip(
    heads: AttentionMatrix, scores: Scores, strip: slice, tiles: list[slice], values: Tensor | None
) -> tuple[RowSums, Tensor | None]:
    shape = (*heads.shape[:2], strip.stop - strip.start)
    like = heads.query.new_empty(0, dtype=scores.dtype)
    top = like.new_zeros(shape)  # what is folded in, in base-2 units
    total = like.new_zeros(shape)
    out = None if values is None else like.new_zeros((*shape, values.shape[-1]))
    scores.relative_to(strip, top)
    settled = False  # whether every row has seen a key, so that `top` is near its true maximum or below it
    for cols in tiles:
        x = scores.tile(strip, cols)
        highest = x.amax(-1)
        if not settled or bool(highest.max() > HEADROOM):
            risen = torch.where((highest > 0) | ((total == 0) & (highest > HIDDEN / 2)), highest, 0.0)
            # A row that has seen nothing has nothing to shrink, and its factor may overflow.
            shrink = torch.where(total == 0, 1.0, torch.exp2(-risen))
            total *= shrink
            if out is not None:
                out *= shrink.unsqueeze(-1)
            x.sub_(risen.unsqueeze(-1))
            top += risen
            scores.relative_to(strip, top)
        x.exp2_()
        total += x.sum(-1)
        settled = settled or bool((total > 0).all())
        if out is not None and values is not None:
            out += x @ values[:, :, cols]
    # An overflow has left NaN here, which must stay visible; only a row that saw nothing is minus infinity.
    sums = RowSums(top, torch.where(total == 0, -math.inf, total.log2()), total > 0)
    if out is None:
        return sums, None
    return sums, out / torch.where(total > 0, total, 1.0).unsqueeze(-1)
