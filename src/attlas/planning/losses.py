"""What a cheaper pattern loses of one layer's attention, head by head, against the exact matrix.

Let a pattern keep the keys S of a row and renormalise, and let m be the share of the exact row that falls on the
others. Then m = 1 − exp(lse_S − lse), which takes one more log-sum-exp and no matrix; it is also the row's total
variation distance; and the row's output moves by o − ô = m · (mean of the dropped values − ô), so that

    ‖o − ô‖ ≤ m · (diameter of the values),

a bound that needs no assumption (with a learned sink, or a row of which nothing is kept, 0 counts as a value too: that
is what the sink, or the empty row, gives).

What that does to the loss L, the mean of N next-token losses, follows from the slopes g_i = ∂L/∂o_i of one backward
pass. To first order L changes by Σ_i ⟨g_i, Δo_i⟩, where errors may cancel by luck, and at a trained model's optimum
do so in the mean. To second order it changes by ½ Δᵀ H Δ. Near such an optimum H is about the Fisher information,
H ≈ (1/N) Σ_t E[∇L_t ∇L_tᵀ] (Martens 2020, arXiv 1412.1193). Gradients of the losses L_t of different tokens are
uncorrelated if the text is drawn from the model, because each has mean 0 given all tokens before; so with
g = (1/N) Σ_t ∇L_t it is E[g gᵀ] = H / N, hence H ≈ N g gᵀ in the mean, and its part within single rows gives

    ½ Δᵀ H Δ ≈ ½ N Σ_i ⟨g_i, Δo_i⟩²,

which cannot be negative and cancels nothing between rows. It leaves out what rows do together, so it orders patterns
and does not replace running them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attlas.capture.attended import Attended
from attlas.errors import NonFiniteError
from attlas.matrix import AttentionMatrix
from attlas.matrix.logsumexp import attend
from attlas.patterns import Pattern
from attlas.patterns.keep_set import KeepSet
from attlas.planning.guarding import narrows, variations

SAMPLED_ROWS = 128
"""Rows in which total variation is measured where no closed form gives it."""


@dataclass(frozen=True)
class Measure:
    """One number of a head under a pattern.

    Parameters
    ----------
    name : str
        Its column's name.
    unit : str
        "share" (0 to 1), "nats", or "" (a plain number).
    meaning : str
        One sentence.
    """

    name: str
    unit: str
    meaning: str


MEASURES = (
    Measure("dropped_mean", "share", "The mean over rows of the attention that falls on keys that are not kept."),
    Measure("dropped_p95", "share", "The 95th percentile over rows of the same."),
    Measure("dropped_worst", "share", "The worst row of the same."),
    Measure("bound", "", "What no row's output can be off by more than: its dropped share times the values' diameter."),
    Measure("variation_mean", "share", "The mean over rows of the total variation distance to the exact row."),
    Measure("variation_p95", "share", "The 95th percentile over rows of the same."),
    Measure("variation_worst", "share", "The worst row of the same."),
    Measure("error", "", "How far the head's output is off: ‖o − ô‖ / ‖o‖ over all rows."),
    Measure("first", "nats", "What the loss changes by to first order, with its sign."),
    Measure("second", "nats", "What the loss rises by to second order, rows one by one: never negative."),
)
NAMES = tuple(measure.name for measure in MEASURES)


@dataclass(frozen=True, eq=False)
class Exact:
    """One text's attention call, as patterns are measured against it.

    Parameters
    ----------
    matrix : AttentionMatrix, (1, head, n_query, n_key)
        Who attended to whom.
    value : Tensor, (1, kv_head, n_key, value_dim)
        What was passed on.
    output : Tensor, (1, head, n_query, value_dim)
        What the heads gave.
    slope : Tensor, (1, head, n_query, value_dim)
        The loss's gradient with respect to it.
    terms : int
        Of how many tokens' losses the loss is the mean; 1 for a loss that is no mean.
    rows : Tensor, (rows,), int64
        In which rows total variation is measured where it has no closed form.
    """

    matrix: AttentionMatrix
    value: Tensor
    output: Tensor
    slope: Tensor
    terms: int
    rows: Tensor

    @classmethod
    def of(cls, attended: Attended, terms: int, seed: int = 0) -> Exact:
        """Take what a descent met.

        Raises
        ------
        NonFiniteError
            The gradient is not finite.
        """
        matrix, slope = attended.matrix.detached(), attended.gradients[0].output
        if attended.value is None or attended.output is None:
            raise RuntimeError("a descent keeps values and outputs")
        if not bool(slope.isfinite().all()):
            raise NonFiniteError(f"{attended.name}: the gradient of its heads' outputs is not finite")
        rows = torch.randperm(matrix.shape[2], generator=torch.Generator().manual_seed(seed))[:SAMPLED_ROWS]
        value, output = attended.value.detach(), attended.output.detach()
        return cls(matrix, value, output, slope, terms, rows.sort().values.to(matrix.device))

    @property
    def heads(self) -> int:
        """How many heads."""
        return self.matrix.shape[1]

    # What all patterns are measured with is made once.

    @cached_property
    def relative(self) -> AttentionMatrix | None:
        """The same heads with scores from which each row's log-sum-exp is taken, and a sink of weight 1; see `kept_by`.

        None where that is not exact: a soft cap would bend what is taken away, another sink could change which keys are
        chosen, and large scores need the streaming sums' precision.
        """
        matrix = self.matrix
        if matrix.softcap or matrix.sinks is not None or not matrix.scale or matrix.row_sums.precise:
            return None
        query, key = matrix.query.to(matrix.accumulator), matrix.key.to(matrix.accumulator)
        away = torch.where(matrix.lse.isfinite(), -matrix.lse / matrix.scale, 0.0)
        return AttentionMatrix(
            torch.cat([query, away.unsqueeze(-1)], -1),
            _with_ones(key),
            matrix.scale,
            bias=matrix.bias,
            sinks=query.new_zeros(self.heads),
        ).with_visibility(matrix.visibility)

    @cached_property
    def value_and_ones(self) -> Tensor:
        """The values, and a 1 beside each."""
        return _with_ones(self.value.to(self.matrix.accumulator))

    @cached_property
    def size(self) -> Tensor:
        """The norm of each head's output; (head,), float64."""
        return _norm(self.output.to(self.matrix.accumulator))

    @cached_property
    def diameter(self) -> Tensor:
        """A bound of the diameter of each head's values, (head,)."""
        return diameter(self.value, self.heads)

    @cached_property
    def diameter_with_origin(self) -> Tensor:
        """The same where 0 counts as a value."""
        return diameter(self.value, self.heads, origin=True)


