"""Which keys a pattern keeps, by position alone or by a head's own choice, and the exact matrix restricted to them.

A keep is a predicate over positions, as a mask's formula is, and so costs no memory. It also says where it keeps
nothing, so that a question to the restricted matrix makes only the tiles in which something is kept, and how rows fall
into chunks that need few keys each, which is how it runs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from attlas.matrix import AttentionMatrix, Selection
from attlas.matrix.visibility import Formula, looked_up

HEIGHT = 32
"""Rows of a chunk: more of them would see more keys that are masked afterwards, fewer would make products too small."""


@dataclass(frozen=True)
class Run:
    """Chunks of rows that follow one another and look alike.

    Parameters
    ----------
    rows : range
        The rows of the first chunk; those of each further chunk follow.
    keys : tuple of range
        The keys that the first chunk needs, disjoint and in order; those of further chunks lie the same way beside
        their rows.
    fixed : tuple of int
        Keys that all rows keep; those of a single chunk are not among its `keys`, those of several may be, and count
        once.
    count : int
        How many chunks; of more than one, every chunk finds all its keys inside the matrix.
    whole : bool
        The rows keep all that they may see, whatever the keep says of other rows, and replace what earlier runs gave.
    """

    rows: range
    keys: tuple[range, ...]
    fixed: tuple[int, ...] = ()
    count: int = 1
    whole: bool = False

    @property
    def shift(self) -> int:
        """How many rows further the next chunk begins."""
        return len(self.rows) * self.rows.step

    @property
    def last(self) -> int:
        """The last row of the last chunk."""
        return self.rows[-1] + (self.count - 1) * self.shift

    @property
    def width(self) -> int:
        """How many keys a chunk needs."""
        return sum(map(len, self.keys)) + len(self.fixed)

    @property
    def pairs(self) -> int:
        """How many scores count, those that are masked included."""
        return self.count * len(self.rows) * self.width

    @property
    def moved(self) -> int:
        """How many keys are copied together before they are used."""
        return sum(map(len, self.keys)) if self.count == 1 and len(self.keys) > NEIGHBOURS else 0


NEIGHBOURS = 2
"""Up to so many spans of a single chunk's keys, each is a product of its own; more are copied together first."""


class Keep(Selection):
    """Which keys the rows of a matrix keep.

    Kinds are frozen records that know the matrix's width and whether it is causal, where what they keep depends on it.
    """

    @abstractmethod
    def columns(self, positions: slice, n_key: int) -> tuple[slice, ...]:
        """Return the keys that any query at these positions keeps, as spans: disjoint, in order, and as few as can be.

        Keys that a row may not see, such as later ones under causal order, may be among them.
        """

    def complete(self, n_query: int, n_key: int) -> int:
        """Return how many first rows of a causal matrix keep all that they may see, as far as that is known."""
        del n_query, n_key
        return 0

    def first_rows(self, n_query: int, n_key: int, *, causal: bool) -> int:
        """Return how many first rows run as exact attention does: those that keep all they see, if they are many."""
        complete = min(self.complete(n_query, n_key), n_query) if causal else 0
        return complete if complete >= HEIGHT else 0

    def occupied(self, batches: Tensor, heads: Tensor, positions: slice, keys: slice) -> bool:
        del batches, heads
        spans = self.columns(positions, keys.stop)
        return any(span.start < keys.stop and keys.start < span.stop for span in spans)


class FixedKeep(Keep):
    """A keep that is the same for every batch element and head."""

    @abstractmethod
    def near(self, query: Tensor, key: Tensor) -> Tensor:
        """Return what a row keeps beside the keys that all rows keep: boolean, for broadcastable positions and keys."""

    @abstractmethod
    def runs(self, n_query: int, n_key: int) -> Iterator[Run]:
        """Cut rows into chunks, and say which keys each one needs; see `Run`."""


class HeadKeep(Keep):
    """A keep that is a fixed one for each batch element and head."""

    @abstractmethod
    def of(self, batch: int, head: int) -> FixedKeep:
        """Return what one head keeps, by its place in the matrix that the choice was made for."""


def restricted(matrix: AttentionMatrix, keep: Keep) -> AttentionMatrix:
    """Return the exact matrix in which each row sees only those of its keys that are kept, divided anew.

    Parameters
    ----------
    matrix : AttentionMatrix
        Any visibility, bias, soft cap and sinks; all of them stay.
    keep : Keep
        What is kept.

    Returns
    -------
    AttentionMatrix
        Of the same shape. Its log-sum-exp is not known yet, and costs a pass over the tiles in which something is kept.
    """
    seen = matrix.visibility
    mask = seen.mask
    if isinstance(mask, Tensor):
        mask = looked_up(mask, seen)
    return matrix.with_visibility(replace(seen, mask=keep if mask is None else _Both(keep, mask)))


@dataclass(frozen=True)
class _Both(Selection):
    """What is kept and also may be seen."""

    keep: Keep
    mask: Formula

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.keep(batch, head, query, key) & self.mask(batch, head, query, key)

    def occupied(self, batches: Tensor, heads: Tensor, positions: slice, keys: slice) -> bool:
        if not self.keep.occupied(batches, heads, positions, keys):
            return False
        return not isinstance(self.mask, Selection) or self.mask.occupied(batches, heads, positions, keys)


def merged(spans: Iterable[tuple[int, int]], n_key: int) -> tuple[slice, ...]:
    """Put spans of keys in order, cut them to the matrix, and join those that touch."""
    joined: list[slice] = []
    for start, stop in sorted(spans):
        start, stop = max(start, 0), min(stop, n_key)
        if start >= stop:
            continue
        if joined and start <= joined[-1].stop:
            joined[-1] = slice(joined[-1].start, max(stop, joined[-1].stop))
        else:
            joined.append(slice(start, stop))
    return tuple(joined)


def chunks(first: int, stop: int, height: int) -> Iterator[range]:
    """Cut rows into spans of at most `height`."""
    for start in range(first, stop, height):
        yield range(start, min(start + height, stop))
