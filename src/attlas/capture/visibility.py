"""From the mask that a kernel was given to the rule behind it, proved equal: a capture need not hold n × n booleans.

A model hands its kernel a dense mask that is nearly always *causal*, *within a window* and *not padding*, in some
combination. The combination is guessed from a few rows and then proved on every entry, a block of rows at a time. What
has no such structure keeps the predicate that made the mask, if transformers' mask functions made it and the predicate
proves equal; only a mask that the caller wrote by hand is held as it is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from attlas.matrix import RelativeBias

_TILE_ENTRIES = 2**22


class Predicate(Protocol):
    """A mask as a formula over positions; row i stands at position i + n_key - n_query."""

    @property
    def extent(self) -> tuple[int, int]:
        """How many batch elements and heads it tells apart; 1 where all are alike."""
        ...

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Return True where the key may be seen, for broadcastable integer tensors."""
        ...


@dataclass(frozen=True, eq=False)
class Rule:
    """Which keys a query may see, as `AttentionMatrix` takes it.

    Parameters
    ----------
    causal : bool
        Hide keys after the query's position; with fewer queries than keys the queries are the last rows.
    window : int, optional
        Keep keys nearer than this.
    mask : Tensor or callable, optional
        Boolean, broadcastable to (batch, head, n_query, n_key); or a predicate over positions.
    """

    causal: bool = False
    window: int | None = None
    mask: Tensor | Predicate | None = None

    @property
    def structured(self) -> bool:
        """Whether position and key padding say it all."""
        return self.mask is None or self.padding is not None

    @property
    def padding(self) -> Tensor | None:
        """The mask, if it says the same to every head and row: (batch, 1, 1, n_key)."""
        whole = isinstance(self.mask, Tensor) and self.mask.shape[1] == self.mask.shape[2] == 1
        return self.mask if isinstance(self.mask, Tensor) and whole else None

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where the text of each batch element begins, padding on the left left out; empty if padding is not known."""
        if self.padding is None:
            return ()
        seen = self.padding[:, 0, 0]
        return tuple(torch.where(seen.any(-1), seen.int().argmax(-1), 0).tolist())

    @cached_property
    def padded_left(self) -> bool:
        """Whether each text, once it has begun, goes on to the last key, as texts that are read on must."""
        if self.padding is None:
            return True
        seen = self.padding[:, 0, 0]
        return bool((seen[:, -1] & (seen.int().diff(dim=-1) >= 0).all(-1)).all())

    def seen(self, rows: Tensor, n_query: int, n_key: int) -> Tensor:
        """Return what these rows (indices) see: bool, broadcastable to (batch, head, rows, n_key)."""
        device = rows.device
        position = (rows + n_key - n_query).view(1, 1, -1, 1)
        key = torch.arange(n_key, device=device).view(1, 1, 1, -1)
        seen = torch.ones(1, 1, len(rows), n_key, dtype=torch.bool, device=device)
        if self.causal:
            seen &= key <= position
        if self.window is not None:
            seen &= (position - key < self.window) & (key - position < self.window)
        if isinstance(self.mask, Tensor):
            return seen & (self.mask if self.mask.shape[2] == 1 else self.mask[:, :, rows])
        if self.mask is None:
            return seen
        batch, head = (torch.arange(size, device=device) for size in self.mask.extent)
        return seen & self.mask(batch.view(-1, 1, 1, 1), head.view(1, -1, 1, 1), position, key).to(device)

    def sees_something(self, n_query: int, n_key: int, device: torch.device) -> Tensor:
        """Return which rows see any key: bool, broadcastable to (batch, head, n_query). O(n) if it has structure."""
        if not self.structured:
            found = [self.seen(rows, n_query, n_key).any(-1) for rows in _row_indices(n_query, n_key, device)]
            return torch.cat(found[::-1], dim=-1)
        position = torch.arange(n_query, device=device) + n_key - n_query
        reach = n_key if self.window is None else self.window
        first = (position - reach + 1).clamp(min=0)
        last = position if self.causal else (position + reach - 1).clamp(max=n_key - 1)
        if self.window is None and not self.causal:
            first, last = torch.zeros_like(position), torch.full_like(position, n_key - 1)
        allowed = torch.ones(1, n_key, dtype=torch.bool, device=device)
        if self.padding is not None:
            allowed = self.padding[:, 0, 0]
        count = torch.nn.functional.pad(allowed.cumsum(-1), (1, 0))
        empty = last < first
        return ((count[:, (last + 1).clamp(min=0)] - count[:, first.clamp(max=n_key)] > 0) & ~empty).unsqueeze(1)


@dataclass(frozen=True)
class TopLeft:
    """Causal with the first query at the first key: PyTorch's `is_causal` where there are more queries than keys."""

    shift: int

    @property
    def extent(self) -> tuple[int, int]:
        """All batch elements and heads are alike."""
        return 1, 1

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query - self.shift


