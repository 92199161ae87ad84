"""What a fit sees of a text: some rows of its matrices, what is wrong about them, and typical queries to start from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import Reader
from attlas.matrix.softmax import AttentionMatrix
from attlas.patterns.features import learned_log_key, learned_log_query, shared
from attlas.patterns.given import check_value
from attlas.patterns.hybrid import Near
from attlas.patterns.linear import Linear
from attlas.patterns.sums import HIDDEN

ROUNDS = 8
"""Rounds of moving typical queries to the middle of those that are nearest to them."""

PER_FEATURE = 16
"""Queries for each feature to choose typical ones from."""

_LOWEST = 1e-30


@dataclass(frozen=True)
class RowErrors:
    """Rows that were held out, beside what stands in for them.

    Parameters
    ----------
    variation : Tensor, (head, rows)
        Each row's total variation, batch elements one after another.
    missed, size : Tensor, (head,), optional
        Sums of squares: of the outputs' error, and of the outputs.
    """

    variation: Tensor
    missed: Tensor | None
    size: Tensor | None


class FittedText:
    """The heads on one text.

    Parameters
    ----------
    exact : AttentionMatrix, (batch, head, n_query, n_key)
    value : Tensor, (batch, kv_head, n_key, value_dim), optional
    beside : Linear
        Whose window and sinks are exact.
    tested : int
        How many rows to hold out.
    generator : torch.Generator
        Chooses them.
    """

    def __init__(
        self, exact: AttentionMatrix, value: Tensor | None, beside: Linear, tested: int, generator: torch.Generator
    ) -> None:
        beside.check(exact)
        if value is not None:
            check_value(exact, value)
        self.exact = exact.detached()
        self.exact.prepare()
        self.near = Near(beside.window, beside.sinks, exact.visibility.causal)
        self.value = None if value is None else shared(value.detach(), exact.shape[1]).float()
        rows = self._with_far_keys()
        if len(rows) < 2 * tested:
            raise ArgumentError(
                complaint(
                    "exact",
                    wanted=f"texts with at least {2 * tested} rows that see keys outside of window and sinks",
                    got=f"{len(rows)} such rows of {exact.shape[2]}",
                    way_out="give a longer text, or hold out fewer rows with `tested`",
                )
            )
        order = torch.randperm(len(rows), generator=generator)
        self.tested = rows[order[:tested]].sort().values
        self._drawn_from = rows[order[tested:]]
        self._readers: dict[int, Reader] = {}

    def draw(self, count: int, generator: torch.Generator) -> tuple[int, Tensor]:
        """Draw a batch element and some of its rows, none of which is held out."""
        batch = int(torch.randint(self.exact.shape[0], (), generator=generator))
        picked = torch.randperm(len(self._drawn_from), generator=generator)[:count]
        return batch, self._drawn_from[picked].sort().values

    def held_out_loss(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the mean loss of the rows that are held out; (head,)."""
        return torch.stack([self.loss(query, key, batch, self.tested) for batch in range(self.exact.shape[0])]).mean(0)

    def loss(self, query: Tensor, key: Tensor, batch: int, rows: Tensor) -> Tensor:
        """Return the mean loss of some rows under maps with these weights; (head,), differentiable.

        Notes
        -----
        With N the share of a row on near keys (and on a learned sink), A its entries at far keys, and F what the map
        puts there, all relative to the row's own sum, the row that stands in for it is ``[near entries, F] / (N + Σ
        F)``. Its divergence is ``log(N + Σ F) + Σ A log(A / F)``: near keys need not be looked at.
        """
        exact = self.exact
        keys = slice(0, exact.columns(slice(int(rows[0]), int(rows[-1]) + 1)).stop)
        with torch.no_grad():
            entries, logs, far = self._far_entries(batch, rows, keys)
            lse = exact.lse[batch][:, rows].float().unsqueeze(-1)
            lse = torch.where(lse.isfinite(), lse, 0.0)
            near = (1 - entries.sum(-1, keepdim=True)).clamp(min=_LOWEST)
        log_query = learned_log_query(exact.query[batch][:, rows].float(), query)
        own_keys = exact.key[batch : batch + 1, :, keys].float()
        log_key = learned_log_key(shared(own_keys, exact.shape[1])[0], key)
        top = log_key.detach().amax(1, keepdim=True)
        left = log_query + top
        shift = left.detach().amax(-1, keepdim=True)
        products = (left - shift).exp() @ (log_key - top).exp().mT
        log_far = products.clamp(min=_LOWEST).log() + (shift - lse)
        total = torch.where(far, products, 0.0).sum(-1, keepdim=True).clamp(min=_LOWEST).log() + (shift - lse)
        log_sum = torch.logaddexp(near.log(), total)
        loss = log_sum.squeeze(-1) + (entries * (logs - log_far)).sum(-1)
        if self.value is not None:
            loss = loss + self._output_loss(batch, rows, keys, entries, log_far, log_sum, far)
        # A row that sees no far key has nothing to teach.
        counted = far.any(-1).expand(loss.shape)
        return torch.where(counted, loss, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)

    def errors(self, pattern: Linear) -> RowErrors:
        """Return how far from exact the rows are that are held out, under a pattern."""
        with torch.no_grad():
            exact, rows = self.exact[:, :, self.tested], self.tested
            stand_in = pattern.matrix(self.exact)[:, :, rows]
            variation = 0.5 * (exact - stand_in).abs().sum(-1)
            missed = size = None
            if self.value is not None:
                missed = ((stand_in - exact).float() @ self.value).square().sum((0, 2, 3))
                size = (exact.float() @ self.value).square().sum((0, 2, 3))
        return RowErrors(variation.float().transpose(0, 1).flatten(1), missed, size)

    def _far_entries(self, batch: int, rows: Tensor, keys: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return some rows' entries at far keys, their natural logarithms, and which entries those are.

        All are (head, rows, keys), the last with one head where all see the same; entries elsewhere are 0.
        """
        if batch not in self._readers:
            one = self.exact.narrow(slice(batch, batch + 1), slice(0, self.exact.shape[1]))
            self._readers[batch] = one.reader()
        tile = self._readers[batch].tile(rows, keys, logs=True)
        logs = tile.log2()[0].float()
        position = (rows.to(logs.device) + self.exact.offset).unsqueeze(-1)
        far = self.near.far(position, torch.arange(keys.start, keys.stop, device=logs.device)) & (logs > HIDDEN / 2)
        return torch.where(far, tile.values[0].float(), 0.0), torch.where(far, logs * math.log(2), 0.0), far

    def _output_loss(
        self, batch: int, rows: Tensor, keys: slice, entries: Tensor, log_far: Tensor, log_sum: Tensor, far: Tensor
    ) -> Tensor:
        """Return the squared error of rows' outputs, relative to their mean square; (head, rows)."""
        if self.value is None:
            return log_sum.squeeze(-1) * 0
        value = self.value[batch][:, keys]
        with torch.no_grad():
            output = self._readers[batch].tile(rows, keys).values[0].float() @ value
            size = output.square().sum(-1).mean(-1, keepdim=True).clamp(min=_LOWEST)
        stand_in = (log_far - log_sum).masked_fill(~far, -math.inf).exp() @ value
        near = (output - entries @ value) * (-log_sum).exp()
        return (near + stand_in - output).square().sum(-1) / size

    def _with_far_keys(self) -> Tensor:
        """Return the rows that see keys outside of window and sinks, by position."""
        _, _, n_query, n_key = self.exact.shape
        position = torch.arange(n_query) + self.exact.offset
        before = position - self.near.window >= self.near.sinks
        if self.near.causal:
            return before.nonzero().flatten()
        after = (position + self.near.window < n_key) & (n_key > self.near.sinks)
        return (before | after).nonzero().flatten()


def prototypes(exact: Sequence[AttentionMatrix], features: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return weights to start from: each feature is a typical query, and keys are scored as it would score them.

    Returns
    -------
    query, key : Tensor, (head, dim + 1, features)
        A query's weights fall off with the square of its distance to each typical one.
    """
    scale = exact[0].scale
    queries = torch.cat([matrix.query.detach().transpose(0, 1).flatten(1, 2) for matrix in exact], dim=1).float()
    few = torch.randperm(queries.shape[1], generator=generator)[: PER_FEATURE * features].to(queries.device)
    centres = _centres(queries[:, few], features, generator)
    squares = centres.square().sum(-1).unsqueeze(1)
    query = abs(scale) * torch.cat([centres.mT, -squares / 2], dim=1)
    key = scale * torch.cat([centres.mT, torch.zeros_like(squares)], dim=1)
    return query.contiguous(), key.contiguous()


def _centres(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the middles of `count` groups of points (k-means); points are (head, n, dim)."""
    first = torch.randperm(points.shape[1], generator=generator)
    # With fewer points than groups, some groups begin alike, and a little noise tells them apart.
    first = first.repeat(-(-count // len(first)))[:count].to(points.device)
    noise = torch.randn((count, points.shape[2]), generator=generator).to(points)
    centres = points[:, first] + 1e-3 * points.std() * noise if points.shape[1] < count else points[:, first]
    for _ in range(ROUNDS):
        distance = centres.square().sum(-1).unsqueeze(1) - 2 * points @ centres.mT
        nearest = distance.argmin(-1)
        sums = torch.zeros_like(centres).scatter_add_(1, nearest.unsqueeze(-1).expand(points.shape), points)
        sizes = points.new_zeros(centres.shape[:2]).scatter_add_(
            1, nearest, torch.ones_like(nearest, dtype=points.dtype)
        )
        centres = torch.where(sizes.unsqueeze(-1) > 0, sums / sizes.clamp(min=1).unsqueeze(-1), centres)
    return centres
