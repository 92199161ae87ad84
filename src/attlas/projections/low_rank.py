"""`LowRank`: a matrix that is held as the product of two thin factors, and never multiplied out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, TooDense, complaint
from attlas.matrix.indexing import IndexOutOfRange
from attlas.matrix.operator import DENSE_LIMIT
from attlas.projections import factors
from attlas.projections.factors import Factors
from attlas.projections.subspaces import Subspaces, compare_subspaces

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class LowRankComparison:
    """How far a factored matrix is from another of the same shape; all float64.

    Parameters
    ----------
    relative : Tensor, (…)
        ``‖A − B‖ / ‖A‖``, Frobenius; 0 where both are zero, infinite where only A is.
    cosine : Tensor, (…)
        ``⟨A, B⟩ / (‖A‖ ‖B‖)``; 0 where one of them is zero.
    columns, rows : Subspaces
        How the spaces that the columns span lie to each other, and those of the rows.
    """

    relative: Tensor
    cosine: Tensor
    columns: Subspaces
    rows: Subspaces


@dataclass(frozen=True, eq=False, repr=False)
class LowRank:
    """The matrix ``left @ right``, or a stack of them, kept as its two factors.

    Sums stack the factors side by side, products multiply only what lies between them, so a head's query-key form, its
    change by an adapter, and the product of two heads all stay as thin as they are. What is found out about the matrix
    (norms, singular values, eigenvalues …) is computed in float64 from a QR of each factor and is returned in float64,
    without gradients; arithmetic keeps the factors' dtype and their gradients.

    Parameters
    ----------
    left : Tensor, (…, rows, width)
        float32, float64, bfloat16 or float16. Not copied.
    right : Tensor, (…, width, cols)
        Of the same dtype, on the same device. Its leading axes broadcast with those of `left`: query heads that share a
        key head need not have copies of it.

    Raises
    ------
    ArgumentError
        The factors do not fit together.

    Examples
    --------
    >>> import torch
    >>> from attlas import LowRank
    >>> product = LowRank(torch.ones(100, 2), torch.ones(2, 100))
    >>> product.shape, product.width, float(product.norm())
    ((100, 100), 2, 200.0)
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        for name, factor in (("left", self.left), ("right", self.right)):
            if not isinstance(factor, Tensor):
                raise ArgumentError(complaint(name, wanted="a torch.Tensor", got=type(factor).__name__))
            if factor.dtype not in _FLOATS:
                raise ArgumentError(complaint(name, wanted="float32, float64, bfloat16 or float16", got=factor.dtype))
            if factor.ndim < 2 or 0 in factor.shape:
                wanted = "at least two axes, each with at least one element"
                raise ArgumentError(complaint(name, wanted=wanted, got=f"shape {tuple(factor.shape)}"))
        width = self.left.shape[-1]
        if self.right.shape[-2] != width:
            wanted = f"{width} rows, as many as `left` has columns"
            raise ArgumentError(complaint("right", wanted=wanted, got=f"shape {tuple(self.right.shape)}"))
        _check_alike("right", self.left, self.right)
        _broadcast("right", self.left.shape[:-2], self.right.shape[:-2])

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the product: (…, rows, cols)."""
        batch = torch.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2])
        return (*batch, self.left.shape[-2], self.right.shape[-1])

    @property
    def width(self) -> int:
        """The number of columns of `left`, which the rank cannot exceed."""
        return self.left.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """The factors' dtype."""
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        """The factors' device."""
        return self.left.device

    @property
    def nbytes(self) -> int:
        """The bytes of both factors."""
        return self.left.nbytes + self.right.nbytes

    def __repr__(self) -> str:
        return f"LowRank(shape={self.shape}, width={self.width}, dtype={self.dtype}, device={str(self.device)!r})"

    def __getitem__(self, index: Any) -> LowRank:
        """Return the matrices of a stack that the index names: integers, slices, lists, on the leading axes only."""
        batch = self.shape[:-2]
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) > len(batch):
            wanted = f"at most {len(batch)} parts, one for each leading axis"
            raise ArgumentError(complaint("index", wanted=wanted, got=len(parts), way_out="see to_dense() for entries"))
        for part, length in zip(parts, batch, strict=False):
            if part is None or part is Ellipsis or isinstance(part, bool):
                raise ArgumentError(complaint("index", wanted="integers, slices or lists of integers", got=part))
            if isinstance(part, int) and not -length <= part < length:
                raise IndexOutOfRange(complaint("index", wanted=f"{-length} to {length - 1}", got=part))
        left = self.left.expand(*batch, *self.left.shape[-2:])[parts]
        return LowRank(left, self.right.expand(*batch, *self.right.shape[-2:])[parts])

    def to(self, *args: Any, **kwargs: Any) -> LowRank:
        """Return the same with both factors converted, as by ``Tensor.to``."""
        return LowRank(self.left.to(*args, **kwargs), self.right.to(*args, **kwargs))

    def to_dense(self, limit: int | None = DENSE_LIMIT) -> Tensor:
        """Return the product itself, (…, rows, cols), in the factors' dtype.

        Parameters
        ----------
        limit : int, optional
            The most entries it may have; None for no limit.

        Raises
        ------
        TooDense
            It would have more.
        """
        _refuse_large(self.shape, limit, f"pass limit={math.prod(self.shape)} if you have the memory")
        return self.left @ self.right

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    @property
    def T(self) -> LowRank:  # noqa: N802 - the name that NumPy and PyTorch users expect
        """The transposed matrix, made of views."""
        return LowRank(self.right.mT, self.left.mT)

    def __neg__(self) -> LowRank:
        return LowRank(-self.left, self.right)

    def __add__(self, other: LowRank) -> LowRank:
        if not isinstance(other, LowRank):
            return NotImplemented
        self._check_same(other)
        total = LowRank(*_side_by_side(self, other))
        rows, cols = total.shape[-2:]
        if total.width <= min(rows, cols):
            return total
        # So wide that the product itself is smaller than its factors.
        product = (total.left.double() @ total.right.double()).to(self.dtype)
        identity = torch.eye(min(rows, cols), dtype=self.dtype, device=self.device)
        return LowRank(product, identity) if cols <= rows else LowRank(identity, product)

    def __sub__(self, other: LowRank) -> LowRank:
        if not isinstance(other, LowRank):
            return NotImplemented
        return self + -other

    def __mul__(self, scale: float | Tensor) -> LowRank:
        if isinstance(scale, Tensor):
            _broadcast("scale", self.shape[:-2], scale.shape)
            scale = scale.to(self.dtype)[..., None, None]
        elif not isinstance(scale, int | float):
            return NotImplemented
        return LowRank(self.left * scale, self.right)

    __rmul__ = __mul__

    def __truediv__(self, scale: float | Tensor) -> LowRank:
        if isinstance(scale, Tensor):
            _broadcast("scale", self.shape[:-2], scale.shape)
            scale = scale.to(self.dtype)[..., None, None]
        elif not isinstance(scale, int | float):
            return NotImplemented
        return LowRank(self.left / scale, self.right)

    def __matmul__(self, other: Any) -> Any:
        """Multiply: with another LowRank to a LowRank, with a Tensor (…, cols, k) or (cols,) to a Tensor."""
        if isinstance(other, LowRank):
            self._check_inner(other.left, other.shape)
            between = self.right @ other.left
            if self.width <= other.width:
                return LowRank(self.left, between @ other.right)
            return LowRank(self.left @ between, other.right)
        if not isinstance(other, Tensor):
            return NotImplemented
        if other.ndim == 1:
            return (self @ other[:, None])[..., 0]
        self._check_inner(other, other.shape)
        batch = torch.broadcast_shapes(self.shape[:-2], other.shape[:-2])
        _refuse_large((*batch, self.shape[-2], other.shape[-1]), DENSE_LIMIT, "use between(after=...) to stay factored")
        return self.left @ (self.right @ other)

    def __rmatmul__(self, other: Any) -> Any:
        """Multiply a Tensor (…, k, rows) or (rows,) with this matrix, to a Tensor."""
        if not isinstance(other, Tensor):
            return NotImplemented
        return self.T @ other if other.ndim == 1 else (self.T @ other.mT).mT

    def between(self, before: Tensor | None = None, after: Tensor | None = None) -> LowRank:
        """Return ``before @ self @ after``, still factored: a circuit between two large tables.

        Parameters
        ----------
        before : Tensor, (…, new rows, rows), optional
            For example an embedding.
        after : Tensor, (…, cols, new cols), optional
            For example an unembedding.
        """
        left = self.left if before is None else before @ self.left
        return LowRank(left, self.right if after is None else self.right @ after)

    def compressed(self, tolerance: float | None = None) -> LowRank:
        """Return a thinner product that differs by at most `tolerance` times the norm of each matrix.

        Parameters
        ----------
        tolerance : float, optional
            Of the Frobenius norm; by default the dtype's own rounding step. In a stack, the matrix that needs most
            decides the width.

        Notes
        -----
        The singular values are shared evenly between the two factors.
        """
        tolerance = torch.finfo(self.dtype).eps if tolerance is None else tolerance
        if not 0 <= tolerance < 1:
            raise ArgumentError(complaint("tolerance", wanted="a number from 0 to below 1", got=tolerance))
        u, s, vh = self.svd()
        width = max(1, int(factors.rank_without(s, tolerance**2).max()))
        root = s[..., :width].sqrt()
        left, right = u[..., :width] * root[..., None, :], root[..., None] * vh[..., :width, :]
        return LowRank(left.to(self.dtype), right.to(self.dtype))

    # --- what is found out about it -----------------------------------------------------------------------------------

    def norm(self) -> Tensor:
        """Return the Frobenius norm, (…), float64; O((rows + cols) · width²)."""
        product = self._factors()
        return product.unscaled(torch.linalg.matrix_norm(product.core()))

    def inner(self, other: LowRank) -> Tensor:
        """Return ``Σ Aᵢⱼ Bᵢⱼ``, (…), float64; the largest matrix made is width × width."""
        self._check_same(other)
        ours, theirs = self._factors(), other._factors()
        return theirs.unscaled(ours.unscaled(ours.inner(theirs)))

    def trace(self) -> Tensor:
        """Return the sum of the diagonal of a square matrix, (…), float64."""
        self._check_square("trace")
        product = self._factors()
        return product.unscaled((product.left * product.right.mT).sum((-2, -1)))

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (…, rows, k), S (…, k), Vh (…, k, cols) with k = min(rows, cols, width), float64."""
        product = self._factors()
        u, s, vh = product.svd()
        return u, product.unscaled(s, axes=1), vh

    def svdvals(self) -> Tensor:
        """Return the singular values that can differ from 0, largest first, (…, min(rows, cols, width)), float64."""
        product = self._factors()
        return product.unscaled(product.svdvals(), axes=1)

    def eigvals(self) -> Tensor:
        """Return the eigenvalues of a square matrix that can differ from 0, (…, min(rows, width)), complex128.

        Notes
        -----
        They are those of the small ``right @ left``, and come in no order; all others are 0.
        """
        self._check_square("eigvals")
        product = self._factors()
        values = product.eigvals()
        return torch.complex(product.unscaled(values.real, axes=1), product.unscaled(values.imag, axes=1))

    def rank(self) -> Tensor:
        """Return how many singular values stand above the rounding of float64, (…), int64.

        Notes
        -----
        Rounding is ``max(rows, cols, width) · ε · ‖left‖ ‖right‖``: where large parts of a sum cancel, what is left is
        measured by what has cancelled.
        """
        product = self._factors()
        return (product.svdvals() > product.rounding()[..., None]).sum(-1)

    def effective_rank(self) -> Tensor:
        """Return the exponential of the entropy of the normalised singular values, (…), float64; 0 for a zero matrix.

        References
        ----------
        Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
        """
        return factors.effective_rank(self.svdvals())

    def stable_rank(self) -> Tensor:
        """Return ``‖A‖² / σ₁²``, (…), float64; 0 for a zero matrix."""
        return factors.stable_rank(self.svdvals())

    def participation(self) -> Tensor:
        """Return ``(Σσ²)² / Σσ⁴``, (…), float64: how many directions share the energy; 0 for a zero matrix."""
        return factors.participation(self.svdvals())

    def rank_for(self, energy: float = 0.9) -> Tensor:
        """Return how many singular values hold a share `energy` of ``‖A‖²``, (…), int64; 0 for a zero matrix."""
        if not 0 < energy <= 1:
            raise ArgumentError(complaint("energy", wanted="a share above 0 and at most 1", got=energy))
        return factors.rank_without(self.svdvals(), 1 - energy)

    def column_space(self, k: int | None = None) -> Tensor:
        """Return an orthonormal basis of what the columns span, strongest first, (…, rows, k), float64.

        Parameters
        ----------
        k : int, optional
            How many directions; by default the largest `rank` in the stack. A matrix of smaller rank gets columns of
            zeros for the rest, so that ``basis @ basis.mT`` is the projector onto its space in any case.
        """
        product = self._factors()
        u, s, _ = product.svd()
        real = s > product.rounding()[..., None]
        width = max(1, int(real.sum(-1).max())) if k is None else k
        if not 1 <= width <= s.shape[-1]:
            raise ArgumentError(complaint("k", wanted=f"1 to {s.shape[-1]}", got=k))
        return (u * real[..., None, :])[..., :width]

    def row_space(self, k: int | None = None) -> Tensor:
        """Return an orthonormal basis of what the rows span, strongest first, (…, cols, k); see `column_space`."""
        return self.T.column_space(k)

    def compare(self, other: LowRank) -> LowRankComparison:
        """Say how far another matrix of the same shape is: its difference, its direction, and the spaces it spans."""
        self._check_same(other)
        apart = LowRank(*_side_by_side(self, -other)).norm()
        own, others = self.norm(), other.norm()
        ours, theirs = self._factors(), other._factors()
        both = torch.linalg.matrix_norm(ours.core()) * torch.linalg.matrix_norm(theirs.core())
        return LowRankComparison(
            relative=torch.where(own + others > 0, apart / own, 0.0),
            cosine=factors.ratio(ours.inner(theirs), both),
            columns=compare_subspaces(self.column_space(), other.column_space()),
            rows=compare_subspaces(self.row_space(), other.row_space()),
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _factors(self) -> Factors:
        return Factors.of(self.left, self.right)

    def _check_same(self, other: LowRank) -> None:
        if not isinstance(other, LowRank):
            raise ArgumentError(complaint("other", wanted="a LowRank", got=type(other).__name__))
        if self.shape[-2:] != other.shape[-2:]:
            wanted = f"{self.shape[-2]} × {self.shape[-1]}"
            raise ArgumentError(complaint("other", wanted=wanted, got=f"{other.shape[-2]} × {other.shape[-1]}"))
        _check_alike("other", self.left, other.left)
        _broadcast("other", self.shape[:-2], other.shape[:-2])

    def _check_inner(self, other: Tensor, shape: tuple[int, ...]) -> None:
        if shape[-2] != self.shape[-1]:
            wanted = f"{self.shape[-1]} numbers along the axis that is summed over"
            raise ArgumentError(complaint("product", wanted=wanted, got=f"{shape[-2]} in shape {tuple(shape)}"))
        _check_alike("product", self.left, other)
        _broadcast("product", self.shape[:-2], shape[:-2])

    def _check_square(self, what: str) -> None:
        if self.shape[-2] != self.shape[-1]:
            raise ArgumentError(complaint(what, wanted="a square matrix", got=f"{self.shape[-2]} × {self.shape[-1]}"))


def _side_by_side(first: LowRank, second: LowRank) -> tuple[Tensor, Tensor]:
    """Return the factors of a sum."""
    return _joined(first.left, second.left, -1), _joined(first.right, second.right, -2)


def _joined(first: Tensor, second: Tensor, axis: int) -> Tensor:
    batch = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    return torch.cat([part.expand(*batch, *part.shape[-2:]) for part in (first, second)], axis)


def _check_alike(name: str, ours: Tensor, theirs: Tensor) -> None:
    for what in ("dtype", "device"):
        wanted, got = getattr(ours, what), getattr(theirs, what)
        if wanted != got:
            way_out = "convert one of them with .to(...)"
            raise ArgumentError(complaint(name, wanted=f"the {what} {wanted} of the other", got=got, way_out=way_out))


def _broadcast(name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...]:
    for a, b in zip(reversed(ours), reversed(theirs), strict=False):
        if a != b and 1 not in (a, b):
            wanted = f"leading axes that broadcast with {tuple(ours)}"
            raise ArgumentError(complaint(name, wanted=wanted, got=tuple(theirs)))
    return torch.broadcast_shapes(ours, theirs)


def _refuse_large(shape: tuple[int, ...], limit: int | None, way_out: str) -> None:
    entries = math.prod(shape)
    if limit is not None and entries > limit:
        got = f"{entries:,} ({' × '.join(map(str, shape))})"
        raise TooDense(complaint("limit", wanted=f"at most {limit:,} dense entries", got=got, way_out=way_out))
