"""Which distance a head prefers: its query-key kernel by relative offset, beside the attention that it really pays.

Rotary encoding turns a query and a key by their positions, so the score of an average query and an average key depends
on nothing but how far apart they stand. That function of the offset is the head's kernel. It is read off the weights
and one run of a text: queries and keys of the run are turned back, averaged, and turned against one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas._agreement import pearson, spearman
from attlas._tables import finite
from attlas.capture import Capture
from attlas.errors import ArgumentError, CaptureError, complaint
from attlas.matrix import AttentionMatrix, AttentionOperator, Question, Tile, ask
from attlas.matrix.even import even_spread
from attlas.matrix.streaming import Block
from attlas.models.progress import Progress
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.projections.rotation import Rotation
    from attlas.projections.views import LayerProjections
    from attlas.projections.whole import Projections

CHUNK = 4096
"""Positions that are turned back at once."""

NO_ROTATION = "its queries and keys are not turned by their positions, so content alone decides and no offset differs"
TWO_TEXTS = "its queries and keys belong to different texts, so they have no offset"


@dataclass(frozen=True, eq=False)
class LayerKernel:
    """The kernels of one layer's heads.

    Parameters
    ----------
    layer : int
        The layer's number.
    name : str
        Its attention module.
    heads : tuple of int
        The heads' numbers.
    visible : Tensor, (offset,), bool
        Which offsets the layer's mask shows by position.
    scores : Tensor, (head, offset), float64, optional
        ``q̄ R(Δ) k̄ · scale``: the score of the mean query and the mean key, Δ apart; minus infinity where hidden. None
        where the layer has no rotary encoding.
    shares : Tensor, (head, offset), float64, optional
        Their softmax over the offsets. None likewise.
    measured : Tensor, (head, offset), float64, optional
        The attention that queries really pay to the key at this offset, averaged over those that have one; NaN for an
        offset that does not occur. None for cross-attention.
    even : Tensor, (offset,), float64, optional
        What an even spread over the visible keys would measure there.
    reason : str
        Why there is no kernel; empty where there is one.
    """

    layer: int
    name: str
    heads: tuple[int, ...]
    visible: Tensor
    scores: Tensor | None
    shares: Tensor | None
    measured: Tensor | None
    even: Tensor | None
    reason: str = ""

    @property
    def chance(self) -> float:
        """The share of each visible offset if the kernel were flat."""
        return 1 / max(int(self.visible.sum()), 1)


@dataclass(frozen=True)
class Agreement:
    """How well the kernels' shares at one offset tell the measured attention there, over all heads that have a kernel.

    Parameters
    ----------
    offset : int
        The offset.
    pearson, spearman : float
        Correlation of the values, and of their ranks; NaN where one side is constant.
    heads : int
        How many heads.
    deviation : float
        Standard deviation of either for heads that are paired at random, ``1/√(heads − 1)``; their mean is 0.
    """

    offset: int
    pearson: float
    spearman: float
    heads: int
    deviation: float


@dataclass(frozen=True, eq=False)
class OffsetKernel:
    """The query-key kernel of every head by relative offset.

    Parameters
    ----------
    layers : tuple of LayerKernel
        In the order of the layers.
    offsets : tuple of int
        Position of the query minus that of the key.
    tokens : int
        How many tokens the means were taken over.
    provenance : Provenance
        How it was made.
    """

    layers: tuple[LayerKernel, ...]
    offsets: tuple[int, ...]
    tokens: int
    provenance: Provenance

    def __len__(self) -> int:
        return sum(len(layer.heads) for layer in self.layers)

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a head: its preferred offset, the kernel's share there, and the measured attention."""
        return [row for layer in self.layers for row in _rows(layer, self.offsets)]

    def agreement(self, offset: int = 1) -> Agreement:
        """Correlate the kernels' shares at an offset with the measured attention there, over heads.

        Raises
        ------
        ArgumentError
            The offset was not asked for, or fewer than three heads have a kernel that sees it.
        """
        if offset not in self.offsets:
            raise ArgumentError(complaint("offset", wanted=f"one of {_listed(self.offsets)}", got=repr(offset)))
        at = self.offsets.index(offset)
        shares, measured = [], []
        for layer in self.layers:
            if layer.shares is not None and layer.measured is not None and bool(layer.visible[at]):
                shares.append(layer.shares[:, at])
                measured.append(layer.measured[:, at])
        kernel = torch.cat([torch.empty(0, dtype=torch.float64), *shares])
        attention = torch.cat([torch.empty(0, dtype=torch.float64), *measured])
        known = attention.isfinite()
        kernel, attention = kernel[known], attention[known]
        if len(kernel) < 3:
            wanted = "an offset at which at least three heads have a kernel and a measurement"
            raise ArgumentError(complaint("offset", wanted=wanted, got=f"{offset}, where {len(kernel)} have"))
        return Agreement(
            offset,
            pearson=pearson(kernel, attention),
            spearman=spearman(kernel, attention),
            heads=len(kernel),
            deviation=(len(kernel) - 1) ** -0.5,
        )


