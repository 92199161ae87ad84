"""Low-rank attention: a matrix that is a product of two thin ones, for heads that are not causal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Indices, take_heads
from attlas.patterns.features import shared
from attlas.patterns.given import check_value
from attlas.patterns.pattern import Pattern, Work

if TYPE_CHECKING:
    from typing import Self

METHODS = ("nystrom", "linformer")
PROJECTIONS = ("means", "random")


@dataclass(frozen=True)
class LowRank(Pattern):
    """Attention through a few landmarks or projected keys; for heads that see all keys, such as an encoder's.

    Parameters
    ----------
    rank : int
        How many landmarks, or projected keys.
    method : {"nystrom", "linformer"}
        "nystrom": ``softmax(Q K̃ᵀ) · softmax(Q̃ K̃ᵀ)⁺ · softmax(Q̃ Kᵀ)``, where landmarks Q̃ and K̃ are the means of
        `rank` segments of queries and keys. "linformer": ``softmax(Q (E K)ᵀ) · E V``, where E projects keys and values
        along the text.
    projection : {"means", "random"}
        For "linformer": the rows of E are the means of segments, or random normal numbers of variance ``1 / rank``.
    iterations : int
        For "nystrom": steps towards the pseudoinverse, as in the paper; 0 computes it by a singular value
        decomposition.
    seed : int
        For random projections.

    Notes
    -----
    Entries may be negative under "nystrom" and under random projections, and rows need not sum to 1; under means they
    are shares as before. Segments are those of the keys that may be seen: padding belongs to none. Time is O(n · rank ·
    dim).

    References
    ----------
    Xiong et al. (2021), "Nyströmformer", arXiv 2102.03902, sections 3.2 and 3.3. Wang et al. (2020), "Linformer",
    arXiv 2006.04768, section 4.
    """

    kind: ClassVar[str] = "low_rank"

    rank: int
    method: str = "nystrom"
    projection: str = "means"
    iterations: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("rank", self.rank, 1), ("iterations", self.iterations, 0), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(complaint(name, wanted=f"a whole number of at least {least}", got=value))
        for name, value, known in (("method", self.method, METHODS), ("projection", self.projection, PROJECTIONS)):
            if value not in known:
                raise ArgumentError(complaint(name, wanted=" or ".join(known), got=repr(value)))

    @property
    def signed(self) -> bool:
        """Whether entries may be negative."""
        return self.method == "nystrom" or self.projection == "random"

    def matrix(self, exact: AttentionMatrix) -> ThinProduct:
        self.check(exact)
        with torch.no_grad():
            return ThinProduct(*self._factors(exact.detached()), exact.dtype, signed=self.signed)

    def attend(self, exact: AttentionMatrix, value: Tensor) -> Tensor:
        self.check(exact)
        check_value(exact, value)
        left, right = self._factors(exact)
        return (left @ (right @ shared(value, exact.shape[1]).to(right.dtype))).to(value.dtype)

    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        del causal
        if self.method == "linformer":
            return Work(n_query * self.rank, moved=2 * n_key)
        return Work((n_query + n_key + self.rank) * self.rank, moved=n_query + n_key)

    def _check(self, exact: AttentionMatrix) -> None:
        exactly = "plan Full, SlidingWindow or Linear for these heads"
        seen = exact.visibility
        if seen.causal:
            wanted = "heads that see all keys, for a landmark is made of tokens from everywhere"
            raise ArgumentError(complaint("causal", wanted=wanted, got="causal heads", way_out=exactly))
        for name, rule in (("bias", exact.bias), ("sinks", exact.sinks), ("window", seen.window)):
            if rule is not None:
                got = rule if isinstance(rule, int) else "one"
                raise ArgumentError(complaint(name, wanted="none", got=got, way_out=exactly))
        mask = seen.mask
        if mask is not None and not (isinstance(mask, Tensor) and mask.shape[1] == mask.shape[2] == 1):
            got = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else "a formula"
            wanted = "a mask that hides keys from all heads and queries alike, (batch, 1, 1, n_key)"
            raise ArgumentError(complaint("mask", wanted=wanted, got=got, way_out=exactly))

    def settings(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "method": self.method,
            "projection": self.projection,
            "iterations": self.iterations,
            "seed": self.seed,
        }

    def _factors(self, exact: AttentionMatrix) -> tuple[Tensor, Tensor]:
        """Return the two thin factors, (batch, head, n_query, rank) and (batch, head, rank, n_key)."""
        query, key = (tensor.to(exact.accumulator) for tensor in (exact.query, exact.key))
        seen = _seen_keys(exact)
        return (
            self._landmarks(exact, query, key, seen)
            if self.method == "nystrom"
            else self._projected(exact, query, key, seen)
        )

    def _landmarks(self, exact: AttentionMatrix, query: Tensor, key: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        # Where queries and keys are the same tokens, padding is as little a part of queries.
        rows = seen if exact.shape[2] == exact.shape[3] else seen.new_ones((*seen.shape[:1], exact.shape[2]))
        query_means, there = segment_means(query, rows, self.rank)
        key_means, present = segment_means(key, seen, self.rank)
        key_means, keys = (shared(one, exact.shape[1]) for one in (key_means, key))
        left = _softmax(_scores(exact, query, key_means), present)
        middle = _softmax(_scores(exact, query_means, key_means), present) * there.mT
        right = _softmax(_scores(exact, query_means, keys), seen[:, None, None]) * there.mT
        inverse = pseudoinverse(middle, self.iterations) if self.iterations else torch.linalg.pinv(middle)
        return left @ inverse, right

    def _projected(self, exact: AttentionMatrix, query: Tensor, key: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        if self.projection == "means":
            segment, present = segments(seen, self.rank)
            means, _ = segment_means(key, seen, self.rank)
            share = torch.zeros((len(seen), self.rank + 1, seen.shape[1]), dtype=key.dtype, device=key.device)
            share.scatter_(1, segment.unsqueeze(1), 1.0)
            share = share[:, : self.rank] / share[:, : self.rank].sum(-1, keepdim=True).clamp(min=1)
            present = present[:, None, None]
        else:
            generator = torch.Generator().manual_seed(self.seed)
            normal = torch.randn(exact.shape[3], self.rank, generator=generator, dtype=torch.float64)
            share = normal.T.to(key) * self.rank**-0.5 * seen.unsqueeze(1)
            means = share.unsqueeze(1) @ key
            present = seen.any(-1).view(-1, 1, 1, 1)
        left = _softmax(_scores(exact, query, shared(means, exact.shape[1])), present)
        return left, share.unsqueeze(1).expand(-1, exact.shape[1], -1, -1)


def segments(seen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cut the tokens that count into segments that differ by at most one in length.

    Parameters
    ----------
    seen : Tensor, (batch, n)
        Which tokens count; boolean.
    count : int
        How many segments.

    Returns
    -------
    Tensor, (batch, n)
        Each token's segment; `count` for one that does not count.
    Tensor, (batch, count)
        Which segments have a token.
    """
    place = seen.cumsum(1) - 1
    segment = torch.where(seen, place * count // seen.sum(1, keepdim=True).clamp(min=1), count)
    sizes = torch.zeros((len(seen), count + 1), dtype=torch.int64, device=seen.device)
    sizes.scatter_add_(1, segment, torch.ones_like(segment))
    return segment, sizes[:, :count] > 0


def segment_means(tensor: Tensor, seen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the means of segments, (batch, head, count, dim), and which of them there are, (batch, 1, 1, count).

    `tensor` is (batch, head, n, dim), `seen` (batch, n). A segment without tokens has a mean of 0.
    """
    segment, present = segments(seen, count)
    batch, head, _, dim = tensor.shape
    index = segment[:, None, :, None].expand(tensor.shape)
    sums = tensor.new_zeros((batch, head, count + 1, dim)).scatter_add(2, index, tensor)
    sizes = tensor.new_zeros((batch, 1, count + 1, 1))
    sizes = sizes.scatter_add(
        2, segment[:, None, :, None], torch.ones_like(segment, dtype=tensor.dtype)[:, None, :, None]
    )
    return (sums / sizes.clamp(min=1))[:, :, :count], present[:, None, None]


def pseudoinverse(matrix: Tensor, iterations: int) -> Tensor:
    """Approach the pseudoinverse of square matrices whose entries are not negative.

    Notes
    -----
    ``Z ← Z (13 I − A Z (15 I − A Z (7 I − A Z))) / 4``, from ``Aᵀ / (‖A‖₁ ‖A‖_∞)``, of third order.

    References
    ----------
    Razavi et al. (2014); Xiong et al. (2021), arXiv 2102.03902, section 3.3, equation 11.
    """
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    norms = matrix.sum(-1).amax(-1) * matrix.sum(-2).amax(-1)
    inverse = matrix.mT / norms.clamp(min=torch.finfo(matrix.dtype).tiny)[..., None, None]
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
    return inverse


class ThinProduct(AttentionOperator):
    """A matrix that is the product of two thin ones.

    Parameters
    ----------
    left : Tensor, (batch, head, n_query, rank)
    right : Tensor, (batch, head, rank, n_key)
    dtype : torch.dtype
        That of what it was made of; both factors are float32, or float64 where this is.
    signed : bool
        Whether entries may be negative.
    """

    def __init__(self, left: Tensor, right: Tensor, dtype: torch.dtype, *, signed: bool) -> None:
        self.left, self.right = left, right
        self._dtype, self._signed = dtype, signed

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, head, n_query, _ = self.left.shape
        return batch, head, n_query, self.right.shape[3]

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def device(self) -> torch.device:
        return self.left.device

    @property
    def signed(self) -> bool:
        return self._signed

    def narrow(self, batch: Indices, head: Indices) -> Self:
        left, right = (take_heads(factor, batch, head) for factor in (self.left, self.right))
        return type(self)(left, right, self._dtype, signed=self._signed)

    def reader(self) -> Reader:
        return _ThinReader(self)


class _ThinReader(Reader):
    def __init__(self, of: ThinProduct) -> None:
        self._of = of

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        del logs
        return Tile(self._of.left[:, :, rows] @ self._of.right[:, :, :, cols])


def _seen_keys(exact: AttentionMatrix) -> Tensor:
    """Return which keys may be seen, (batch, n_key)."""
    batch, _, _, n_key = exact.shape
    mask = exact.visibility.mask
    if not isinstance(mask, Tensor):
        return torch.ones((batch, n_key), dtype=torch.bool, device=exact.device)
    return mask[:, 0, 0].expand(batch, n_key)


def _scores(exact: AttentionMatrix, query: Tensor, key: Tensor) -> Tensor:
    scores = query @ key.mT * exact.scale
    return scores if not exact.softcap else exact.softcap * (scores / exact.softcap).tanh()


def _softmax(scores: Tensor, seen: Tensor) -> Tensor:
    """Return the softmax over what is seen, zeros where nothing is."""
    scores = scores.masked_fill(~seen, -torch.inf)
    top = scores.detach().amax(-1, keepdim=True)
    weights = (scores - torch.where(top.isfinite(), top, 0.0)).exp()
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)