@torch.no_grad()
def losses(exact: Exact, pattern: Pattern) -> Mapping[str, Tensor]:
    """Measure what a pattern loses of every head.

    Parameters
    ----------
    exact : Exact
        The exact call.
    pattern : Pattern
        What would stand in for it; its `check` has passed.

    Returns
    -------
    mapping
        Name of a measure -> Tensor, (head,), float64, on the CPU. What a pattern drops is NaN where it does not keep a
        set of keys.

    Notes
    -----
    One run of the pattern, and O((n_query + n_key) · dim) memory.
    """
    if isinstance(pattern, KeepSet):
        dropped, output = kept_by(exact, pattern)
        return _of_kept(exact, dropped, output)
    instead = pattern.matrix(exact.matrix)
    if narrows(instead, exact.matrix):
        return _of_kept(exact, *streamed(exact, instead))
    none = torch.full((exact.heads,), torch.nan, dtype=torch.float64)
    found = dict.fromkeys(("dropped_mean", "dropped_p95", "dropped_worst", "bound"), none)
    variation = variations(exact.matrix, instead, exact.rows)
    found |= {f"variation_{name}": value for name, value in _over_rows(variation).items()}
    return found | on_the_loss(exact, pattern.attend(exact.matrix, exact.value))


def _of_kept(exact: Exact, dropped: Tensor, output: Tensor) -> dict[str, Tensor]:
    """Return all measures of a pattern that keeps a set of keys, from what it drops of each row and what it gives."""
    reach = exact.diameter_with_origin if _gives_nothing(exact.matrix, dropped) else exact.diameter
    over = _over_rows(dropped)
    found = {f"{what}_{name}": value for what in ("dropped", "variation") for name, value in over.items()}
    return found | {"bound": over["worst"] * reach} | on_the_loss(exact, output)