def offset_kernel(
    projections: Projections,
    source: Capture | str,
    offsets: Iterable[int] = range(64),
    *,
    progress: Progress | None = None,
) -> OffsetKernel:
    """Compute which relative offset each head prefers, and measure what it attends to.

    Parameters
    ----------
    projections : Projections
        What `attlas.projections` gave.
    source : Capture or str
        A capture of this model, or a text, which is then read in one ordinary forward pass.
    offsets : iterable of int
        Position of the query minus that of the key: 1 is the previous token; negative ones are keys behind, for
        encoders. The shares are a softmax over just these.
    progress : callable, optional
        Called as ``progress(done, total, "offset kernels")`` after each layer.

    Returns
    -------
    OffsetKernel
        With kernels for layers under rotary encoding. Layers without have None, and say why: no position, or one that
        was added to the hidden states, where it cannot be told from content.

    Raises
    ------
    ArgumentError
        `offsets` holds no whole numbers, or `source` is neither, or a text for a bare module.
    CaptureError
        The capture is empty, or of another model.

    Notes
    -----
    With q̄ and k̄ the means over the tokens, before the encoding, biases and query-key norms included, the kernel is
    ``softmax over Δ of q̄ R(Δ) k̄ᵀ · scale``, soft cap included. It holds for queries and keys that are independent of
    their distance; attention to particular tokens, sinks and additive biases are not in it. That is why the measured
    attention stands beside it, and `OffsetKernel.agreement` says how far to trust it. Source: Su et al. 2021 for R; the
    average is this library's own.

    Time: O(tokens · dim) a head for the means and one tile a strip of 512 queries for the measurement; no n × n.
    Padding tokens are left out where the mask hides whole keys.
    """
    chosen = _offsets(offsets)
    captured = _captured(projections, source)
    views = {_label(projections[number]): projections[number] for number in projections.layers}
    evens: dict[tuple[object, ...], Tensor] = {}
    layers = []
    for done, (number, name) in enumerate(zip(captured.layers, captured.names, strict=True)):
        if name not in views:
            wanted = f"a capture of {type(projections.model).__name__}, whose attention modules were viewed"
            raise CaptureError(complaint("source", wanted=wanted, got=f"a capture with {name}"))
        matrix = captured[number]
        layers.append(_layer(views[name], matrix, captured.heads(number), chosen, evens))
        if progress is not None:
            progress(done + 1, len(captured), "offset kernels")
    tokens = max(captured[number].shape[3] for number in captured.layers)
    settings = {"offsets": list(chosen), "tokens": tokens}
    provenance = replace(projections.provenance, settings={**projections.provenance.settings, **settings})
    return OffsetKernel(tuple(layers), chosen, tokens, provenance)


def relative_scores(query: Tensor, key: Tensor, rotation: Rotation, offsets: Tensor, scale: float) -> Tensor:
    """Return ``q R(Δ) kᵀ · scale`` for each offset.

    Parameters
    ----------
    query, key : Tensor, (…, dim)
        Before the encoding.
    rotation : Rotation
        The encoding.
    offsets : Tensor, (offset,)
        Position of the query minus that of the key.
    scale : float
        What scores are multiplied with.

    Returns
    -------
    Tensor, (…, offset)
    """
    turned = rotation.relative(query.unsqueeze(-2), offsets)
    return (turned * key.unsqueeze(-2)).sum(-1) * scale