@dataclass(frozen=True, eq=False)
class MaskFunction:
    """The predicate that transformers built a mask from, with its own offsets and its padding.

    A mask is built for one head and serves all.
    """

    function: Callable[..., Tensor]
    padding: Tensor | None
    query_offset: int
    key_offset: int
    batch: int
    n_query: int
    n_key: int
    device: torch.device

    @property
    def extent(self) -> tuple[int, int]:
        """The batch elements that it was made for; all heads are alike."""
        return self.batch, 1

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # The function may look into tensors of its own, which live where the model does.
        batch, head, query, key = (index.to(self.device) for index in (batch, head, query, key))
        row = query - (self.n_key - self.n_query) + self.query_offset
        column = key + self.key_offset
        seen = self.function(batch, torch.zeros_like(head), row, column)
        if self.padding is not None:
            seen = seen & self.padding[batch, column]
        return seen


@dataclass
class MaskMemory:
    """What is known about mask tensors while they live: the predicate behind each, and the rule it follows."""

    _made: dict[int, tuple[weakref.ref[Tensor], MaskFunction]] = field(default_factory=dict)
    _proved: dict[tuple[int, tuple[int, ...], int | None], tuple[weakref.ref[Tensor], int, Reading]] = field(
        default_factory=dict
    )

    def remember(self, mask: Tensor, function: MaskFunction) -> None:
        """Note that `mask` was made from `function`."""
        self._made[id(mask)] = (weakref.ref(mask), function)

    def function_of(self, mask: Tensor) -> MaskFunction | None:
        """Return the predicate behind `mask`, if it is known."""
        reference, function = self._made.get(id(mask), (None, None))
        return function if reference is not None and reference() is mask else None

    def read(self, mask: Tensor, n_query: int, n_key: int, hint: int | None, trim: Callable[[int], bool]) -> Reading:
        """Return `read_mask` of this tensor, from memory where the tensor is the same and unchanged."""
        # A mask of inference mode has no version counter; nothing may change it in place outside of that mode.
        version = -1 if mask.is_inference() else mask._version
        place = (id(mask), (n_query, n_key), hint)
        known = self._proved.get(place)
        if known is not None and known[0]() is mask and known[1] == version:
            return known[2]
        reading = read_mask(mask, n_query, n_key, hint=hint, function=self.function_of(mask), trim=trim)
        self._proved[place] = (weakref.ref(mask), version, reading)
        return reading

    def forget_dead(self) -> None:
        """Drop what is known about tensors that no longer exist."""
        self._made = {place: known for place, known in self._made.items() if known[0]() is not None}
        self._proved = {place: known for place, known in self._proved.items() if known[0]() is not None}


