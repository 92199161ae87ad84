"""From what heads say about pairs to scores: accuracy, guesses to beat, intervals over sentences, and who passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas._intervals import LEVEL, halves
from attlas._resampling import times_drawn
from attlas.heads.relations.labelled import LabelledPairs
from attlas.heads.relations.reading import DIRECTIONS, NOWHERE, Readings
from attlas.heads.relations.table import Baseline, BestHead, RelationScores
from attlas.results import Provenance

MARGIN = 0.05
"""How far above the best guess without attention a head has to be, surely: five points of accuracy."""

LEAST = 10
"""Sentences in each half below which nothing is said about a relation."""

_DISTANCES = ((1, 1), (2, 2), (3, 4), (5, 8), (9, None))


def score(
    readings: Readings, labelled: LabelledPairs, *, seed: int, resamples: int, provenance: Provenance
) -> RelationScores:
    """Choose heads on one half of the sentences and measure them on the other; see `relation_scores`.

    Parameters
    ----------
    readings : Readings
        What every head says about every pair.
    labelled : LabelledPairs
        What was read.
    seed, resamples : int
        Of the halves, where `labelled` has none, and of the bootstrap.
    provenance : Provenance
        How the readings were made.
    """
    return _Scoring(readings, labelled, second_half(labelled, seed), resamples, seed).scores(provenance)


def second_half(labelled: LabelledPairs, seed: int) -> Tensor:
    """Return, for each sentence, whether heads are measured on it; the others are to choose by."""
    if labelled.halves is not None:
        return torch.tensor(labelled.halves) == 1
    count = len(labelled.sentences)
    measured = torch.zeros(count, dtype=torch.bool)
    measured[halves(count, seed)[1]] = True
    return measured


@dataclass(frozen=True, eq=False)
class _Cell:
    """A relation in a direction: its pairs in the second half, and what every head makes of them."""

    relation: int
    direction: int
    baseline: Baseline
    lead_first: Tensor  # (head,), on the first half
    selection_accuracy: Tensor
    accuracy: Tensor
    low: Tensor
    high: Tensor
    shuffled: Tensor
    attention: Tensor
    rival_attention: Tensor
    above_rival: Tensor
    spread: Tensor  # (head,), the lead's standard error
    deviations: Tensor  # (resample, head), how far a resample's lead is above the lead, in standard errors
    pairs: Tensor  # numbers of the pairs of the second half

    @property
    def lead(self) -> Tensor:
        return self.accuracy - self.baseline.best


class _Scoring:
    """Turns readings into scores."""

    def __init__(self, readings: Readings, labelled: LabelledPairs, second: Tensor, resamples: int, seed: int) -> None:
        self._readings = readings
        pairs = readings.pairs
        self._names = labelled.relations
        number = {name: index for index, name in enumerate(self._names)}
        self._relation = torch.tensor([number[pair.relation] for pair in pairs])
        self._sentence = torch.tensor([pair.sentence for pair in pairs])
        self._dependent = torch.tensor([pair.dependent for pair in pairs])
        self._head = torch.tensor([pair.head for pair in pairs])
        self._rivals = torch.tensor([bool(pair.rivals) for pair in pairs])
        self._length = torch.tensor([len(labelled.sentences[pair.sentence]) for pair in pairs])
        self._second = second[self._sentence]
        self._weights = _Weights(self._sentence[self._second].unique(), resamples, seed)

    def scores(self, provenance: Provenance) -> RelationScores:
        cells = [
            cell
            for relation in range(len(self._names))
            for direction in range(len(DIRECTIONS))
            if (cell := self._cell(relation, direction)) is not None
        ]
        shape = (len(self._names), len(DIRECTIONS), len(self._readings.heads))
        values = {name: torch.full(shape, torch.nan) for name in _MEASURED}
        passes = torch.zeros(shape, dtype=torch.bool)
        bound = _bound([cell.deviations.amax(-1) for cell in cells])
        for cell in cells:
            at = cell.relation, cell.direction
            lead_low = cell.lead - bound * cell.spread
            for name in _MEASURED:
                values[name][at] = lead_low if name == "lead_low" else getattr(cell, name)
            passes[at] = lead_low > MARGIN
        return RelationScores(
            relations=self._names,
            heads=self._readings.heads,
            baselines={(self._names[c.relation], DIRECTIONS[c.direction]): c.baseline for c in cells},
            values=values,
            passes=passes,
            bests=self._bests(cells),
            skipped=self._readings.skipped,
            provenance=provenance,
        )

    def _bests(self, cells: Sequence[_Cell]) -> dict[str, BestHead]:
        """Choose each relation's head by its lead on the first half."""
        chosen: dict[int, tuple[_Cell, int]] = {}
        for cell in cells:
            head = int(cell.lead_first.argmax())
            rival = chosen.get(cell.relation)
            if rival is None or cell.lead_first[head] > rival[0].lead_first[rival[1]]:
                chosen[cell.relation] = cell, head
        bound = _bound([cell.deviations[:, head] for cell, head in chosen.values()])
        return {self._names[cell.relation]: self._best(cell, head, bound) for cell, head in chosen.values()}

    def _best(self, cell: _Cell, h: int, bound: float) -> BestHead:
        lead_low = float(cell.lead[h] - bound * cell.spread[h])
        layer, head = self._readings.heads[h]
        right = self._readings.predicted[cell.pairs, cell.direction, h] == self._head[cell.pairs]
        distance = (self._head - self._dependent)[cell.pairs].abs()
        by_distance = []
        for least, most in _DISTANCES:
            here = (distance >= least) & (distance <= (most or distance.max()))
            if bool(here.any()):
                name = f"{least}" if least == most else f"{least}–{most}" if most else f"{least}+"
                by_distance.append((name, int(here.sum()), float(right[here].float().mean())))
        rivals = bool(self._rivals[cell.pairs].any())
        return BestHead(
            relation=self._names[cell.relation],
            layer=layer,
            head=head,
            direction=DIRECTIONS[cell.direction],
            selection_accuracy=float(cell.selection_accuracy[h]),
            accuracy=float(cell.accuracy[h]),
            low=float(cell.low[h]),
            high=float(cell.high[h]),
            baseline=cell.baseline,
            lead_low=lead_low,
            passes=lead_low > MARGIN,
            shuffled=float(cell.shuffled[h]),
            attention=float(cell.attention[h]),
            rival_attention=float(cell.rival_attention[h]) if rivals else None,
            above_rival=float(cell.above_rival[h]) if rivals else None,
            by_distance=tuple(by_distance),
        )

    def _cell(self, relation: int, direction: int) -> _Cell | None:
        asked = self._relation == relation
        if self._readings.causal:
            # Only the later of the two words sees the other.
            earlier = self._head < self._dependent if direction == 0 else self._head > self._dependent
            asked &= earlier
        first, second = (asked & ~self._second).nonzero()[:, 0], (asked & self._second).nonzero()[:, 0]
        sentences_first, sentences_second = (len(self._sentence[part].unique()) for part in (first, second))
        if min(sentences_first, sentences_second) < LEAST:
            return None
        guesses_first, _ = self._guesses(first, first, direction)
        guesses, (offset, position) = self._guesses(first, second, direction)
        by_offset, by_position, even, uniform = (float(guess.mean()) for guess in guesses)
        baseline = Baseline(
            offset, by_offset, position, by_position, even, uniform, pairs=len(second), sentences=sentences_second
        )
        guess = max(guesses, key=lambda g: float(g.mean()))
        predicted = self._readings.predicted[:, direction]
        right = (predicted[second] == self._head[second].unsqueeze(1)).float()
        right_first = (predicted[first] == self._head[first].unsqueeze(1)).float()
        samples = self._weights.means(torch.cat([right, guess.unsqueeze(1)], dim=1), self._sentence[second])
        accuracy, leads = right.mean(0), samples[:, :-1] - samples[:, -1:]
        spread = torch.maximum(leads.std(0), _plus_four(right.sum(0), len(second), sentences_second))
        low, high = samples[:, :-1].quantile(torch.tensor([0.5 - LEVEL / 2, 0.5 + LEVEL / 2]), dim=0)
        attention = self._readings.attention[second, direction].float()
        rival = self._readings.rival[second, direction].float()
        rivalled = self._rivals[second]
        return _Cell(
            relation=relation,
            direction=direction,
            baseline=baseline,
            lead_first=right_first.mean(0) - max(float(g.mean()) for g in guesses_first),
            selection_accuracy=right_first.mean(0),
            accuracy=accuracy,
            low=low,
            high=high,
            shuffled=self._shuffled(predicted[second], second),
            attention=attention.mean(0),
            rival_attention=rival[rivalled].mean(0),
            above_rival=(attention > rival)[rivalled].float().mean(0),
            spread=spread,
            deviations=(leads - (accuracy - guess.mean())) / spread,
            pairs=second,
        )

    def _guesses(self, first: Tensor, asked: Tensor, direction: int) -> tuple[list[Tensor], tuple[int, int]]:
        """Return how right each guess is on the asked pairs, and the offset and position chosen on the first half."""
        offsets = self._head - self._dependent
        offset = int(offsets[first].mode().values)
        from_end = self._head - self._length
        start, end = self._head[first].mode().values, from_end[first].mode().values
        ahead = (self._head[first] == start).sum() >= (from_end[first] == end).sum()
        position, places = (int(start), self._head) if bool(ahead) else (int(end), from_end)
        seen = self._length[asked] - 1
        if self._readings.causal:
            seen = self._dependent[asked] if direction == 0 else self._length[asked] - 1 - self._dependent[asked]
        even = self._readings.even[asked, direction]
        guesses = [(offsets[asked] == offset).float(), (places[asked] == position).float(), even, 1 / seen.float()]
        return guesses, (offset, position)

    def _shuffled(self, predicted: Tensor, asked: Tensor) -> Tensor:
        """Return the expected accuracy, (head,), when the offsets of the right words are dealt out anew at random.

        Exact, without any dealing: a pair's prediction is right with the share of all pairs that have its offset.
        """
        offsets = (self._head - self._dependent)[asked]
        reach = int(self._length[asked].max())
        share = torch.bincount(offsets + reach, minlength=2 * reach + 1).float() / len(asked)
        # A prediction of nothing is right by no offset.
        guessed = torch.where(predicted == NOWHERE, 0, predicted.long() - self._dependent[asked].unsqueeze(1))
        return share[guessed + reach].mean(0)