class Diagonals(Question[list[Tensor], Tensor]):
    """The sum of a matrix along lines beside its diagonal, ``Σᵢ w_i A[i, position_i − Δ]``; (batch, head, offset).

    Parameters
    ----------
    offsets : sequence of int
        Δ of each line. Only tiles that a line crosses are computed.
    weights : Tensor, (batch, n_query), optional
        What each row counts for; 1 by default.
    """

    def __init__(self, offsets: Sequence[int], weights: Tensor | None = None) -> None:
        self.offsets, self.weights = tuple(offsets), weights

    def start(self, operator: AttentionOperator, block: Block) -> list[Tensor]:
        batch = block.batch.stop - block.batch.start
        sums = torch.zeros(batch, operator.shape[1], len(self.offsets), dtype=torch.float64, device=operator.device)
        weights = torch.ones(1, operator.shape[2], dtype=operator.accumulator, device=operator.device)
        if self.weights is not None:
            weights = self.weights[block.batch].to(weights)
        return [sums, weights, torch.tensor(operator.offset)]

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        first, last = rows.start + operator.offset - cols.stop + 1, rows.stop - 1 + operator.offset - cols.start
        return any(first <= offset <= last for offset in self.offsets)

    def columns(self, operator: AttentionOperator, rows: slice, span: slice) -> slice:
        start = rows.start + operator.offset - max(self.offsets)
        stop = rows.stop + operator.offset - min(self.offsets)
        start = min(max(start, span.start), span.stop)
        return slice(start, max(min(stop, span.stop), start))

    def add(self, state: list[Tensor], rows: slice, cols: slice, tile: Tile) -> None:
        sums, weights, first = state
        height, width = tile.values.shape[-2:]
        for i, offset in enumerate(self.offsets):
            # Of the tile's row r the key is column r + shift: a diagonal of the tile.
            shift = rows.start + int(first) - offset - cols.start
            if -height < shift < width:
                line = tile.values.diagonal(shift, dim1=-2, dim2=-1)
                top = rows.start + max(0, -shift)
                sums[..., i] += (line * weights[:, None, top : top + line.shape[-1]]).sum(-1)

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[list[Tensor]]) -> Tensor:
        whole = torch.zeros(*operator.shape[:2], len(self.offsets), dtype=torch.float64, device=operator.device)
        for block, state in zip(blocks, states, strict=True):
            whole[block.batch, block.head] += state[0]
        return whole


def _layer(
    view: LayerProjections,
    matrix: AttentionMatrix,
    heads: tuple[int, ...],
    offsets: tuple[int, ...],
    evens: dict[tuple[object, ...], Tensor],
) -> LayerKernel:
    visible = _visible(matrix, offsets)
    if view.kind == "cross":
        return LayerKernel(view.layer, view.name, heads, visible, None, None, None, None, TWO_TEXTS)
    rows, keys = _real(matrix)
    measured = _measured(matrix, offsets, rows, keys)
    even = _even(matrix, offsets, rows, keys, evens)
    scores = shares = None
    if view.rotation is not None:
        scores = _scores(matrix, view.rotation, offsets, rows, keys)
        scores = torch.where(visible, scores, float("-inf"))
        shares = scores.softmax(-1) if bool(visible.any()) else torch.zeros_like(scores)
    reason = NO_ROTATION if view.rotation is None else ""
    return LayerKernel(view.layer, view.name, heads, visible, scores, shares, measured, even, reason)


def _label(view: LayerProjections) -> str:
    """Return the name that a capture gives to a layer: modules that run several times have a turn."""
    return view.name if view.turn == 0 else f"{view.name} (turn {view.turn + 1})"


