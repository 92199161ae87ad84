"""A @ v and A.T @ x: streamed, fused where PyTorch has a kernel, and differentiable for the exact matrix.

Both products are the same bilinear form. With `L` on the side of the queries and `R` on the side of the keys, the
gradient with respect to the score of an exact matrix is ``A_ij (L_i · R_j - L_i · (A R)_i)``; for ``A @ v`` L is the
gradient that arrives and R is `v`, for ``A.T @ x`` L is `x` and R is the gradient that arrives. So one streaming
backward serves both, and never holds more than a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own abbreviation
from torch import Tensor
from torch.autograd.function import once_differentiable

from attlas.errors import ArgumentError, complaint
from attlas.matrix import logsumexp
from attlas.matrix.columns import RowsThatCount, sum_over_blocks
from attlas.matrix.operator import AttentionOperator, Tile
from attlas.matrix.questions import Question, ask
from attlas.matrix.rows import RowPart
from attlas.matrix.scores import Scores
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.streaming import Block, merge_rows
from attlas.matrix.transposed import Transposed


def apply(operator: AttentionOperator, x: Tensor) -> Tensor:
    """Return ``operator @ x``; see `AttentionOperator.__matmul__`."""
    x = _fit(operator, x)
    if isinstance(operator, AttentionMatrix):
        return _exact(operator, x, transposed=False)
    if isinstance(operator, Transposed) and isinstance(operator.of, AttentionMatrix):
        return _exact(operator.of, x, transposed=True)
    if torch.is_grad_enabled() and x.requires_grad:
        kind = type(operator).__name__
        raise ArgumentError(
            complaint("x", wanted=f"no gradient, for {kind} has none", got="requires_grad=True", way_out="detach it")
        )
    if isinstance(operator, Transposed):
        return ask(operator.of, ApplyTransposed(x))[0].to(x.dtype)
    return ask(operator, Apply(x))[0].to(x.dtype)


def _fit(operator: AttentionOperator, x: Tensor) -> Tensor:
    """Check what is multiplied and give it four axes, expanding leading axes of size 1."""
    batch, head, _, n_key = operator.shape
    wanted = f"(batch, head, {n_key}, width), where batch {batch} and head {head} may be 1 or missing"
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ArgumentError(complaint("x", wanted="a tensor of floats", got=getattr(x, "dtype", type(x).__name__)))
    if x.device != operator.device:
        raise ArgumentError(
            complaint("x", wanted=f"device {operator.device}", got=x.device, way_out="move it with .to(device)")
        )
    if not 2 <= x.ndim <= 4 or x.shape[-2] != n_key:
        raise ArgumentError(complaint("x", wanted=wanted, got=f"shape {tuple(x.shape)}"))
    x = x.view((1,) * (4 - x.ndim) + tuple(x.shape))
    kv_head = operator.key.shape[1] if isinstance(operator, AttentionMatrix) else head
    if x.shape[0] not in (1, batch) or x.shape[1] not in (1, kv_head, head):
        raise ArgumentError(complaint("x", wanted=wanted, got=f"shape {tuple(x.shape)}"))
    if x.shape[1] not in (1, head):
        # Values of grouped-query attention come with one head per group, as keys do.
        x = x.repeat_interleave(head // kv_head, dim=1)
    return x.expand(batch, head, *x.shape[2:])


@dataclass
class RowProduct:
    """A product's rows so far, and what the block is multiplied with, (batch, head, width, n_key)."""

    rows: RowPart
    operand: Tensor


@dataclass
class ColumnProduct:
    """A transposed product so far, (batch, head, width, n_key); what the block is multiplied with; which rows count."""

    total: Tensor
    operand: Tensor
    counting: RowsThatCount


def _lying(x: Tensor, operator: AttentionOperator, block: Block) -> Tensor:
    """Return what a block is multiplied with, (batch, head, width, n)."""
    # A few long rows times a tile take a quarter of the time of a tile times a few long columns.
    return _operand(x, operator, block).mT.contiguous()


def _operand(x: Tensor, operator: AttentionOperator, block: Block) -> Tensor:
    return x[block.batch, block.head].to(operator.accumulator)