@dataclass(frozen=True, eq=False)
class Reading:
    """What a mask tensor says.

    Parameters
    ----------
    rule : Rule
        Who sees whom.
    bias : Tensor, optional
        The numbers that the mask adds to scores, when it is more than visible or hidden.
    n_key : int
        How many keys are in use: a cache of fixed size has unwritten ones behind.
    dropped : tuple of int
        How many tokens of each batch element a cache has let go of before the first key here; empty if none, or if
        that is not known.
    aligned : bool
        Whether the queries are known to be the last rows, so that a position can be told from the other end.
    """

    rule: Rule
    bias: Tensor | None
    n_key: int
    dropped: tuple[int, ...] = ()
    aligned: bool = True


def read_mask(
    mask: Tensor,
    n_query: int,
    n_key: int,
    *,
    hint: int | None = None,
    function: MaskFunction | None = None,
    trim: Callable[[int], bool] = lambda used: False,
) -> Reading:
    """Find the rule that a mask follows.

    Parameters
    ----------
    mask : Tensor, broadcastable to (batch, head, n_query, n_key)
        Boolean (True = may be seen) or added to the scores.
    n_query, n_key : int
        The attention's height and width.
    hint : int, optional
        The window that the model says it has.
    function : MaskFunction, optional
        The predicate that made the mask, if known.
    trim : callable
        ``trim(used)`` tells whether the keys from `used` on, which no query sees, are unwritten slots of a cache.

    Notes
    -----
    Reads every entry of the mask once or twice, a block of rows at a time; allocates O(n).
    """
    mask = _narrow(mask.detach(), n_query, n_key)
    if mask.dtype != torch.bool and not _hides_only(mask):
        return Reading(Rule(), mask, n_key)
    seen_keys = _any_over_rows(mask)
    used = n_key
    if n_key > n_query and mask.shape[3] == n_key:
        visible = seen_keys.flatten(0, 2).any(0).nonzero()
        last = int(visible[-1]) + 1 if len(visible) else 0
        if max(last, n_query) < n_key and trim(max(last, n_query)):
            used = max(last, n_query)
            mask, seen_keys = mask[..., :used], seen_keys[..., :used]
            function = replace(function, n_key=used) if function is not None else None
    padding = None if bool(seen_keys.all()) else seen_keys
    if mask.shape[2] == 1:
        return Reading(Rule(mask=None if padding is None else _as_bool(mask).clone()), None, used)
    if mask.shape[1] == 1:
        for candidate in _candidates(mask, padding, n_query, used, hint):
            if _follows(mask, candidate, n_query, used):
                return Reading(candidate, None, used)
        if function is not None and _made_by(mask, function, n_query, used):
            return Reading(Rule(mask=function), None, used)
    return Reading(Rule(mask=_as_bool(mask).clone()), None, used)


def relative_table(bias: Tensor) -> RelativeBias | None:
    """Return the table behind a bias that depends on ``key - query`` alone, proved on every entry; None if it does not.

    Parameters
    ----------
    bias : Tensor, (batch or 1, head, n_query, n_key)
    """
    bias = bias.detach()
    if bias.shape[0] > 1:
        if bias.stride(0) != 0 and not all(torch.equal(bias[0], other) for other in bias[1:]):
            return None
        bias = bias[:1]
    n_query, n_key = bias.shape[2:]
    if n_key < n_query:
        return None
    # The last row holds the offsets from -(n_key - 1) to 0, the first row those after 0.
    table = torch.cat([bias[0, :, -1], bias[0, :, 0, n_key - n_query + 1 :]], dim=-1).contiguous()
    for rows in _blocks(n_query, n_key * bias.shape[1]):
        starts = range(n_query - 1 - rows.start, n_query - 1 - rows.stop, -1)
        expected = torch.stack([table[:, start : start + n_key] for start in starts], dim=1)
        if not torch.equal(expected, bias[0, :, rows]):
            return None
    return RelativeBias(table, -(n_key - 1))


def _narrow(mask: Tensor, n_query: int, n_key: int) -> Tensor:
    """Give the mask four axes, and size 1 to every axis along which it was only expanded."""
    mask = mask[(None,) * (4 - mask.dim())]
    mask = mask[..., :n_query, :n_key]
    for axis in range(3):
        if mask.shape[axis] > 1 and mask.stride(axis) == 0:
            mask = mask.narrow(axis, 0, 1)
    if mask.shape[3] == 1 and n_key > 1:
        mask = mask.expand(-1, -1, -1, n_key)
    return mask


