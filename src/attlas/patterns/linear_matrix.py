"""The lazy matrix of linear attention: entries φ(q)·φ(k) far away, exact ones near by, over the row's common sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attlas.matrix.logsumexp import LARGE
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.scores import LOG2E, Scores
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Indices, index_tensor, take_heads
from attlas.patterns.features import Features
from attlas.patterns.hybrid import Hybrid
from attlas.patterns.sums import HIDDEN, REACH, products

if TYPE_CHECKING:
    from typing import Self


class LinearMatrix(AttentionOperator):
    """What linear attention puts in an exact matrix' place.

    Parameters
    ----------
    exact : AttentionMatrix, (batch, head, n_query, n_key)
        Queries, keys and rules.
    features : Features
        For the far keys.
    window, sinks : int
        Which keys are near.

    Notes
    -----
    A row that sees no key is all zeros. The rows' sums cost one pass of O(n · features · dim), on first use; a tile
    costs a product as wide as there are features, and one as wide as the head where it has near keys.
    """

    def __init__(self, exact: AttentionMatrix, features: Features, window: int, sinks: int) -> None:
        self.exact = exact.detached()
        self._hybrid = Hybrid.of(self.exact, features, window, sinks, torch.float64)
        self._log_total: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.exact.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.exact.dtype

    @property
    def device(self) -> torch.device:
        return self.exact.device

    @property
    def features(self) -> Features:
        """The maps of the far keys."""
        return self._hybrid.features

    @property
    def log_total(self) -> Tensor:
        """The logarithm of what each row is divided by; (batch, head, n_query), float64.

        Minus infinity for a row of zeros.
        """
        if self._log_total is None:
            # What float32 leaves of a logarithm shows in its exponential.
            with torch.no_grad():
                self._log_total = self._hybrid.sums(None).log_total()
        return self._log_total

    def narrow(self, batch: Indices, head: Indices) -> Self:
        # What was checked once is not checked again.
        new = object.__new__(type(self))
        new._hybrid = self._hybrid.narrow(batch, head)
        new.exact = new._hybrid.exact
        new._log_total = None if self._log_total is None else take_heads(self._log_total, batch, head)
        return new

    def reader(self) -> Reader:
        return _LinearReader(self, self._hybrid)

    def prepare(self) -> None:
        _ = self.log_total

    def columns(self, rows: slice) -> slice:
        return self.exact.columns(rows)


class _LinearReader(Reader):
    def __init__(self, matrix: LinearMatrix, hybrid: Hybrid) -> None:
        total = matrix.log_total
        # A row of zeros is divided by so much that nothing is left of it.
        self._shift = torch.where(total.isfinite(), total, -HIDDEN)
        self._hybrid = hybrid
        self._accumulator = matrix.accumulator
        self._scores = Scores(
            matrix.exact, torch.float64 if _is_large(total) else matrix.accumulator, _halves(self._shift)
        )
        self._keys: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._strip: tuple[slice, Tensor] | None = None

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        del logs
        near, exact = self._hybrid.near, self._hybrid.exact
        position = (index_tensor(rows, exact.device) + exact.offset).unsqueeze(-1)
        key = index_tensor(cols, exact.device)
        seen, far = near.seen(position, key), near.far(position, key)
        with torch.no_grad():
            if not bool(seen.any()):
                return Tile(self._far(rows, cols, far))
            values = self._scores.tile(rows, cols).exp2_().to(self._accumulator)
            return Tile(torch.where(seen, values, self._far(rows, cols, far) if bool(far.any()) else 0.0))

    def _far(self, rows: Indices, cols: Indices, far: Tensor) -> Tensor:
        """Return the entries of far keys, 0 elsewhere."""
        query, shift = self._query(rows), self._shift[:, :, rows]
        top, factor = self._key(cols)
        left = query + (top - shift.unsqueeze(-1))
        if bool(left.amax() <= REACH[factor.dtype]):
            values = left.exp_().to(factor.dtype) @ factor.mT
        else:
            # Keys that these rows do not see would overflow it.
            values = products(query, self._hybrid.log_key(cols), shift, far).to(factor.dtype)
        return values.masked_fill_(~far, 0)

    def _query(self, rows: Indices) -> Tensor:
        if not isinstance(rows, slice):
            return self._hybrid.log_query(rows)
        # The last strip is kept, because all its tiles follow one another.
        if self._strip is None or self._strip[0] != rows:
            self._strip = rows, self._hybrid.log_query(rows)
        return self._strip[1]

    def _key(self, cols: Indices) -> tuple[Tensor, Tensor]:
        """Return each feature's largest logarithm among some keys, and the features relative to it."""
        span = (cols.start, cols.stop) if isinstance(cols, slice) else None
        if span in self._keys:
            return self._keys[span]
        logs = self._hybrid.log_key(cols)
        top = logs.amax(2, keepdim=True).clamp(min=HIDDEN)
        found = top, (logs - top).exp_().to(self._accumulator)
        if span is not None:
            # Kept, because every strip of rows needs them.
            self._keys[span] = found
        return found


def _halves(shift: Tensor) -> Tensor:
    """Return what is subtracted from scores, in base-2 units, as a float32 number and the little that it leaves."""
    base = shift * LOG2E
    first = base.float().double()
    return torch.stack([first, base - first], dim=-1)


def _is_large(total: Tensor) -> bool:
    return bool(torch.where(total.isfinite(), total, 0.0).abs().max() > LARGE)
