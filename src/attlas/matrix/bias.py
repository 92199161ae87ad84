"""What is added to the scores: a tensor of the caller's, or a formula over positions that needs no n × n memory.

A formula is called as ``bias(batch, head, query, key)`` with broadcastable integer index tensors, where `query` is the
row's position (so with fewer queries than keys the first row's position is ``n_key - n_query``), and returns the
numbers to add.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ALiBi:
    """Attention with linear biases: a head-wise slope times the distance to the key.

    Parameters
    ----------
    slopes : Tensor, (head,)
        One positive slope a head; `ALiBi.for_heads` gives the published ones.

    References
    ----------
    Press, Smith, Lewis (2022), "Train short, test long", arXiv 2108.12409.
    """

    slopes: Tensor

    @staticmethod
    def for_heads(heads: int) -> ALiBi:
        """Return the paper's slopes: a geometric sequence, filled in where `heads` is no power of two."""
        whole = 2 ** math.floor(math.log2(heads))
        slopes = [2.0 ** (-8.0 * (i + 1) / whole) for i in range(whole)]
        slopes += [2.0 ** (-4.0 * (2 * i + 1) / whole) for i in range(heads - whole)]
        return ALiBi(torch.tensor(slopes))

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return -self.slopes.to(head.device)[head] * (query - key).abs()


@dataclass(frozen=True)
class RelativeBias:
    """A learned bias that depends on the offset ``key - query`` alone, as a table per head.

    Parameters
    ----------
    table : Tensor, (head, width)
        ``table[h, o - lowest]`` is the bias at offset ``o = key - query``; offsets beyond the table take its nearest
        end.
    lowest : int
        The offset of the table's first column.

    References
    ----------
    Raffel et al. (2020), "Exploring the limits of transfer learning with a unified text-to-text
    transformer", arXiv 1910.10683, section 2.1.
    """

    table: Tensor
    lowest: int

    @staticmethod
    def from_buckets(
        weights: Tensor, n_query: int, n_key: int, *, bidirectional: bool, max_distance: int = 128
    ) -> RelativeBias:
        """Build the table from T5's bucketed weights.

        Parameters
        ----------
        weights : Tensor, (buckets, head)
            T5's ``relative_attention_bias.weight``.
        n_query, n_key : int
            The offsets that must be covered: from ``-(n_key - 1)`` to ``n_key - 1``, or less.
        bidirectional : bool
            True in an encoder: half of the buckets serve keys after the query.
        max_distance : int
            Distances from here on share the last bucket.
        """
        reach = max(n_query, n_key)
        offsets = torch.arange(-(reach - 1), reach, device=weights.device)
        buckets = _t5_bucket(offsets, weights.shape[0], bidirectional=bidirectional, max_distance=max_distance)
        return RelativeBias(weights[buckets].T.contiguous(), -(reach - 1))

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        column = (key - query - self.lowest).clamp(0, self.table.shape[1] - 1)
        return self.table.to(head.device)[head, column]


def _t5_bucket(offsets: Tensor, buckets: int, *, bidirectional: bool, max_distance: int) -> Tensor:
    """Map offsets to T5's buckets: exact for near keys, logarithmic for far ones."""
    first = torch.zeros_like(offsets)
    if bidirectional:
        buckets //= 2
        first = (offsets > 0).long() * buckets
        distance = offsets.abs()
    else:
        distance = (-offsets).clamp(min=0)
    exact = buckets // 2
    # The clamp keeps the logarithm defined where `distance < exact`, whose result is not used.
    scaled = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + scaled.long()).clamp(max=buckets - 1)
    return first + torch.where(distance < exact, distance, far)
