"""Reads labelled sentences, and notes which word every head looks at from each word that has a partner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.capture.batches import Batch, read_batches
from attlas.errors import DocumentError
from attlas.heads.relations.labelled import LabelledPairs, Pair
from attlas.heads.relations.words import Pieces, merged, pieces
from attlas.matrix import AttentionMatrix
from attlas.matrix.even import even_spread
from attlas.models.progress import Progress

DIRECTIONS = ("dependent to head", "head to dependent")
"""Who looks at whom. In the second one, the head is predicted to be the word that gives the dependent most."""

NOWHERE = -1
"""What is predicted where nothing but the word itself is seen."""


@dataclass(frozen=True, eq=False)
class Readings:
    """What every head says about every pair.

    Parameters
    ----------
    pairs : tuple of Pair
        Those of the sentences that were read, in an order of their own.
    heads : tuple of (layer, head)
    causal : bool
        Whether words see only earlier ones.
    predicted : Tensor, (pair, direction, head), int16
        The word taken for the pair's head, or `NOWHERE`.
    attention : Tensor, (pair, direction, head), float16
        Attention between the two words, in that direction.
    rival : Tensor, (pair, direction, head), float16
        The most attention between the dependent and one of the rivals; 0 without rivals.
    even : Tensor, (pair, direction), float32
        How often a head that attends to all tokens alike is right: it takes the word of most pieces for the partner,
        and one of them at random where several have as many.
    skipped : mapping
        Why sentences were left out -> how many.
    settings : mapping
        Of the captures.
    """

    pairs: tuple[Pair, ...]
    heads: tuple[tuple[int, int], ...]
    causal: bool
    predicted: Tensor
    attention: Tensor
    rival: Tensor
    even: Tensor
    skipped: Mapping[str, int]
    settings: Mapping[str, object]


def read_pairs(lm: LanguageModel, labelled: LabelledPairs, *, size: int, progress: Progress | None = None) -> Readings:
    """Read the sentences that have pairs, in padded batches of about equal length.

    Raises
    ------
    DocumentError
        No sentence can be read: the message says why.
    ArgumentError, UnsupportedModelError
        As `read_batches`.

    Notes
    -----
    Holds 6 bytes for each pair, direction and head; of each batch of sentences, only one layer's matrices are dense.
    """
    pairs_of: dict[int, list[Pair]] = {}
    for pair in labelled.pairs:
        pairs_of.setdefault(pair.sentence, []).append(pair)
    cut = {number: pieces(lm, labelled.text(number), labelled.spans(number)) for number in pairs_of}
    skipped = Counter(found.problem for found in cut.values() if found.problem)
    order = sorted((n for n, found in cut.items() if not found.problem), key=lambda n: len(cut[n].ids))
    if not order:
        reasons = "; ".join(f"{reason} ({count:,} sentences)" for reason, count in skipped.items()) or "there are none"
        raise DocumentError(f"labelled: wanted sentences that the model's tokenizer can read, got none: {reasons}")
    parts: list[_Part] = []
    done = 0
    settings: Mapping[str, object] = {}
    heads: tuple[tuple[int, int], ...] = ()
    for batch in read_batches(lm, [cut[number].ids for number in order], size, progress=progress):
        numbers = order[done : done + len(batch.lengths)]
        done += len(numbers)
        parts.append(
            _read(
                batch,
                [cut[n] for n in numbers],
                [len(labelled.sentences[n]) for n in numbers],
                [pairs_of[n] for n in numbers],
            )
        )
        settings = batch.capture.provenance.settings
        heads = tuple((n, h) for n in batch.capture.layers for h in range(batch.capture[n].shape[1]))
    return Readings(
        pairs=tuple(pair for number in order for pair in pairs_of[number]),
        heads=heads,
        causal=parts[0].causal,
        predicted=torch.cat([part.predicted for part in parts]),
        attention=torch.cat([part.attention for part in parts]),
        rival=torch.cat([part.rival for part in parts]),
        even=torch.cat([part.even for part in parts]),
        skipped=dict(skipped),
        settings=settings,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    predicted: Tensor
    attention: Tensor
    rival: Tensor
    even: Tensor
    causal: bool


@dataclass(frozen=True, eq=False)
class _Asked:
    """The pairs of a batch as tensors, (pair,): where they are, and which words may be taken for the head."""

    element: Tensor
    dependent: Tensor
    head: Tensor
    rivals: Tensor  # (pair, most rivals), filled up with the number of words
    candidates: Tensor  # (pair, word)


def _read(batch: Batch, cut: Sequence[Pieces], counts: Sequence[int], pairs: Sequence[Sequence[Pair]]) -> _Part:
    asked = _asked(counts, pairs)
    length, count = max(batch.lengths), max(counts)
    words = torch.tensor([list(p.words) + [-1] * (length - len(p.words)) for p in cut])
    answers = [_answers(matrix, words, count, asked) for matrix in batch.capture]
    predicted, attention, rival = (torch.cat(parts, dim=-1) for parts in zip(*answers, strict=True))
    causal = all(matrix.visibility.causal for matrix in batch.capture)
    return _Part(predicted, attention, rival, _even(batch.capture[0], words, count, asked), causal)


def _asked(counts: Sequence[int], pairs: Sequence[Sequence[Pair]]) -> _Asked:
    flat = [(element, pair) for element, own in enumerate(pairs) for pair in own]
    widest = max((len(pair.rivals) for _, pair in flat), default=0)
    count = max(counts)
    element = torch.tensor([element for element, _ in flat])
    dependent = torch.tensor([pair.dependent for _, pair in flat])
    word = torch.arange(count)
    here = word < torch.tensor(counts)[element].unsqueeze(1)
    return _Asked(
        element=element,
        dependent=dependent,
        head=torch.tensor([pair.head for _, pair in flat]),
        rivals=torch.tensor([[*pair.rivals, *[count] * (widest - len(pair.rivals))] for _, pair in flat]),
        candidates=here & (word != dependent.unsqueeze(1)),
    )


def _answers(matrix: AttentionMatrix, words: Tensor, count: int, asked: _Asked) -> tuple[Tensor, Tensor, Tensor]:
    """Return prediction, attention and rival's attention of one layer; (pair, direction, head) each."""
    both = _between(matrix, words, count, asked)
    # What is hidden has no attention, so that what is seen is a candidate, and nothing else.
    best, predicted = both.masked_fill(~asked.candidates[:, None, None], 0.0).max(-1)
    predicted = torch.where(best > 0, predicted, NOWHERE)
    attention = _at(both, asked.head.unsqueeze(1)).squeeze(-1)
    # A rival that is only there to fill up is a word beyond the last, which nobody looks at.
    rival = _at(torch.nn.functional.pad(both, (0, 1)), asked.rivals)
    rival = rival.amax(-1) if rival.shape[-1] else torch.zeros_like(attention)
    return predicted.to(torch.int16), attention.half(), rival.half()


def _even(matrix: AttentionMatrix, words: Tensor, count: int, asked: _Asked) -> Tensor:
    """Return how often even attention is right; (pair, direction)."""
    both = _between(even_spread(matrix), words, count, asked)[:, :, 0]
    both = both.masked_fill(~asked.candidates[:, None], 0.0)
    # Equal sums of equal shares may differ in their last digits.
    most = both >= both.amax(-1, keepdim=True) * (1 - 1e-4)
    right = _at((most & (both > 0)).unsqueeze(2), asked.head.unsqueeze(1))[:, :, 0, 0]
    return right.float() / most.sum(-1)


def _between(matrix: AttentionMatrix, words: Tensor, count: int, asked: _Asked) -> Tensor:
    """Return attention from, and to, each pair's dependent, by word; (pair, direction, head, word)."""
    between = merged(matrix[:, :, :, :].cpu(), words, count)
    return torch.stack(
        [between[asked.element, :, asked.dependent], between[asked.element, :, :, asked.dependent]], dim=1
    )


def _at(both: Tensor, words: Tensor) -> Tensor:
    """Return ``both[pair, direction, head, words[pair]]``."""
    return both.gather(-1, words[:, None, None].expand(*both.shape[:3], -1))