_MEASURED = (
    "accuracy", "low", "high", "lead", "lead_low", "selection_accuracy", "shuffled", "attention", "rival_attention",
    "above_rival",
)  # fmt: skip


class _Weights:
    """Bootstrap samples of sentences, the same for every relation, so that what depends on one another stays so."""

    def __init__(self, drawn_from: Tensor, resamples: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = len(drawn_from)
        self._place = torch.full((int(drawn_from.max()) + 1,), -1)
        self._place[drawn_from] = torch.arange(count)
        self._times = times_drawn(count, resamples, generator, torch.float32)

    def means(self, values: Tensor, sentence: Tensor) -> Tensor:
        """Return the mean over pairs, (resample, column), of values (pair, column) in each sample of sentences."""
        place = self._place[sentence]
        sums = torch.zeros(self._times.shape[1], values.shape[1]).index_add_(0, place, values)
        pairs = torch.bincount(place, minlength=self._times.shape[1]).float()
        # A sample without any pair says nothing: it is given the mean itself.
        drawn = (self._times @ pairs).unsqueeze(1)
        return torch.where(drawn > 0, self._times @ sums / drawn.clamp(min=1), values.mean(0))


def _plus_four(right: Tensor, pairs: int, independent: int) -> Tensor:
    """Return a standard error of an accuracy that is above 0 even when everything was right or wrong.

    Agresti and Coull 1998: two successes and two failures are added. Only as many pairs count as there are sentences.
    """
    share = (right / pairs * independent + 2) / (independent + 4)
    return (share * (1 - share) / (independent + 4)).sqrt()


def _bound(largest: Sequence[Tensor]) -> float:
    """Return how many standard errors below its lead a bound has to be, so that with confidence none is too high."""
    if not largest:
        return 0.0
    return float(torch.stack(list(largest)).amax(0).quantile(LEVEL))