def _scores(
    matrix: AttentionMatrix, rotation: Rotation, offsets: tuple[int, ...], rows: Tensor, keys: Tensor
) -> Tensor:
    """Return the score of the mean query and the mean key at each offset, (head, offset)."""
    # What was captured has the amplitude in it already.
    plain = replace(rotation, amplitude=1.0)
    query = _mean(matrix.query, plain, matrix.offset, rows)
    key = _mean(matrix.key, plain, 0, keys).repeat_interleave(query.shape[0] // matrix.key.shape[1], 0)
    scores = relative_scores(query, key, plain, torch.tensor(offsets, device=query.device), matrix.scale)
    if matrix.softcap is not None:
        scores = matrix.softcap * torch.tanh(scores / matrix.softcap)
    return scores.cpu()


def _mean(x: Tensor, rotation: Rotation, first: int, weights: Tensor) -> Tensor:
    """Turn vectors (batch, head, n, dim) back by their positions and average them: (head, dim), float64."""
    total = torch.zeros(x.shape[1], x.shape[3], dtype=torch.float64, device=x.device)
    for start in range(0, x.shape[2], CHUNK):
        part = x[:, :, start : start + CHUNK].detach().double()
        positions = torch.arange(first + start, first + start + part.shape[2], device=x.device)
        back = rotation.rotate(part, -positions)
        total += torch.einsum("bhnd,bn->hd", back, weights[:, start : start + CHUNK].to(back))
    return total / weights.sum()


def _real(matrix: AttentionMatrix) -> tuple[Tensor, Tensor]:
    """Return which queries and keys are no padding, (batch, n_query) and (batch, n_key), bool."""
    batch, _, n_query, n_key = matrix.shape
    keys = torch.ones(batch, n_key, dtype=torch.bool, device=matrix.device)
    mask = matrix.visibility.mask
    if isinstance(mask, Tensor) and mask.shape[1:3] == (1, 1):
        keys = mask[:, 0, 0].expand(batch, n_key)
    return keys[:, n_key - n_query :], keys


def _measured(matrix: AttentionMatrix, offsets: tuple[int, ...], rows: Tensor, keys: Tensor) -> Tensor:
    """Return the mean of the entries at each offset, over the rows that have such a key: (head, offset), float64."""
    sums = ask(matrix, Diagonals(offsets, rows))[0].sum(0)
    first = matrix.offset
    counts = []
    for offset in offsets:
        start, stop = max(0, offset - first), min(matrix.shape[2], matrix.shape[3] + offset - first)
        own = rows[:, start:stop] & keys[:, start + first - offset : max(stop, start) + first - offset]
        counts.append(own.sum())
    count = torch.stack(counts).to(sums)
    return torch.where(count > 0, sums / count.clamp(min=1), float("nan")).cpu()


def _even(
    matrix: AttentionMatrix,
    offsets: tuple[int, ...],
    rows: Tensor,
    keys: Tensor,
    known: dict[tuple[object, ...], Tensor],
) -> Tensor:
    """Return what an even spread over the visible keys gives at each offset; alike layers share it."""
    spread = even_spread(matrix)
    rules = spread.visibility
    by_position = rules.mask is None and spread.bias is None
    alike = (matrix.shape[2:], rules.causal, rules.window)
    if by_position and alike in known:
        return known[alike]
    batch = 1 if by_position else matrix.shape[0]
    first = spread.narrow(slice(0, batch), slice(0, 1))
    even = _measured(first, offsets, rows[:batch], keys[:batch])[0]
    if by_position:
        known[alike] = even
    return even


def _visible(matrix: AttentionMatrix, offsets: tuple[int, ...]) -> Tensor:
    rules = matrix.visibility
    gap = torch.tensor(offsets)
    seen = torch.ones_like(gap, dtype=torch.bool)
    if rules.causal:
        seen &= gap >= 0
    if rules.window is not None:
        seen &= gap.abs() < rules.window
    return seen


def _rows(layer: LayerKernel, offsets: tuple[int, ...]) -> list[dict[str, Any]]:
    found = []
    for i, head in enumerate(layer.heads):
        row: dict[str, Any] = {"layer": layer.layer, "head": head, "module": layer.name}
        at = None if layer.shares is None else int(layer.shares[i].argmax())
        measured = None if layer.measured is None else layer.measured[i]
        best = (
            None if measured is None or not bool(measured.isfinite().any()) else int(measured.nan_to_num(-1).argmax())
        )
        row["preferred_offset"] = None if at is None else offsets[at]
        row["share"] = None if at is None or layer.shares is None else float(layer.shares[i, at])
        row["chance"] = None if at is None else layer.chance
        row["measured"] = None if at is None or measured is None else finite(float(measured[at]))
        row["even"] = None if at is None or layer.even is None else finite(float(layer.even[at]))
        row["measured_offset"] = None if best is None else offsets[best]
        row["measured_best"] = None if best is None or measured is None else float(measured[best])
        row["reason"] = layer.reason
        found.append(row)
    return found


def _captured(projections: Projections, source: Capture | str) -> Capture:
    if isinstance(source, str):
        if projections.lm is None:
            way_out = "run the module inside of `with attlas.capture(module) as cap:` and pass cap"
            wanted = "a Capture, because a bare module has no tokenizer"
            raise ArgumentError(complaint("source", wanted=wanted, got="a text", way_out=way_out))
        return projections.lm.read(source)
    if not isinstance(source, Capture):
        raise ArgumentError(complaint("source", wanted="a Capture or a text", got=type(source).__name__))
    if not len(source):
        raise CaptureError("the capture is empty: call the model inside of the `with` block first")
    ours, theirs = projections.provenance.fingerprint, source.provenance.fingerprint
    if ours and theirs and ours != theirs:
        wanted = f"a capture of {projections.provenance.model} (fingerprint {ours})"
        raise CaptureError(complaint("source", wanted=wanted, got=f"{source.provenance.model} ({theirs})"))
    return source


def _offsets(offsets: Iterable[int]) -> tuple[int, ...]:
    chosen = tuple(offsets)
    if not chosen or any(isinstance(o, bool) or not isinstance(o, int) for o in chosen):
        raise ArgumentError(complaint("offsets", wanted="at least one whole number", got=repr(chosen)))
    if len(set(chosen)) < len(chosen):
        raise ArgumentError(complaint("offsets", wanted="each offset once", got=repr(chosen)))
    return chosen


def _listed(offsets: tuple[int, ...]) -> str:
    whole = offsets == tuple(range(offsets[0], offsets[-1] + 1))
    return f"{offsets[0]} to {offsets[-1]}" if whole else ", ".join(map(str, offsets))
