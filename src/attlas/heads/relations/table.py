"""The records of which head carries which relation: a row a relation, head and direction, and the best one of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from attlas._tables import Table, finite
from attlas.heads.relations.reading import DIRECTIONS
from attlas.heads.table import Statistic
from attlas.results import Provenance

COLUMNS = (
    Statistic("accuracy", "accuracy", "share", "How often the head's most attended word is the right one."),
    Statistic("low", "from", "share", "Lower end of the accuracy's 95 % interval, over sentences."),
    Statistic("high", "to", "share", "Upper end of the accuracy's 95 % interval, over sentences."),
    Statistic("lead", "lead", "share", "Accuracy less that of the best guess without attention (`baseline`)."),
    Statistic("lead_low", "sure lead", "share", "What the lead is at least, held for all heads of the table at once."),
    Statistic(
        "selection_accuracy", "accuracy, other half", "share", "Accuracy on the sentences that heads are chosen on."
    ),
    Statistic(
        "shuffled", "shuffled", "share", "Accuracy with the right words' offsets dealt out anew among the pairs."
    ),
    Statistic("attention", "attention", "share", "Mean attention between the two words."),
    Statistic(
        "rival_attention", "attention to rivals", "share", "Mean attention between the word and its strongest rival."
    ),
    Statistic("above_rival", "above rivals", "share", "How often the right word has more attention than every rival."),
    Statistic("baseline", "baseline", "share", "The best of offset, position, even attention and any word."),
    Statistic("offset_accuracy", "best offset", "share", "How often the best fixed offset is right."),
    Statistic(
        "position_accuracy", "best position", "share", "How often the best fixed position in the sentence is right."
    ),
    Statistic("even", "even attention", "share", "How often attention to all tokens alike is right."),
    Statistic("uniform", "any word", "share", "How often a word drawn from those that are seen is right."),
    Statistic("pairs", "pairs", "", "Pairs of words that it was measured on."),
    Statistic("sentences", "sentences", "", "Sentences that it was measured on."),
)
"""What the numbers of a row mean."""


@dataclass(frozen=True)
class Baseline:
    """What can be guessed about a relation without any attention.

    Offset and position are chosen on the first half of the sentences, and all is measured on the second.

    Parameters
    ----------
    offset : int
        The best fixed offset from dependent to head, in words.
    offset_accuracy : float
        How often it is right.
    position : int
        The best fixed position in the sentence, counted from 0; negative ones count from the end.
    position_accuracy : float
        How often it is right.
    even : float
        How often a head is right that attends to all tokens alike: it falls for words of many pieces.
    uniform : float
        How often a word is right that is drawn from those that are seen.
    pairs, sentences : int
        What it was measured on.
    """

    offset: int
    offset_accuracy: float
    position: int
    position_accuracy: float
    even: float
    uniform: float
    pairs: int
    sentences: int

    @property
    def best(self) -> float:
        """The best of the four."""
        return max(self.offset_accuracy, self.position_accuracy, self.even, self.uniform)


@dataclass(frozen=True)
class BestHead:
    """The head that was best at a relation on one half of the sentences, and what it does on the other.

    Parameters
    ----------
    relation : str
    layer, head : int
    direction : str
        Who looks at whom; see `DIRECTIONS`.
    selection_accuracy : float
        On the half that it was chosen on: too good, as always.
    accuracy, low, high : float
        On the other half, with its 95 % interval over sentences.
    baseline : Baseline
    lead_low : float
        What the lead over the baseline is at least, held for the best heads of all relations at once.
    passes : bool
        Whether that is above the margin.
    shuffled : float
        Accuracy with the right words' offsets dealt out anew.
    attention, rival_attention, above_rival : float or None
        Mean attention to the right word and to the strongest rival, and how often the right one has more; None for a
        relation without rivals.
    by_distance : tuple of (str, int, float)
        Distance in words, pairs and accuracy.
    """

    relation: str
    layer: int
    head: int
    direction: str
    selection_accuracy: float
    accuracy: float
    low: float
    high: float
    baseline: Baseline
    lead_low: float
    passes: bool
    shuffled: float
    attention: float
    rival_attention: float | None
    above_rival: float | None
    by_distance: tuple[tuple[str, int, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class RelationScores(Table):
    """How well every head finds every relation's words; all tensors are float32, (relation, direction, head).

    Heads were chosen on one half of the sentences; all numbers but `selection_accuracy` are of the other one. NaN
    where there is nothing to measure: a decoder's words see only earlier ones, so each pair has one direction there.

    Parameters
    ----------
    relations : tuple of str
    heads : tuple of (layer, head)
    baselines : mapping
        (relation, direction) -> Baseline, for those with pairs in both halves.
    values : mapping
        Name of a number (see `COLUMNS`) -> Tensor.
    passes : Tensor, bool
        Whether a head's lead over the baseline is surely above the margin, all heads of the table considered.
    bests : mapping
        Relation -> its best head.
    skipped : mapping
        Why sentences were left out -> how many.
    provenance : Provenance
    """

    relations: tuple[str, ...]
    heads: tuple[tuple[int, int], ...]
    baselines: Mapping[tuple[str, str], Baseline]
    values: Mapping[str, Tensor]
    passes: Tensor
    bests: Mapping[str, BestHead]
    skipped: Mapping[str, int]
    provenance: Provenance

    def best(self, relation: str) -> BestHead | None:
        """Return the head chosen for a relation; None if it has too few pairs to choose by."""
        return self.bests.get(relation)

    def rows(self) -> list[dict[str, Any]]:
        """Return plain types: a row for each relation, direction and head that was measured."""
        return list(self._rows())

    def about(self) -> dict[str, Any]:
        return {
            "columns": {column.name: {"unit": column.unit, "meaning": column.meaning} for column in COLUMNS},
            "best": {name: best.as_dict() for name, best in self.bests.items()},
        }

    def _rows(self) -> Iterator[dict[str, Any]]:
        for r, relation in enumerate(self.relations):
            for d, direction in enumerate(DIRECTIONS):
                baseline = self.baselines.get((relation, direction))
                if baseline is None:
                    continue
                columns = {name: tensor[r, d].tolist() for name, tensor in self.values.items()}
                passes = self.passes[r, d].tolist()
                for h, (layer, head) in enumerate(self.heads):
                    yield {
                        "relation": relation,
                        "layer": layer,
                        "head": head,
                        "direction": direction,
                        **{name: finite(column[h]) for name, column in columns.items()},
                        "baseline": baseline.best,
                        **asdict(baseline),
                        "passes": passes[h],
                    }