class Apply(Question[RowProduct, Tensor]):
    """``A @ x`` for any kind; (batch, head, n_query, width).

    Parameters
    ----------
    x : Tensor, (batch, head, n_key, width)
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def start(self, operator: AttentionOperator, block: Block) -> RowProduct:
        return RowProduct(RowPart.empty(operator, block, self.x.shape[-1]), _lying(self.x, operator, block))

    def add(self, state: RowProduct, rows: slice, cols: slice, tile: Tile) -> None:
        state.rows.of(rows).add_((state.operand[..., cols] @ tile.values.mT).mT)

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[RowProduct]) -> Tensor:
        return merge_rows(operator, blocks, [state.rows.values for state in states], (self.x.shape[-1],))


class ApplyTransposed(Question[ColumnProduct, Tensor]):
    """``A.T @ x`` for any kind; (batch, head, n_key, width). Rows of `x` that are zero cost nothing.

    Parameters
    ----------
    x : Tensor, (batch, head, n_query, width)
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def start(self, operator: AttentionOperator, block: Block) -> ColumnProduct:
        batch, head, _, n_key = operator.shape
        shape = (batch, head, self.x.shape[-1], n_key)
        total = torch.zeros(shape, dtype=operator.accumulator, device=operator.device)
        operand = _lying(self.x, operator, block)
        return ColumnProduct(total, operand, RowsThatCount(operand.mT))

    def rows(self, state: ColumnProduct, strip: slice) -> slice:
        return state.counting.within(strip)

    def add(self, state: ColumnProduct, rows: slice, cols: slice, tile: Tile) -> None:
        state.total[..., cols] += state.operand[..., rows] @ tile.values

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[ColumnProduct]) -> Tensor:
        return sum_over_blocks(operator, blocks, [state.total for state in states]).mT.contiguous()


# ---- the exact matrix: fused kernels, and gradients


def _exact(matrix: AttentionMatrix, x: Tensor, *, transposed: bool) -> Tensor:
    if torch.is_grad_enabled() and isinstance(matrix.bias, Tensor) and matrix.bias.requires_grad:
        raise ArgumentError(
            complaint(
                "bias",
                wanted="no gradient",
                got="requires_grad=True",
                way_out="detach it: gradients reach query, key and sinks only",
            )
        )
    if not transposed and _kernel_fits(matrix, x):
        return _fused(matrix, x)
    result = _Product.apply(matrix, transposed, matrix.query, matrix.key, matrix.sinks, x)
    return result.to(x.dtype)


def _kernel_fits(matrix: AttentionMatrix, x: Tensor) -> bool:
    """Tell whether PyTorch has a fused kernel for this product, which is never so for its dense fallback."""
    _, _, n_query, n_key = matrix.shape
    seen = matrix.visibility
    plain = (
        seen.mask is None
        and seen.window is None
        and matrix.bias is None
        and not matrix.softcap
        and matrix.sinks is None
    )
    # PyTorch's causal rule counts from the first key, ours from the last, so they agree on squares only.
    if not plain or x.dtype != matrix.dtype or (seen.causal and n_query != n_key):
        return False
    dim = matrix.query.shape[3]
    like_values = matrix.key.new_empty(1).expand(*matrix.shape[:2], n_key, dim)
    # The only way to know beforehand that the dense fallback is not taken.
    choice = torch._fused_sdp_choice(  # pyright: ignore[reportPrivateImportUsage] - there is no public way
        matrix.query, _all_heads(matrix), like_values, is_causal=seen.causal, scale=matrix.scale
    )
    return choice != torch.nn.attention.SDPBackend.MATH.value


