"""The one interface of this room: a matrix of attention that gives tiles, and is otherwise asked, not held.

The exact softmax matrix, its transpose, a pattern's approximate matrix, a gradient, a mean over heads are all
`AttentionOperator`s. A kind owes four things: its shape, where its numbers live, how to narrow it to some heads, and a
`Reader` that gives dense tiles of it. Everything else (products, statistics, pooling, comparison) is a question that
streams over tiles and works on any kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from attlas.matrix.visibility import Indices

if TYPE_CHECKING:
    from attlas.matrix.rows import TopEntries
    from attlas.results import Comparison

DENSE_LIMIT = 2**26
"""Entries that `to_dense` gives without being told otherwise: 256 MiB in float32."""

Heads = int | slice | list[int] | range | Tensor
"""What picks batch elements or heads in an index."""

Part = Heads | EllipsisType
"""What an index of a tile is made of."""

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` while a question streams."""


@dataclass(frozen=True)
class Tile:
    """Some rows and columns of a matrix, dense.

    Parameters
    ----------
    values : Tensor, (batch, head, rows, cols)
        The entries. The memory is lent: the reader's next tile overwrites it. Whoever called the reader may write into
        it, so that a matrix made of others needs no memory of its own; a question shares it with others and may not.
    logs : Tensor, (batch, head, rows, cols), optional
        The entries' logarithms to base 2, where the kind has them at hand; finite, and any large negative number where
        an entry is 0.
    """

    values: Tensor
    logs: Tensor | None = None

    def log2(self) -> Tensor:
        """Return the entries' logarithms to base 2, finite even where an entry is 0."""
        if self.logs is not None:
            return self.logs
        return self.values.clamp(min=torch.finfo(self.values.dtype).tiny).log2()


class Reader(ABC):
    """Gives dense tiles of one block of heads, and holds what the tiles share."""

    @abstractmethod
    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        """Return a tile, valid until the next one is asked for; `logs` says that its logarithms will be needed too."""


