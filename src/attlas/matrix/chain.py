"""The product over layers: it has rows and products, and no cheap tile.

A row of ``A_L · … · A_1`` is a vector times one matrix a layer, in memory O(n); a tile of it would need all rows of all
layers above the lowest. So a chain is multiplied, and refuses to be looked at entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.derived import checked
from attlas.matrix.operator import AttentionOperator, Progress, Reader
from attlas.matrix.visibility import Indices


class Chain(AttentionOperator):
    """The matrix product of several matrices, lazily: ``operators[-1] · … · operators[0]``.

    Parameters
    ----------
    operators : sequence of AttentionOperator
        One a layer, the lowest layer first. All have the same batch and heads; each one's keys are the rows of the one
        before it.

    Raises
    ------
    ArgumentError
        There are none, or their shapes or devices do not fit together.

    Notes
    -----
    ``chain.rows(weights)``, ``chain.received(weights)``, ``chain @ x`` and ``chain.T @ x`` cost one such product with
    every matrix, and memory for one vector a row. A tile, a picture or a statistic of entries is refused: ask one of
    the layers for it.
    """

    def __init__(self, operators: Sequence[AttentionOperator]) -> None:
        self.operators = tuple(checked(f"operators[{i}]", operator) for i, operator in enumerate(operators))
        if not self.operators:
            raise ArgumentError(complaint("operators", wanted="at least one matrix", got="none"))
        lowest = self.operators[0]
        for i, (below, above) in enumerate(pairwise(self.operators), start=1):
            if above.shape[:2] != lowest.shape[:2] or above.shape[3] != below.shape[2]:
                wanted = f"batch and head {lowest.shape[:2]}, and a key for each of the {below.shape[2]} rows below"
                raise ArgumentError(complaint(f"operators[{i}]", wanted=wanted, got=f"shape {above.shape}"))
            if above.device != lowest.device:
                raise ArgumentError(complaint(f"operators[{i}]", wanted=f"device {lowest.device}", got=above.device))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, head, n_query, _ = self.operators[-1].shape
        return batch, head, n_query, self.operators[0].shape[3]

    @property
    def dtype(self) -> torch.dtype:
        dtype = self.operators[0].dtype
        for operator in self.operators[1:]:
            dtype = torch.promote_types(dtype, operator.dtype)
        return dtype

    @property
    def device(self) -> torch.device:
        return self.operators[0].device

    @property
    def signed(self) -> bool:
        return any(operator.signed for operator in self.operators)

    @property
    def T(self) -> Chain:  # noqa: N802 - the name that NumPy and PyTorch users expect
        """The transpose: the product of the transposes, in the other order."""
        return Chain([operator.T for operator in reversed(self.operators)])

    def narrow(self, batch: Indices, head: Indices) -> Chain:
        return Chain([operator.narrow(batch, head) for operator in self.operators])

    def prepare(self) -> None:
        self._refuse()

    def reader(self) -> Reader:
        return self._refuse()

    def _refuse(self) -> NoReturn:
        raise ArgumentError(
            complaint(
                "a product over layers",
                wanted="a question about whole rows or products",
                got="one about entries, each of which would cost the whole product",
                way_out="use chain.rows(weights), chain @ x or chain.T @ x, or ask one of chain.operators",
            )
        )

    def __matmul__(self, x: Tensor) -> Tensor:
        """Apply the product to `x`, lowest layer first; see `AttentionOperator.__matmul__`."""
        for operator in self.operators:
            x = operator @ x
        return x

    def rows(self, weights: Tensor, *, progress: Progress | None = None) -> Tensor:
        """Return weighted sums of the product's rows: ``weights · A_L · … · A_1``.

        Parameters
        ----------
        weights : Tensor, (..., n_query) or (..., rows, n_query)
            What each query counts for, one sum or several. Leading axes (batch, head) may be missing or of size 1; with
            one axis or with three, one sum is meant, and with two or four, as many as there are rows.
        progress : callable, optional
            Called as ``progress(done, total)`` after each layer.

        Returns
        -------
        Tensor, (batch, head, n_key) or (batch, head, rows, n_key)
            In the dtype of `weights`.
        """
        if not isinstance(weights, Tensor) or not 1 <= weights.ndim <= 4 or weights.shape[-1] != self.shape[2]:
            got = f"shape {tuple(weights.shape)}" if isinstance(weights, Tensor) else type(weights).__name__
            wanted = (
                f"(batch, head, {self.shape[2]}) or (batch, head, rows, {self.shape[2]}), or without batch and head"
            )
            raise ArgumentError(complaint("weights", wanted=wanted, got=got))
        one = weights.ndim in (1, 3)
        x = (weights.unsqueeze(-2) if one else weights).mT
        for done, operator in enumerate(reversed(self.operators), start=1):
            x = operator.T @ x
            if progress is not None:
                progress(done, len(self.operators))
        return x.squeeze(-1) if one else x.mT

    def received(self, weights: Tensor | None = None, *, progress: Progress | None = None) -> Tensor:
        """Return the column sums, or the weighted ones; see `AttentionOperator.received`."""
        if weights is None:
            weights = torch.ones(self.shape[2], dtype=self.accumulator, device=self.device)
        elif weights.ndim == 2:
            weights = weights.unsqueeze(0)
        return self.rows(weights, progress=progress)