def _blocks(n_rows: int, entries_a_row: int) -> Iterator[slice]:
    """Yield blocks of rows, the last ones first: that is where a wrong guess shows soonest."""
    height = max(1, _TILE_ENTRIES // max(1, entries_a_row))
    for stop in range(n_rows, 0, -height):
        yield slice(max(0, stop - height), stop)


def _row_indices(n_query: int, n_key: int, device: torch.device) -> Iterator[Tensor]:
    for rows in _blocks(n_query, n_key):
        yield torch.arange(rows.start, rows.stop, device=device)


def _hidden_from(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).min / 2


def _hides_only(mask: Tensor) -> bool:
    """Whether a mask of numbers only hides: 0, or so low that nothing is left."""
    low = _hidden_from(mask.dtype)
    return all(
        bool(((block == 0) | (block <= low)).all())
        for rows in _blocks(mask.shape[2], mask[:, :, :1].numel())
        for block in (mask[:, :, rows],)
    )


def _as_bool(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask > _hidden_from(mask.dtype)


def _any_over_rows(mask: Tensor) -> Tensor:
    """Return which keys some row sees: (batch, 1, 1, n_key)."""
    found = torch.zeros(mask.shape[0], 1, 1, mask.shape[3], dtype=torch.bool, device=mask.device)
    for rows in _blocks(mask.shape[2], mask[:, :, :1].numel()):
        found |= _as_bool(mask[:, :, rows]).flatten(1, 2).any(1)[:, None, None]
    return found


def _candidates(mask: Tensor, padding: Tensor | None, n_query: int, n_key: int, hint: int | None) -> Iterator[Rule]:
    """Guess rules from a few rows, likeliest first."""
    first_future = n_key - n_query + 1
    causal = n_key >= n_query and not bool(_as_bool(mask[:, :, 0, first_future:]).any())
    # A model's own number may count the query itself or not.
    guesses = [_window_of(mask, padding, n_query, n_key), *((hint, hint + 1) if hint is not None else ()), None]
    for window in dict.fromkeys(guesses):
        if window is None or window > 0:
            yield Rule(causal, window, padding)


def _window_of(mask: Tensor, padding: Tensor | None, n_query: int, n_key: int) -> int | None:
    """Guess the window from the last query of each batch element that is not padding itself."""
    guesses = []
    for element in range(mask.shape[0]):
        available = (
            torch.ones(n_key, dtype=torch.bool, device=mask.device) if padding is None else padding[element, 0, 0]
        )
        present = available.nonzero()
        position = int(present[-1]) if len(present) else n_key - 1
        row = position - (n_key - n_query)
        if row < 0:
            continue
        hidden = (available & ~_as_bool(mask[element, 0, row]))[:position].nonzero()
        if len(hidden):
            guesses.append(position - int(hidden[-1]))
    return min(guesses, default=None)


def _follows(mask: Tensor, rule: Rule, n_query: int, n_key: int) -> bool:
    """Prove that the mask is what the rule says, on every entry."""
    for rows in _blocks(n_query, mask[:, :, :1].numel()):
        actual = _as_bool(mask[:, :, rows])
        expected = rule.seen(torch.arange(rows.start, rows.stop, device=mask.device), n_query, n_key)
        if not torch.equal(*torch.broadcast_tensors(expected, actual)):
            return False
    return True


def _made_by(mask: Tensor, function: MaskFunction, n_query: int, n_key: int) -> bool:
    """Prove that the mask is what the predicate says, on every entry."""
    same_shape = (function.n_query, function.n_key) == (n_query, n_key) and mask.shape[0] in (1, function.batch)
    return same_shape and _follows(mask, Rule(mask=function), n_query, n_key)
