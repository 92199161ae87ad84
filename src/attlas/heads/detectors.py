"""Detectors: what chosen queries give to chosen keys, averaged over each example, for all heads of a layer at once.

A detector gathers entries, or sums over sets of keys of a sample of rows; no n × n is made, and most of a long text's
matrix is never computed. The same is asked of the even spread, which is the baseline of every role.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attlas._intervals import halves
from attlas.heads.role_table import Sample
from attlas.matrix import AttentionMatrix
from attlas.matrix.entries import entries, masses
from attlas.matrix.even import even_spread

EVEN = "even spread"


class Pairs(NamedTuple):
    """Pairs of a query and a key whose entries are summed and divided by how many queries there are.

    Parameters
    ----------
    name : str
    query, key : Tensor, (pairs,), int64
    example : Tensor, (pairs,), int64, optional
        Which example each pair belongs to; without it, each batch element is one.
    queries : Tensor, (example,) or (1,)
        How many queries an example has.
    """

    name: str
    query: Tensor
    key: Tensor
    example: Tensor | None
    queries: Tensor


class Sets(NamedTuple):
    """Sets of keys that chosen rows are asked about.

    Parameters
    ----------
    names : tuple of str
    rows : Tensor, (row,), int64, ascending
    sets : Tensor, (row, set, n_key), bool
    counts : Tensor, (row, set), bool
        Whether a row counts for a set.
    example : Tensor, (row,), int64
        Which example each row belongs to.
    examples : int
    """

    names: tuple[str, ...]
    rows: Tensor
    sets: Tensor
    counts: Tensor
    example: Tensor
    examples: int


def sums_of_pairs(matrix: AttentionMatrix, groups: Sequence[Pairs]) -> dict[str, Tensor]:
    """Return each group's mean for each example and head, (example, head), float64."""
    if not groups:
        return {}
    gathered = entries(matrix, torch.cat([g.query for g in groups]), torch.cat([g.key for g in groups])).double().cpu()
    answer = {}
    for group, part in zip(groups, gathered.split([len(g.query) for g in groups], dim=-1), strict=True):
        if group.example is None:
            total = part.sum(-1)
        else:
            total = part.new_zeros(len(group.queries), part.shape[1])
            total.index_add_(0, group.example, part[0].mT)
        answer[group.name] = total / group.queries.unsqueeze(-1)
    return answer


def sums_of_sets(matrix: AttentionMatrix, sets: Sets) -> dict[str, Tensor]:
    """Return each set's mean over the rows that count, for each example and head, (example, head), float64.

    `matrix` has one batch element. An example without a row that counts has NaN.
    """
    found = masses(matrix, sets.rows, sets.sets)[0].double().cpu()
    counts = sets.counts.double()
    rows = torch.zeros(sets.examples, len(sets.names), dtype=torch.float64).index_add_(0, sets.example, counts)
    answer = {}
    for m, name in enumerate(sets.names):
        total = found.new_zeros(sets.examples, found.shape[0])
        total.index_add_(0, sets.example, (found[:, m] * counts[:, m]).mT)
        answer[name] = total / torch.where(rows[:, m] > 0, rows[:, m], torch.nan).unsqueeze(-1)
    return answer


@dataclass
class Tally:
    """Collects what each example and head gave, layer by layer and batch by batch."""

    _layers: dict[str, list[Tensor]] = field(default_factory=dict)
    _batches: dict[str, list[Tensor]] = field(default_factory=dict)

    def layer(self, answers: Mapping[str, Tensor], heads: int) -> None:
        """Take one layer's answers, (example, head or 1)."""
        for name, answer in answers.items():
            self._layers.setdefault(name, []).append(answer.expand(-1, heads))

    def close(self) -> None:
        """End a batch: every layer of it was taken."""
        for name, layers in self._layers.items():
            self._batches.setdefault(name, []).append(torch.cat(layers, dim=1))
        self._layers = {}

    def __contains__(self, name: str) -> bool:
        return name in self._batches

    def __getitem__(self, name: str) -> Tensor:
        """Return all examples of one measure, (example, head)."""
        return torch.cat(self._batches[name])


@dataclass
class Evens:
    """Even spreads, whose answers layers share that hide the same keys by position alone."""

    _known: dict[Any, dict[str, Tensor]] = field(default_factory=dict)

    def pairs(self, matrix: AttentionMatrix, groups: Sequence[Pairs]) -> dict[str, Tensor]:
        """Return what an even spread gives to pairs, each name with " even" behind it."""
        return self._of(matrix, ("pairs", id(groups)), lambda even: sums_of_pairs(even, groups))

    def sets(self, matrix: AttentionMatrix, sets: Sets) -> dict[str, Tensor]:
        """Return what an even spread gives to sets."""
        return self._of(matrix, ("sets", id(sets.sets)), lambda even: sums_of_sets(even, sets))

    def _of(self, matrix: AttentionMatrix, what: tuple[str, int], answer: Any) -> dict[str, Tensor]:
        even = even_spread(matrix)
        rules = even.visibility
        if rules.mask is not None or even.bias is not None:
            return {even_of(name): value for name, value in answer(even).items()}
        same = (*what, matrix.shape[0], *matrix.shape[2:], rules.causal, rules.window)
        if same not in self._known:
            self._known[same] = {even_of(name): value for name, value in answer(even).items()}
        return self._known[same]


def even_of(name: str) -> str:
    """Return the name of a measure's even spread."""
    return f"{name} even"


def offset_of(offset: int) -> str:
    """Return the name of the measure of one offset."""
    return f"offset {offset}"


def lines(length: int, first: int, offsets: Sequence[int]) -> Iterator[Pairs]:
    """Yield the lines beside the diagonal, of all queries from `first` on; each batch element is an example."""
    for offset in offsets:
        query = torch.arange(max(first, offset), min(length, length + offset))
        yield Pairs(offset_of(offset), query, query - offset, None, torch.tensor([float(len(query))]))


def offset_samples(tally: Tally, offsets: Sequence[int], seed: int) -> dict[str, Sample]:
    """Return the samples of "previous_token" and "offset" from lines beside the diagonal.

    The other offset that a score has to beat is the head's best one over all examples.
    """
    lines = torch.stack([tally[offset_of(k)] for k in offsets])
    evens = torch.stack([tally[even_of(offset_of(k))] for k in offsets])
    chosen, reported = halves(lines.shape[1], seed)
    choice = lines[:, chosen].mean(1).argmax(0)
    previous = torch.full_like(choice, offsets.index(1))

    def sample(which: Tensor, examples: Tensor) -> Sample:
        here = lines[:, examples]
        score, even = (t.gather(0, which.expand(1, len(examples), -1))[0] for t in (here, evens[:, examples]))
        means = lines.mean(1).scatter(0, which.unsqueeze(0), -1.0)
        other = here.gather(0, means.argmax(0).expand(1, len(examples), -1))[0]
        return Sample(score, {EVEN: even, "another offset": other})

    whole = sample(previous, torch.arange(lines.shape[1]))
    return {
        "previous_token": whole,
        "offset": sample(choice, reported)._replace(choice=torch.tensor(list(offsets))[choice]),
    }
