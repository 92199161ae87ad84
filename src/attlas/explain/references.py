"""References from outside attention: what gradients and missing parts say, what chance says, and mere positions.

An explanation by attention is worth its cost if it is more faithful than these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from attlas.capture.attended import Attended
from attlas.errors import ArgumentError, complaint
from attlas.explain.attribution import Span
from attlas.explain.reading import Reading
from attlas.explain.walk import Found, Walker
from attlas.models.progress import Progress


class Reference(ABC):
    """A method that does not walk."""

    signed: bool = False
    """Whether a score below zero speaks against the target."""

    @abstractmethod
    def explain(self, reading: Reading, spans: Sequence[Span], progress: Progress | None = None) -> Found:
        """Return what it finds, of targets that are resolved."""


class EmbeddingWalker(Walker):
    """A method that needs the end of a descent: the embeddings, and the targets' gradients with respect to them."""

    needs_gradients: ClassVar[bool] = True

    def visit(self, attended: Attended) -> None:
        """Nothing is to be done."""

    @abstractmethod
    def arrive(self, embeddings: Tensor, gradients: Tensor) -> None:
        """Take the embeddings, (1, n, width), and their gradients, (target, 1, n, width)."""


class GradientInput(EmbeddingWalker):
    """Gradient × input: each token's embedding times the target's gradient there, summed over its width.

    Notes
    -----
    To first order, what the target would lose if the embedding were zero (Simonyan, Vedaldi and Zisserman, 2014, arXiv
    1312.6034; Denil, Demiraj and de Freitas, 2014, arXiv 1412.6815). One backward pass.
    """

    signed: bool = True

    def start(self, reading: Reading) -> None:
        self._scores = torch.zeros(len(reading.targets), reading.n, dtype=torch.float64)

    def arrive(self, embeddings: Tensor, gradients: Tensor) -> None:
        self._scores = (embeddings.double() * gradients.double()).sum(-1)[:, 0].cpu()

    def finish(self) -> Found:
        return Found(self._scores)


class Random(Reference):
    """Random scores, even from 0 to 1: an explanation that knows nothing.

    Parameters
    ----------
    seed : int
        What they are drawn from.
    """

    def __init__(self, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ArgumentError(complaint("seed", wanted="a whole number", got=repr(seed)))
        self.seed = seed

    def explain(self, reading: Reading, spans: Sequence[Span], progress: Progress | None = None) -> Found:
        del spans, progress
        generator = torch.Generator().manual_seed(self.seed)
        return Found(torch.rand(len(reading.targets), reading.n, generator=generator, dtype=torch.float64))


class Recency(Reference):
    """Nearness to the target: 1 at its position, 1/(1 + d) at a distance of d; 0 where a decoder cannot look.

    Of an answer that is pooled, and of an encoder-decoder model, nearness to the end of the text.
    """

    def explain(self, reading: Reading, spans: Sequence[Span], progress: Progress | None = None) -> Found:
        del spans, progress
        at = torch.tensor([_position(reading, i) for i in range(len(reading.targets))])
        away = at.unsqueeze(1) - torch.arange(reading.n)
        near = 1 / (1 + away.abs().double())
        return Found(near.where(away >= 0, 0.0) if reading.lm.facts.kind == "decoder" else near)


class FirstToken(Reference):
    """Everything on the first token."""

    def explain(self, reading: Reading, spans: Sequence[Span], progress: Progress | None = None) -> Found:
        del spans, progress
        scores = torch.zeros(len(reading.targets), reading.n, dtype=torch.float64)
        scores[:, 0] = 1
        return Found(scores)


def _position(reading: Reading, target: int) -> int:
    position = reading.targets[target].position
    return reading.n - 1 if position is None or reading.answer else position
