"""The statistics of every head of a capture, in one streaming pass a layer.

`head_statistics` measures all layers; `Measuring` one at a time, and answers other questions in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attlas.capture import Capture
from attlas.errors import ArgumentError, CaptureError, complaint
from attlas.heads.offset import AtOffset
from attlas.heads.table import NEAR, HeadStatistics, LayerStatistics, effective_rank
from attlas.matrix import AttentionMatrix, Distance, Entropy, Mass, Pause, Pool, Question, Received, ask
from attlas.matrix.even import even_spread, only_by_position
from attlas.models.progress import Progress

CELLS = 2_400_000
"""Visible cells of all maps together that are worth keeping for a picture: about 4 MB in a page."""

LARGEST, USUAL, SMALLEST = 128, 96, 32


def head_statistics(
    cap: Capture, pool: tuple[int, int] | None = None, *, batch: int = 0, progress: Progress | None = None
) -> HeadStatistics:
    """Measure every head of a capture.

    Parameters
    ----------
    cap : Capture
        What `attlas.load(...).read` or `attlas.capture` gave.
    pool : (rows, cols), optional
        The size of the small maps, never larger than the matrix itself. By default 96 × 96, or 128 × 128 from 640
        tokens on, and less for models of very many heads.
    batch : int
        Which element of the batch.
    progress : callable, optional
        Called as ``progress(done, total, "measuring heads")``; units are entries of matrices, so that the time left is
        honest when layers differ.

    Returns
    -------
    HeadStatistics

    Raises
    ------
    CaptureError
        The capture is empty.
    ArgumentError
        `batch` or `pool` does not fit.

    Notes
    -----
    One streaming pass over each matrix answers all questions at once; about as long as the model's own forward pass.
    """
    measuring = Measuring(cap, pool, batch=batch)
    sizes = [measuring.entries(number) for number in cap.layers]
    layers, done = [], 0
    for number, size in zip(cap.layers, sizes, strict=True):

        def tell(part: int, parts: int, before: int = done, here: int = size) -> None:
            if progress is not None:
                progress(before + here * part // parts, sum(sizes), "measuring heads")

        layers.append(measuring.layer(number, progress=tell)[0])
        done += size
    settings = {**cap.provenance.settings, "pool": list(measuring.size), "batch": batch, "near": NEAR}
    tokens = None if cap.tokens is None else tuple(cap.tokens)
    return HeadStatistics(tuple(layers), tokens, replace(cap.provenance, settings=settings))


class Measuring:
    """Measures the layers of a capture one at a time, in any order; those that hide alike share their even spread.

    Parameters
    ----------
    cap, pool, batch
        As in `head_statistics`.
    at_each_tile : callable, optional
        Called before each tile, from several threads: it may wait, to let other work go ahead, or raise, to stop.

    Raises
    ------
    CaptureError
        The capture is empty.
    ArgumentError
        `batch` or `pool` does not fit.
    """

    def __init__(
        self,
        cap: Capture,
        pool: tuple[int, int] | None = None,
        *,
        batch: int = 0,
        at_each_tile: Callable[[], None] | None = None,
    ) -> None:
        if not len(cap):
            raise CaptureError("the capture is empty: call the model inside of the `with` block first")
        self._cap = cap
        self._names = dict(zip(cap.layers, cap.names, strict=True))
        self._matrices = {number: _element(cap[number], batch) for number in cap.layers}
        self._pauses = () if at_each_tile is None else (Pause(at_each_tile),)
        self._evens: dict[tuple[object, ...], _Measured] = {}
        self.size = _usual_size(list(self._matrices.values())) if pool is None else pool

    def entries(self, number: int) -> int:
        """Return how many entries a layer's matrices have."""
        _, head, n_query, n_key = self._matrices[number].shape
        return head * n_query * n_key

    def layer(
        self, number: int, *also: Question[Any, Any], progress: Callable[[int, int], None] | None = None
    ) -> tuple[LayerStatistics, list[Any]]:
        """Measure a layer, and answer other questions about its matrix in the same pass.

        Parameters
        ----------
        number : int
            The layer's.
        *also : Question
            What else is asked, of the one batch element.
        progress : callable, optional
            Called as ``progress(done, total)``.
        """
        matrix = self._matrices[number]
        fitting = (min(self.size[0], matrix.shape[2]), min(self.size[1], matrix.shape[3]))
        even = self._even(matrix, fitting)
        found, answers = _measure(matrix, even.counts, fitting, (*also, *self._pauses), progress)
        layer = _layer(number, self._names[number], self._cap.heads(number), matrix, found, even)
        return layer, answers[: len(also)]

    def _even(self, matrix: AttentionMatrix, size: tuple[int, int]) -> _Measured:
        """Measure the even spread; layers that are alike in what they hide by position share it."""
        rules = matrix.visibility
        even = even_spread(matrix)
        same = (matrix.shape[2:], size, rules.causal, rules.window)
        if not only_by_position(even):
            return _measure(even, None, size, self._pauses)[0]
        if same not in self._evens:
            self._evens[same] = _measure(even, None, size, self._pauses)[0]
        return self._evens[same]


