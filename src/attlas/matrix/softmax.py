"""The attention matrix itself: softmax(scale · Q Kᵀ + bias), held as (query, key, lse) and never as n × n numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas._showing import shown, still
from attlas.matrix import logsumexp
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.scores import Scores
from attlas.matrix.validation import check_arguments
from attlas.matrix.visibility import Formula, Indices, Visibility, take, take_heads, take_shared

if TYPE_CHECKING:
    from typing import Self


class AttentionMatrix(AttentionOperator):
    """The exact attention matrix of some heads, lazily.

    Parameters
    ----------
    query : Tensor, (batch, head, n_query, dim)
        Queries, after any position encoding. float32, float64, bfloat16 or float16.
    key : Tensor, (batch, kv_head, n_key, dim)
        Keys, likewise; `kv_head` divides `head` (grouped-query attention: consecutive heads share a key head).
    scale : float, optional
        What scores are multiplied with; ``dim ** -0.5`` by default.
    causal : bool
        Hide every key after the query. With fewer queries than keys, the queries are the last rows.
    window : int, optional
        Sliding window: ``0 <= position - key < window`` when causal, ``|position - key| < window`` otherwise.
    mask : Tensor or callable, optional
        Boolean, True = may be seen, broadcastable to (batch, head, n_query, n_key); a key padding mask is (batch, 1, 1,
        n_key). Or a predicate ``mask(batch, head, query position, key)``, called with broadcastable index tensors,
        which costs no memory.
    bias : Tensor or callable, optional
        Added to the scaled scores (after the soft cap, when there is one): a float tensor broadcastable like `mask`, or
        a formula such as `ALiBi` or `RelativeBias`. Minus infinity, or the dtype's lowest finite numbers, hide a key.
    softcap : float, optional
        Scores become ``softcap * tanh(score / softcap)`` (Gemma 2, arXiv 2408.00118, section 2).
    sinks : Tensor, (head,), optional
        A learned extra logit per head that takes part in the softmax and attends to nothing (gpt-oss), so rows sum to
        less than 1.

    Raises
    ------
    ArgumentError
        An argument's shape, dtype, device or value does not fit; `NonFiniteError` for NaN or infinity in query or key.

    Notes
    -----
    Row `i`, column `j` is ``exp(score_ij - lse_i)``. A row that sees no key is all zeros, and `valid_rows` says
    so. `A @ v` and `A.T @ x` are differentiable with respect to query, key, sinks and what is multiplied; every other
    question is answered without gradients.

    Examples
    --------
    >>> import torch, attlas
    >>> query, key = torch.randn(1, 8, 1000, 64), torch.randn(1, 2, 1000, 64)
    >>> A = attlas.AttentionMatrix(query, key, causal=True)
    >>> A.received().shape
    torch.Size([1, 8, 1000])
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        scale: float | None = None,
        causal: bool = False,
        window: int | None = None,
        mask: Tensor | Formula | None = None,
        bias: Tensor | Formula | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> None:
        mask, bias = check_arguments(query, key, scale, window, mask, bias, softcap, sinks)
        batch, head, n_query, dim = query.shape
        self.query = query
        self.key = key
        self.scale = dim**-0.5 if scale is None else float(scale)
        self.visibility = Visibility(
            n_query,
            key.shape[2],
            batches=torch.arange(batch, device=query.device),
            heads=torch.arange(head, device=query.device),
            causal=bool(causal),
            window=window,
            mask=mask,
        )
        self.bias = bias
        self.softcap = softcap
        self.sinks = sinks
        self._row_sums: logsumexp.RowSums | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, head, n_query, _ = self.query.shape
        return batch, head, n_query, self.key.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        return self.query.dtype

    @property
    def device(self) -> torch.device:
        return self.query.device

    @property
    def nbytes(self) -> int:
        """Bytes that the matrix holds: query, key, lse, and the caller's own mask and bias if there are any."""
        held = [self.query, self.key, self.sinks, self.bias if isinstance(self.bias, Tensor) else None]
        if self._row_sums is not None:
            held += [self._row_sums.top, self._row_sums.rest, self._row_sums.valid]
        return sum(t.numel() * t.element_size() for t in held if t is not None) + self.visibility.nbytes

    @property
    def lse(self) -> Tensor:
        """The natural log of each row's sum of exponentials, the sink's included; (batch, head, n_query).

        Minus infinity for a row of zeros. Computed on first use, in one streaming pass, and kept.
        """
        return self.row_sums.lse.to(self.accumulator)

    @property
    def valid_rows(self) -> Tensor:
        """Which rows see at least one key; boolean, (batch, head, n_query). The others are all zeros."""
        return self.row_sums.valid

    @property
    def row_sums(self) -> logsumexp.RowSums:
        """What is known of each row's sum, computed on first use and kept."""
        if self._row_sums is None:
            self._row_sums = logsumexp.stream(self)
        return self._row_sums

    def with_lse(self, lse: Tensor) -> Self:
        """Return the same matrix with its log-sum-exp already known, for example from the kernel that ran the model.

        Parameters
        ----------
        lse : Tensor, (batch, head, n_query)
            Natural logarithm, the sink's share included; minus infinity for rows that see nothing.

        Notes
        -----
        Where it cannot be exact enough it is not used, and the matrix computes its own on first use: where its
        magnitude is too large for float32, for a float64 matrix, and with sinks, whose share hides whether a row saw
        any key.
        """
        return self._like(row_sums=logsumexp.trusted(self, lse))

    @property
    def sums_known(self) -> bool:
        """Whether the rows' sums are known already, so that a tile costs no pass first."""
        return self._row_sums is not None

    def keep_sums(self, sums: logsumexp.RowSums) -> None:
        """Keep what another pass has found out about the rows' sums."""
        self._row_sums = sums

    def detached(self) -> Self:
        """Return the same matrix outside of any gradient."""
        return self._like(query=self.query.detach(), key=self.key.detach())

    def with_visibility(self, visibility: Visibility) -> Self:
        """Return the matrix of the same scores in which other keys may be seen; its row sums are not known yet."""
        return self._like(visibility=visibility, row_sums=None)

    def narrow(self, batch: Indices, head: Indices) -> Self:
        query = take_heads(self.query, batch, head)
        bias = self.bias
        if isinstance(bias, Tensor):
            bias = take(take(bias, 0, batch), 1, head)
        return self._like(
            query=query,
            key=take_shared(self.key, self.shape[1], batch, head),
            visibility=self.visibility.narrow(batch, head),
            bias=bias,
            sinks=None if self.sinks is None else take_heads(self.sinks.view(1, -1), slice(0, 1), head)[0],
            row_sums=None if self._row_sums is None else self._row_sums.narrow(batch, head),
        )

    def reader(self) -> Reader:
        return _SoftmaxReader(self)

    def prepare(self) -> None:
        _ = self.row_sums

    def columns(self, rows: slice) -> slice:
        return self.visibility.columns(rows)

    def occupied(self, rows: slice, cols: slice) -> bool:
        return self.visibility.occupied(rows, cols)

    def show(self, *, tokens: Sequence[str] | None = None, title: str = "", height: int = 720) -> Any:
        """Look around in it, in Jupyter or VS Code: every head as a map that can be zoomed.

        Parameters
        ----------
        tokens : sequence of str, optional
            What each key is, for the axes; with fewer queries than keys, the queries are the last of them.
        title : str
            What it is called.
        height : int
            Of the widget, in pixels.

        Returns
        -------
        AnyWidget
            A widget that the notebook displays; of a batch, it shows the first element.

        Raises
        ------
        MissingPackageError
            The package anywidget is not installed: ``pip install 'attlas[notebook]'``.
        """
        return shown(self, tokens=tokens, title=title, height=height)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: its size and rules, and some rows of some heads."""
        return still(self)

    def _like(self, **changed: object) -> Self:
        """Return this matrix with some parts changed: parts that were checked once are not checked again."""
        new = object.__new__(type(self))
        new.query = self.query
        new.key = self.key
        new.scale = self.scale
        new.visibility = self.visibility
        new.bias = self.bias
        new.softcap = self.softcap
        new.sinks = self.sinks
        new._row_sums = self._row_sums
        for name, value in changed.items():
            setattr(new, "_row_sums" if name == "row_sums" else name, value)
        return new

    def __repr__(self) -> str:
        dense = math.prod(self.shape) * self.accumulator.itemsize
        rules = [
            name for name, on in (("causal", self.visibility.causal), ("mask", self.visibility.mask is not None)) if on
        ]
        if self.visibility.window is not None:
            rules.append(f"window={self.visibility.window}")
        rules += [name for name in ("bias", "softcap", "sinks") if getattr(self, name) is not None]
        parts = [super().__repr__()[:-1], *rules, f"{_bytes(self.nbytes)} held, {_bytes(dense)} dense)"]
        return ", ".join(parts)


class _SoftmaxReader(Reader):
    def __init__(self, matrix: AttentionMatrix) -> None:
        sums = matrix.row_sums
        self._scores = Scores(matrix, torch.float64 if sums.precise else matrix.accumulator, sums.shift)
        self._dtype = matrix.accumulator
        self._values = matrix.query.new_empty(0, dtype=self._dtype)

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        log2 = self._scores.tile(rows, cols)
        if log2.dtype != self._dtype:
            return Tile(log2.exp2().to(self._dtype), log2.to(self._dtype) if logs else None)
        if not logs:
            return Tile(log2.exp2_())
        if self._values.numel() < log2.numel():
            self._values = self._values.new_empty(log2.numel())
        values = torch.exp2(log2, out=self._values[: log2.numel()].view(log2.shape))
        return Tile(values, log2)


def _bytes(count: int) -> str:
    power = min(len(str(count)) // 3, 4) if count >= 1000 else 0
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
