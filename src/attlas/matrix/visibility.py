"""Which keys a query may see, as a predicate over positions, never as n × n numbers.

Three things can hide a key from a query: its position (causal, sliding window), which needs no memory at all; a
predicate of the caller's, asked for one tile at a time; and a mask tensor of the caller's, held as it came and never
expanded. A tile that position alone leaves whole or empties is recognised without looking at any entry, which is what
makes causal and windowed matrices cheap; so is a tile in which a selection, a predicate that knows its own gaps, keeps
nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Indices = slice | Tensor
"""Rows or columns of a matrix: a contiguous slice with explicit bounds, or a 1-D tensor of indices."""

Formula = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""`(batch, head, query position, key) -> value`, called with broadcastable integer tensors, much like FlexAttention's
`mask_mod`.

A mask's formula returns booleans, True = may be seen; a bias's returns what to add to the score. The position of row
`i` is ``i + n_key - n_query``.
"""


class Selection(ABC):
    """A mask's formula that also knows where it leaves nothing, so that such tiles need not be made."""

    @abstractmethod
    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Return True where the key may be seen; see `Formula`."""

    @abstractmethod
    def occupied(self, batches: Tensor, heads: Tensor, positions: slice, keys: slice) -> bool:
        """Tell whether any query at these positions may see any of these keys, in any of these heads.

        Parameters
        ----------
        batches, heads : Tensor, (batch,) and (head,)
            As the formula is called with them.
        positions, keys : slice
            Positions of queries, and keys, with bounds.
        """


def index_tensor(indices: Indices, device: torch.device) -> Tensor:
    """Return rows or columns as a 1-D tensor of indices."""
    if isinstance(indices, Tensor):
        return indices.to(device)
    return torch.arange(indices.start, indices.stop, device=device)


def take(tensor: Tensor, axis: int, indices: Indices) -> Tensor:
    """Select along an axis; an axis of size 1 is left alone, because it broadcasts."""
    if tensor.shape[axis] == 1:
        return tensor
    if isinstance(indices, slice):
        return tensor.narrow(axis, indices.start, indices.stop - indices.start)
    return tensor.index_select(axis, indices.to(tensor.device))


def take_heads(tensor: Tensor, batch: Indices, head: Indices) -> Tensor:
    """Select batch elements and heads; a view wherever both are slices."""
    for axis, indices in ((0, batch), (1, head)):
        if isinstance(indices, slice):
            tensor = tensor.narrow(axis, indices.start, indices.stop - indices.start)
        else:
            # `index_select` would copy all of a tensor whose heads lie side by side in memory, as projections leave it.
            tensor = torch.cat([tensor.narrow(axis, index, 1) for index in indices.tolist()], axis)
    return tensor


def take_shared(tensor: Tensor, heads: int, batch: Indices, head: Indices) -> Tensor:
    """Select batch elements and heads of what `heads` heads share in groups: (batch, kv_head, ...), such as keys."""
    groups = heads // tensor.shape[1]
    if isinstance(head, slice):
        first, last = head.start // groups, (head.stop - 1) // groups
        if first == last or (head.start % groups == 0 and head.stop % groups == 0):
            return take_heads(tensor, batch, slice(first, last + 1))
        head = torch.arange(head.start, head.stop)
    each = (head // groups).tolist()
    once = list(dict.fromkeys(each))
    count, rest = divmod(len(each), len(once))
    if rest or each != [kv_head for kv_head in once for _ in range(count)]:
        # Heads picked out of their groups no longer share evenly, so each takes its own copy.
        once = each
    return take_heads(tensor, batch, torch.tensor(once))


@dataclass(frozen=True)
class Visibility:
    """Which keys each query may see.

    Parameters
    ----------
    n_query, n_key : int
        The matrix's height and width. Row `i` stands at position `i + n_key - n_query`: with fewer queries than keys,
        the queries are the last rows.
    causal : bool
        Hide every key after the query's position.
    window : int, optional
        Keep only keys nearer than this: ``0 <= position - key < window`` when causal, ``|position - key| < window``
        otherwise.
    mask : Tensor or callable, optional
        Boolean, True = may be seen; (batch, head, n_query, n_key), where any axis may be of size 1; or a predicate.
    batches, heads : Tensor, (batch,) and (head,)
        The indices that a predicate is called with; they survive narrowing.
    """

    n_query: int
    n_key: int
    batches: Tensor
    heads: Tensor
    causal: bool = False
    window: int | None = None
    mask: Tensor | Formula | None = None

    @property
    def offset(self) -> int:
        """The position of row 0."""
        return self.n_key - self.n_query

    @property
    def banded(self) -> bool:
        """Whether position alone hides anything."""
        return self.causal or self.window is not None

    @property
    def nbytes(self) -> int:
        """Bytes held by the caller's own mask; 0 for predicates."""
        return self.mask.untyped_storage().nbytes() if isinstance(self.mask, Tensor) else 0

    def narrow(self, batch: Indices, head: Indices) -> Visibility:
        """Return the visibility of some batch elements and heads."""
        mask = self.mask
        if isinstance(mask, Tensor):
            mask = take(take(mask, 0, batch), 1, head)
        return replace(self, mask=mask, batches=_select_ids(self.batches, batch), heads=_select_ids(self.heads, head))

    def columns(self, rows: slice) -> slice:
        """Return the keys outside of which no query in `rows` sees anything, judged by position alone."""
        first, last = rows.start + self.offset, rows.stop - 1 + self.offset
        start, stop = 0, self.n_key
        if self.causal:
            stop = last + 1
        elif self.window is not None:
            stop = last + self.window
        if self.window is not None:
            start = first - self.window + 1
        start = min(max(start, 0), self.n_key)
        return slice(start, min(max(stop, start), self.n_key))

    def occupied(self, rows: slice, cols: slice) -> bool:
        """Tell whether a tile may hold anything visible, as far as that is known without looking at any entry."""
        span = self.columns(rows)
        if cols.start >= span.stop or cols.stop <= span.start:
            return False
        if not isinstance(self.mask, Selection):
            return True
        positions = slice(rows.start + self.offset, rows.stop + self.offset)
        return self.mask.occupied(self.batches, self.heads, positions, cols)

    def whole(self, rows: slice, cols: slice) -> bool:
        """Tell whether position leaves every entry of the tile visible."""
        nearest = rows.start + self.offset - (cols.stop - 1)
        farthest = rows.stop - 1 + self.offset - cols.start
        if self.causal and nearest < 0:
            return False
        if self.window is None:
            return True
        return farthest < self.window and (self.causal or -nearest < self.window)

    def masked_tile(self, rows: Indices, cols: Indices) -> Tensor | None:
        """Return what the mask lets be seen of a tile, broadcastable to its four axes; None when that is all of it."""
        if self.mask is None:
            return None
        if isinstance(self.mask, Tensor):
            allowed = take(take(self.mask, 2, rows), 3, cols)
        else:
            allowed = self.evaluate(self.mask, rows, cols)
        return None if bool(allowed.all()) else allowed

    def evaluate(self, formula: Formula, rows: Indices, cols: Indices) -> Tensor:
        """Call a formula of (batch, head, query position, key) with index tensors that broadcast to the tile's axes."""
        device = self.batches.device
        return formula(
            self.batches.view(-1, 1, 1, 1),
            self.heads.view(1, -1, 1, 1),
            (index_tensor(rows, device) + self.offset).view(1, 1, -1, 1),
            index_tensor(cols, device).view(1, 1, 1, -1),
        )

    def band(self, rows: Indices, cols: Indices) -> Tensor:
        """Return what position alone lets be seen of a tile; boolean, (rows, cols)."""
        device = self.batches.device
        ahead = (index_tensor(rows, device) + self.offset).view(-1, 1) - index_tensor(cols, device).view(1, -1)
        seen = torch.ones_like(ahead, dtype=torch.bool)
        if self.causal:
            seen &= ahead >= 0
        if self.window is not None:
            seen &= ahead < self.window
            if not self.causal:
                seen &= ahead > -self.window
        return seen


def _select_ids(ids: Tensor, indices: Indices) -> Tensor:
    return ids[indices] if isinstance(indices, slice) else ids.index_select(0, indices.to(ids.device))


def looked_up(mask: Tensor, visibility: Visibility) -> Formula:
    """Return a mask tensor as a predicate of the batch elements and heads that `visibility` has, without a copy."""
    batches, heads = places(visibility.batches), places(visibility.heads)

    def look_up(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        indices = (batches[batch], heads[head], query - visibility.offset, key)
        # An axis of size 1 broadcasts.
        return mask[tuple(i if size > 1 else i * 0 for i, size in zip(indices, mask.shape, strict=True))]

    return look_up


def places(ids: Tensor) -> Tensor:
    """Return where each id stands, by id; one that stands twice stands for the same thing both times."""
    found = ids.new_zeros(int(ids.max()) + 1)
    found[ids] = torch.arange(len(ids), device=ids.device)
    return found