def kept_by(exact: Exact, pattern: KeepSet) -> tuple[Tensor, Tensor]:
    """Return what a pattern drops of every row, and what it gives, from one run of it.

    Parameters
    ----------
    exact : Exact
        The exact call.
    pattern : KeepSet
        A pattern that keeps a set of keys.

    Returns
    -------
    dropped : Tensor, (1, head, n_query), float64
    output : Tensor, (1, head, n_query, value_dim)

    Notes
    -----
    The pattern runs on scores from which each row's log-sum-exp is taken, so that exponentials are shares of the exact
    row, and with a sink of weight 1 beside them. Of values that are all 1 it then gives c = kept / (kept + 1), and of
    the others what they give, times c. Taking a number from all of a row's scores changes no choice of keys.
    """
    if exact.relative is None:
        return streamed(exact, pattern.matrix(exact.matrix))
    given = pattern.attend(exact.relative, exact.value_and_ones)
    share = given[..., -1:]
    mean = torch.where(share > 0, given[..., :-1] / share.clamp(min=torch.finfo(share.dtype).tiny), 0.0)
    kept = share[..., 0].double() / (1 - share[..., 0].double())
    # A row that sees nothing has nothing to lose.
    return torch.where(exact.matrix.lse.isfinite(), 1 - kept, 0.0).clamp(0.0, 1.0), mean


def streamed(exact: Exact, instead: AttentionMatrix) -> tuple[Tensor, Tensor]:
    """Return the same from the restricted matrix, in one streaming pass: slower, and exact for any scores."""
    sums, output = attend(instead, _per_head(exact.value, exact.heads).to(instead.accumulator))
    if output is None:
        raise RuntimeError("values were given, so there is an output")
    return dropped_mass(exact.matrix.lse, sums.lse), output


def on_the_loss(exact: Exact, output: Tensor) -> dict[str, Tensor]:
    """Return how far other outputs are off, and what the loss makes of it, to first and second order; (head,) each."""
    # Short sums run in the heads' own precision, long ones in float64.
    dtype = exact.matrix.accumulator
    change = output.to(dtype) - exact.output.to(dtype)
    along = (exact.slope.to(dtype) * change).sum(-1).double()
    off = _norm(change)
    error = torch.where(off > 0, off / exact.size.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    first, second = along.sum((0, 2)), 0.5 * exact.terms * along.square().sum((0, 2))
    return {"error": error.cpu(), "first": first.cpu(), "second": second.cpu()}


def dropped_mass(whole: Tensor, kept: Tensor) -> Tensor:
    """Return the share of each row that is not kept, from the log-sum-exps of the whole row and of what is kept.

    Parameters
    ----------
    whole, kept : Tensor, (batch, head, n_query)
        Minus infinity for a row without any key; a whole row without any drops nothing.

    Returns
    -------
    Tensor, (batch, head, n_query), float64
        From 0 to 1; rounding below 0 is 0.
    """
    whole, kept = whole.double(), kept.double()
    share = -torch.expm1(torch.where(whole.isfinite(), kept - whole, 0.0))
    return share.clamp(0.0, 1.0)


def diameter(value: Tensor, heads: int, *, origin: bool = False) -> Tensor:
    """Return an upper bound of the distance between any two of a head's values; (head,), float64, on the CPU.

    Parameters
    ----------
    value : Tensor, (1, kv_head, n_key, value_dim)
    heads : int
        How many heads share them.
    origin : bool
        Whether 0 counts as a value.

    Notes
    -----
    Twice the largest distance from the mean, which is O(n) instead of O(n²), and at most twice the diameter itself.
    """
    points = value[0].double()
    centre = points.mean(1, keepdim=True)
    farthest = (points - centre).norm(dim=-1).amax(-1)
    if origin:
        farthest = torch.maximum(farthest, centre.norm(dim=-1)[:, 0])
    return 2 * farthest.repeat_interleave(heads // len(farthest)).cpu()


def _gives_nothing(matrix: AttentionMatrix, dropped: Tensor) -> bool:
    """Tell whether some of a row's weight may fall on nothing at all."""
    return matrix.sinks is not None or bool((dropped == 1).any())


def _over_rows(track: Tensor) -> dict[str, Tensor]:
    rows = track[0].double().cpu()
    return {"mean": rows.mean(-1), "p95": rows.quantile(0.95, dim=-1), "worst": rows.amax(-1)}


def _norm(tensor: Tensor) -> Tensor:
    """Return the norm of all rows of each head; (head,), float64."""
    return tensor.square().sum(-1).double().sum((0, 2)).sqrt()


def _with_ones(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, torch.ones_like(tensor[..., :1])], -1)


def _per_head(value: Tensor, heads: int) -> Tensor:
    return value.repeat_interleave(heads // value.shape[1], dim=1)