class AttentionOperator(ABC):
    """A matrix of shape (batch, head, n_query, n_key) that is asked for tiles instead of being held."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, head, n_query, n_key)."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of what the matrix is made of; tiles and statistics are float32, or float64 where this is."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the numbers live."""

    @abstractmethod
    def narrow(self, batch: Indices, head: Indices) -> AttentionOperator:
        """Return the matrix of some batch elements and heads, as an operator of the same four axes."""

    @abstractmethod
    def reader(self) -> Reader:
        """Return a reader of all of this operator's heads."""

    # ---- what a kind may say of itself

    @property
    def signed(self) -> bool:
        """Whether entries may be negative; then questions about shares of a row have no meaning and are refused."""
        return False

    @property
    def heads_read(self) -> int:
        """How many dense heads are in memory while a tile of all heads is made; tiles are cut smaller for more."""
        return self.shape[1]

    def prepare(self) -> None:
        """Compute, once, whatever all tiles need."""
        return

    def columns(self, rows: slice) -> slice:
        """Return columns outside of which these rows hold only zeros."""
        del rows
        return slice(0, self.shape[3])

    def occupied(self, rows: slice, cols: slice) -> bool:
        """Tell whether a tile may hold anything but zeros; the others are not made."""
        span = self.columns(rows)
        return cols.start < span.stop and span.start < cols.stop

    # ---- derived; every kind gets these

    @property
    def offset(self) -> int:
        """The position of row 0: with fewer queries than keys, the queries are the last rows."""
        return self.shape[3] - self.shape[2]

    @property
    def accumulator(self) -> torch.dtype:
        """The dtype in which tiles and statistics are given."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def T(self) -> AttentionOperator:  # noqa: N802 - the name that NumPy and PyTorch users expect
        """The transpose over the last two axes, lazy too."""
        from attlas.matrix.transposed import Transposed

        return Transposed(self)

    def __matmul__(self, x: Tensor) -> Tensor:
        """Apply the matrix to `x`.

        Parameters
        ----------
        x : Tensor, (batch, head, n_key, width)
            Leading axes may be missing or of size 1.

        Returns
        -------
        Tensor, (batch, head, n_query, width)
            In the dtype of `x`; accumulated in float32 or better.
        """
        from attlas.matrix.products import apply

        return apply(self, x)

    @overload
    def __getitem__(self, index: Heads | tuple[Heads] | tuple[Heads, Heads]) -> AttentionOperator: ...

    @overload
    def __getitem__(self, index: tuple[Part, ...]) -> Tensor: ...

    def __getitem__(self, index: Any) -> AttentionOperator | Tensor:
        """Narrow to heads, or give a dense tile.

        ``A[b, h]`` is a narrower matrix, still of four axes; ``A[b, h, rows, cols]`` is a dense tensor, in which an
        integer drops its axis as in PyTorch. An index is an integer, a slice, a list or a 1-D tensor of integers;
        ``...`` stands for all that is not named.
        """
        from attlas.matrix.indexing import select

        return select(self, index)

    def to_dense(self, limit: int | None = DENSE_LIMIT) -> Tensor:
        """Return every entry.

        Parameters
        ----------
        limit : int, optional
            How many entries at most, None for any number; `TooDense` is raised before anything is allocated.

        Returns
        -------
        Tensor, (batch, head, n_query, n_key)
        """
        from attlas.matrix.indexing import dense

        return dense(self, limit)

    def received(self, weights: Tensor | None = None, *, progress: Progress | None = None) -> Tensor:
        """How much attention each key receives: the column sums, or with `weights` the weighted ones.

        Parameters
        ----------
        weights : Tensor, (n_query,) or broadcastable to (batch, head, n_query), optional
            What each query counts for; 1 by default.

        Returns
        -------
        Tensor, (batch, head, n_key)
        """
        from attlas.matrix.columns import Received
        from attlas.matrix.questions import ask

        return ask(self, Received(weights), progress=progress)[0]

    def entropy(self, *, progress: Progress | None = None) -> Tensor:
        """Return the entropy of each row in nats, ``-sum_j A_ij ln A_ij``; (batch, head, n_query)."""
        from attlas.matrix.questions import ask
        from attlas.matrix.rows import Entropy

        return ask(self, Entropy(), progress=progress)[0]

    def distance(self, *, progress: Progress | None = None) -> Tensor:
        """How far each query looks on average, ``sum_j A_ij |position_i - j|`` in tokens; (batch, head, n_query)."""
        from attlas.matrix.questions import ask
        from attlas.matrix.rows import Distance

        return ask(self, Distance(), progress=progress)[0]

    def topk(self, k: int, *, progress: Progress | None = None) -> TopEntries:
        """Return the `k` largest entries of each row and their keys, largest first, like ``torch.topk``.

        Returns
        -------
        TopEntries
            Named tuple of `values` and `indices`, both (batch, head, n_query, k).
        """
        from attlas.matrix.questions import ask
        from attlas.matrix.rows import TopK

        return ask(self, TopK(k), progress=progress)[0]

    def mass(self, window: int | None = None, sinks: int = 0, *, progress: Progress | None = None) -> Tensor:
        """Return the share of each row that falls on near keys, on the first keys, or on either.

        Parameters
        ----------
        window : int, optional
            Count keys with ``|position - key| < window``; none by default.
        sinks : int
            Count the first `sinks` keys too.

        Returns
        -------
        Tensor, (batch, head, n_query)

        Notes
        -----
        Only the tiles that the window and the sinks touch are computed.
        """
        from attlas.matrix.questions import ask
        from attlas.matrix.rows import Mass

        return ask(self, Mass(window, sinks), progress=progress)[0]

    def pool(self, size: tuple[int, int], reduce: str = "mean", *, progress: Progress | None = None) -> Tensor:
        """Shrink the matrix to `size`, exactly.

        Parameters
        ----------
        size : (rows, cols)
            Up to 4096 each. Row bin `i` covers the queries from ``i * n_query // rows`` up to, not including,
            ``(i + 1) * n_query // rows``; columns likewise; so every entry falls into exactly one bin.
        reduce : {"mean", "sum", "max", "extreme"}
            What a bin shows. Hidden entries count as the zeros that they are; the extreme is the entry of largest size,
            with its sign.

        Returns
        -------
        Tensor, (batch, head, rows, cols)
        """
        from attlas.matrix.pooling import Pool
        from attlas.matrix.questions import ask

        return ask(self, Pool(size, reduce), progress=progress)[0]

    def compare(self, other: AttentionOperator, *, progress: Progress | None = None) -> Comparison:
        """Measure how far another matrix of the same shape is: Frobenius norm, and each row's total variation."""
        from attlas.matrix.comparing import Compare
        from attlas.matrix.questions import ask

        return ask(self, Compare(other), progress=progress)[0]

    def __repr__(self) -> str:
        batch, head, n_query, n_key = self.shape
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{type(self).__name__}(batch={batch}, head={head}, query={n_query}, key={n_key}, {dtype}, {self.device})"
        )