def _all_heads(matrix: AttentionMatrix) -> Tensor:
    return matrix.key.repeat_interleave(matrix.shape[1] // matrix.key.shape[1], dim=1)


def _fused(matrix: AttentionMatrix, x: Tensor) -> Tensor:
    """One fused call per `dim` columns of `x`: the kernels want values as wide as the keys."""
    dim, width = matrix.query.shape[3], x.shape[-1]
    key = _all_heads(matrix)
    parts = []
    for start in range(0, width, dim):
        part = x[..., start : start + dim]
        padded = F.pad(part, (0, dim - part.shape[-1])) if part.shape[-1] < dim else part
        out = F.scaled_dot_product_attention(
            matrix.query, key, padded, is_causal=matrix.visibility.causal, scale=matrix.scale
        )
        parts.append(out[..., : part.shape[-1]])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class _Product(torch.autograd.Function):
    """A product with the exact matrix, streamed forwards and backwards."""

    @staticmethod
    def forward(
        ctx: Any, matrix: AttentionMatrix, transposed: bool, query: Tensor, key: Tensor, sinks: Tensor | None, x: Tensor
    ) -> Tensor:
        if transposed:
            out = ask(matrix, ApplyTransposed(x))[0]
        else:
            out = _apply_and_keep_sums(matrix, x)
        ctx.matrix = matrix.detached()
        ctx.transposed = transposed
        ctx.save_for_backward(query, key, sinks, x, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator changes the signature
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        query, key, sinks, x, out = ctx.saved_tensors
        matrix: AttentionMatrix = ctx.matrix
        if ctx.transposed:
            left, right = x, grad
            applied = ask(matrix, Apply(grad))[0]
        else:
            left, right, applied = grad, x, out
        row_share = (left.to(applied.dtype) * applied).sum(-1)
        questions: list[Question[Any, Any]] = [ScoreGradient(matrix, left, right, row_share)]
        if not ctx.transposed:
            questions.append(ApplyTransposed(left))
        (grad_query, grad_key), *rest = ask(matrix, *questions)
        grad_sinks = None
        if sinks is not None:
            share = torch.exp(sinks.view(1, -1, 1) - matrix.lse)
            grad_sinks = -(share * row_share).sum((0, 2)).to(sinks.dtype)
        grad_x = (rest[0] if rest else applied).to(x.dtype)
        return None, None, grad_query.to(query.dtype), grad_key.to(key.dtype), grad_sinks, grad_x


def _apply_and_keep_sums(matrix: AttentionMatrix, x: Tensor) -> Tensor:
    if matrix.sums_known:
        return ask(matrix, Apply(x))[0]
    # One pass gives both the product and the sums that later questions need.
    sums, out = logsumexp.attend(matrix, x)
    matrix.keep_sums(sums)
    return torch.zeros_like(x) if out is None else out


@dataclass
class GradientPart:
    """What a block's backward holds."""

    query: RowPart
    key: Tensor
    scores: Scores | None
    operands: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class ScoreGradient(Question[GradientPart, tuple[Tensor, Tensor]]):
    """The gradients of ``sum_ij L_i · A_ij R_j`` with respect to an exact matrix's query and key.

    Parameters
    ----------
    matrix : AttentionMatrix
        The matrix that is asked.
    left : Tensor, (batch, head, n_query, width)
    right : Tensor, (batch, head, n_key, width)
    row_share : Tensor, (batch, head, n_query)
        ``L_i · (A R)_i``.
    """

    def __init__(self, matrix: AttentionMatrix, left: Tensor, right: Tensor, row_share: Tensor) -> None:
        self.matrix = matrix
        self.left = left
        self.right = right
        self.row_share = row_share

    def start(self, operator: AttentionOperator, block: Block) -> GradientPart:
        heads = self.matrix.narrow(block.batch, block.head)
        batch, head, _, n_key = heads.shape
        dim = heads.query.shape[3]
        dtype = operator.accumulator
        return GradientPart(
            query=RowPart.empty(operator, block, dim),
            key=torch.zeros((batch, head, n_key, dim), dtype=dtype, device=operator.device),
            scores=Scores(heads, dtype) if heads.softcap else None,
            operands=(
                heads.query.to(dtype),
                _all_heads(heads).to(dtype),
                _operand(self.left, operator, block),
                _operand(self.right, operator, block),
                self.row_share[block.batch, block.head].to(dtype).unsqueeze(-1),
            ),
        )

    def add(self, state: GradientPart, rows: slice, cols: slice, tile: Tile) -> None:
        query, key, left, right, row_share = state.operands
        gradient = left[:, :, rows] @ right[:, :, cols].mT
        gradient.sub_(row_share[:, :, rows]).mul_(tile.values)
        if state.scores is not None:
            gradient.mul_(1 - state.scores.raw_tile(rows, cols).tanh_().square_())
        gradient.mul_(self.matrix.scale)
        state.query.of(rows).add_(gradient @ key[:, :, cols])
        state.key[:, :, cols] += gradient.mT @ query[:, :, rows]

    def gather(
        self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[GradientPart]
    ) -> tuple[Tensor, Tensor]:
        dim = self.matrix.query.shape[3]
        query = merge_rows(operator, blocks, [state.query.values for state in states], (dim,))
        key = sum_over_blocks(operator, blocks, [state.key for state in states])
        groups = operator.shape[1] // self.matrix.key.shape[1]
        return query, key.unflatten(1, (-1, groups)).sum(2)