def one_head(
    cap: Capture, layer: int, head: int, *, batch: int = 0, at_each_tile: Callable[[], None] | None = None
) -> LayerStatistics:
    """Measure a single head, in a pass over its matrix alone.

    Parameters
    ----------
    cap : Capture
        Whose head it is.
    layer, head : int
        Which; `head` counts as in the model, as in `Capture.heads`.
    batch : int
        Which element of the batch.
    at_each_tile : callable, optional
        As in `Measuring`.

    Raises
    ------
    ArgumentError
        There is no such layer or head, or `batch` does not fit.
    """
    numbers = cap.heads(layer)
    if head not in numbers:
        raise ArgumentError(complaint("head", wanted=f"one of {', '.join(map(str, numbers))}", got=repr(head)))
    at = numbers.index(head)
    matrix = _element(cap[layer], batch).narrow(slice(0, 1), slice(at, at + 1))
    pauses = () if at_each_tile is None else (Pause(at_each_tile),)
    size = (min(USUAL, matrix.shape[2]), min(USUAL, matrix.shape[3]))
    even = _measure(even_spread(matrix), None, size, pauses)[0]
    found = _measure(matrix, even.counts, size, pauses)[0]
    name = dict(zip(cap.layers, cap.names, strict=True))[layer]
    return _layer(layer, name, (head,), matrix, found, even)


def _element(matrix: AttentionMatrix, batch: int) -> AttentionMatrix:
    if isinstance(batch, bool) or not isinstance(batch, int) or not 0 <= batch < matrix.shape[0]:
        raise ArgumentError(
            complaint("batch", wanted=f"a whole number from 0 to {matrix.shape[0] - 1}", got=repr(batch))
        )
    return matrix if matrix.shape[0] == 1 else matrix.narrow(slice(batch, batch + 1), slice(0, matrix.shape[1]))


def _usual_size(matrices: Sequence[AttentionMatrix]) -> tuple[int, int]:
    """Return a size that shows what a screen can, and keeps the page of a large model small enough to send."""
    longest = max(max(m.shape[2:]) for m in matrices)
    # A cell should stand for some tokens at least: thinner ones show no more, and are as many to keep.
    size = LARGEST if longest >= 5 * LARGEST else USUAL
    shares = sum(m.shape[1] * (0.5 if m.visibility.causal else 1.0) for m in matrices)
    while size > SMALLEST and shares * size * size > CELLS:
        size -= 16
    return size, size


@dataclass(frozen=True)
class _Measured:
    """What one pass over the heads of one batch element gave; axes as in `LayerStatistics`."""

    values: dict[str, Tensor]
    top_key: Tensor
    received: Tensor
    entropy: Tensor
    distance: Tensor
    mean: Tensor
    peak: Tensor
    counts: Tensor
    """How many keys each query may see; (head or 1, n_query)."""


def _measure(
    matrix: AttentionMatrix,
    counts: Tensor | None,
    size: tuple[int, int],
    also: Sequence[Question[Any, Any]] = (),
    tell: Callable[[int, int], None] | None = None,
) -> tuple[_Measured, list[Any]]:
    """Ask a matrix everything at once; without `counts` it is the even spread itself, whose sums are the counts."""
    answers = ask(
        matrix,
        Received(),
        Entropy(),
        Distance(),
        Mass(sinks=1),
        AtOffset(1),
        Mass(NEAR),
        Pool(size, "mean"),
        Pool(size, "max"),
        *also,
        progress=tell,
    )
    own, others = answers[: len(answers) - len(also)], answers[len(answers) - len(also) :]
    received, entropy, distance, first, previous, near, mean, peak = (a[0].cpu().float() for a in own)
    seen = matrix.valid_rows[0].cpu()
    visible = matrix.lse[0].exp().cpu().float() if counts is None else counts
    several = seen & (visible > 1)
    # Queries at the beginning have the first token among their near keys already.
    away = torch.arange(matrix.shape[2]) + matrix.offset >= NEAR
    total, (top, top_key) = received.sum(-1), received.max(-1)

    def average(track: Tensor, rows: Tensor = seen) -> Tensor:
        return (track * rows).sum(-1) / rows.sum(-1).clamp(min=1)

    values = {
        "entropy": average(entropy),
        "evenness": average(entropy / visible.clamp(min=2).log(), several),
        "distance": average(distance),
        "first_token": average(first),
        "previous_token": average(previous),
        "near": average(near),
        # What remains of the row; with a learned sink a row sums to less than 1, so its own sum is what counts.
        "far": (total / seen.sum(-1).clamp(min=1) - average(near) - average(first * away)).clamp(min=0),
        "top_key_share": top / total.clamp(min=torch.finfo(total.dtype).tiny),
        "rank": effective_rank(mean),
    }
    return _Measured(values, top_key, received, entropy, distance, mean, peak, visible), others


def _layer(
    number: int, name: str, heads: tuple[int, ...], matrix: AttentionMatrix, found: _Measured, even: _Measured
) -> LayerStatistics:
    visible = even.mean > 0
    lift = torch.where(visible, found.mean / torch.where(visible, even.mean, 1.0), 0.0)
    return LayerStatistics(
        layer=number,
        name=name,
        heads=heads,
        shape=(matrix.shape[2], matrix.shape[3]),
        values={**found.values, "lift_peak": lift.flatten(1).amax(-1)},
        even={**even.values, "lift_peak": torch.ones(1)},
        top_key=found.top_key,
        received=found.received,
        entropy=found.entropy,
        distance=found.distance,
        mean=found.mean,
        peak=found.peak,
        even_received=even.received,
        even_entropy=even.entropy,
        even_distance=even.distance,
        even_mean=even.mean,
        even_peak=even.peak,
    )
