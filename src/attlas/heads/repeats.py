"""Random tokens, twice: the probe of heads that look back at where a token stood before.

A random sequence has no meaning, so whatever a head finds in its repetition it finds by matching tokens. Each sequence
repeats itself at a distance of its own: a head that merely looks a fixed way back is right for one distance and wrong
for the others, and what it gets by that is measured as the baseline of shuffled targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas.capture import Capture, LanguageModel
from attlas.capture.batches import read_batches
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.heads.detectors import EVEN, Evens, Pairs, Tally, even_of, lines, offset_samples, sums_of_pairs
from attlas.heads.role_table import Sample
from attlas.heads.roles import REACH
from attlas.models.progress import Progress

if TYPE_CHECKING:
    from attlas.projections.token_states import Vocabulary
    from attlas.projections.whole import Projections

LONGEST = 46
"""Tokens of the longest sequence that is repeated."""

DISTANCES = 12
"""How many distances there are; they are two tokens apart, so that one's duplicate is no other's induction."""

EACH = 4
"""Sequences of each distance, which are read in one batch."""

SHORTEST = 12
"""Tokens of the shortest sequence that is still worth repeating: more than what is local."""

SHUFFLED = "shuffled targets"
CHANCE = "chance"


@dataclass(frozen=True)
class Frame:
    """What stands around a text of a model's, and which tokens may stand in it.

    Parameters
    ----------
    front, behind : tuple of int
        Token ids that the tokenizer adds, or else the model's first token.
    ordinary : Tensor, int64
        The tokens of the vocabulary that are not special.
    positions : int
        How many tokens fit.
    """

    front: tuple[int, ...]
    behind: tuple[int, ...]
    ordinary: Tensor
    positions: int

    @property
    def added(self) -> int:
        """How many tokens stand around a text."""
        return len(self.front) + len(self.behind)


def frame_of(lm: LanguageModel) -> Frame:
    """Return what stands around a text of this model's.

    Raises
    ------
    UnsupportedModelError
        The model reads no text.
    """
    size, tokenizer = lm.facts.vocabulary, lm.tokenizer
    if size is None:
        raise UnsupportedModelError(f"{lm.name}: has no vocabulary, so it cannot be given tokens to read")
    front: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    special: set[int] = set()
    if tokenizer is not None:
        size = min(size, len(tokenizer))
        special = {int(i) for i in getattr(tokenizer, "all_special_ids", ())}
        document = lm.tokenize("a")
        before, after = document.added
        front, behind = tuple(document.ids[:before]), tuple(document.ids[len(document) - after :])
        first = getattr(tokenizer, "bos_token_id", None)
        if not front and isinstance(first, int):
            # Many tokenizers leave the first token to the chat template; without it, the text's own first token soaks
            # up what would fall on it.
            front = (first,)
    ordinary = torch.tensor([i for i in range(size) if i not in special])
    return Frame(front, behind, ordinary, lm.facts.positions or 10**9)


@dataclass(frozen=True, eq=False)
class Repeat:
    """Sequences that repeat themselves at one distance.

    Parameters
    ----------
    distance : int
        Tokens in the part that stands twice.
    first : int
        Position of its first token.
    parts : Tensor, (sequence, distance), int64
        The part, without any token twice.
    ids : tuple of tuple of int
        The whole sequences.
    """

    distance: int
    first: int
    parts: Tensor
    ids: tuple[tuple[int, ...], ...]

    @property
    def second(self) -> Tensor:
        """Positions of the part's second occurrence."""
        return torch.arange(self.first + self.distance, self.first + 2 * self.distance)

    def __len__(self) -> int:
        """Tokens of one sequence."""
        return len(self.ids[0])


def repeats(
    frame: Frame, distances: Sequence[int] | None = None, sequences: int = EACH, seed: int = 0
) -> tuple[Repeat, ...]:
    """Make random sequences that stand twice.

    Parameters
    ----------
    frame : Frame
        Of the model.
    distances : sequence of int, optional
        How long the parts are; by default twelve lengths up to 46, or as many as fit the model.
    sequences : int
        How many of each.
    seed : int
        What they are drawn from.

    Raises
    ------
    ArgumentError
        The model has too few positions or tokens.
    """
    longest = min(LONGEST, (frame.positions - frame.added) // 2, len(frame.ordinary))
    if distances is None:
        distances = [d for d in range(longest, longest - 2 * DISTANCES, -2) if d >= SHORTEST][::-1]
        if len(distances) < 3:
            needed = SHORTEST + 4
            wanted = f"at least {2 * needed + frame.added} positions and {needed} ordinary tokens"
            got = f"{frame.positions:,} and {len(frame.ordinary):,}"
            raise ArgumentError(complaint("model", wanted=wanted, got=got))
        # Fewer distances are read more often, so that there are as many examples.
        sequences = -(-sequences * DISTANCES // len(distances))
    generator = torch.Generator().manual_seed(seed)
    made = []
    for distance in distances:
        if not 1 <= distance <= min(len(frame.ordinary), (frame.positions - frame.added) // 2):
            most = min(len(frame.ordinary), (frame.positions - frame.added) // 2)
            raise ArgumentError(complaint("distances", wanted=f"numbers from 1 to {most}", got=distance))
        drawn = [torch.randperm(len(frame.ordinary), generator=generator)[:distance] for _ in range(sequences)]
        parts = frame.ordinary[torch.stack(drawn)]
        ids = tuple((*frame.front, *part, *part, *frame.behind) for part in parts.tolist())
        made.append(Repeat(distance, len(frame.front), parts, ids))
    return tuple(made)


def measure_repeats(
    lm: LanguageModel,
    probes: Sequence[Repeat],
    projections: Projections | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Sample], list[tuple[int, int]], dict[str, str]]:
    """Measure the roles that repeated random tokens show.

    Parameters
    ----------
    lm : LanguageModel
    probes : sequence of Repeat
        At least two distances.
    projections : Projections, optional
        The model's weights, for "copying".
    seed : int
        How examples are split to choose each head's offset.
    progress : callable, optional
        Called as ``progress(sequences read, all of them, "reading repeats")``.

    Returns
    -------
    samples : dict
        Name of a role -> Sample, an example a sequence.
    heads : list of (layer, head)
        What the samples' heads are.
    missing : dict
        Roles that could not be measured, and why.
    """
    offsets = offsets_of(lm)
    ends, missing = _ends(lm, projections)
    tally, heads = Tally(), []
    for probe, cap in _read(lm, probes, ends is not None, progress):
        groups = list(_groups(probe, probes, offsets))
        evens, heads = Evens(), []
        for number in cap.layers:
            matrix = cap[number]
            count = matrix.shape[1]
            heads += [(number, h) for h in range(count)]
            tally.layer({**sums_of_pairs(matrix, groups), **evens.pairs(matrix, groups)}, count)
            if ends is not None and projections is not None:
                tally.layer({"copying": _speaks(cap, number, probe, projections, ends)}, count)
        tally.close()
    samples = offset_samples(tally, offsets, seed)
    for name in ("first_token", "local"):
        samples[name] = Sample(tally[name], {EVEN: tally[even_of(name)]})
    for name in ("duplicate_token", "induction"):
        shuffled = tally[f"{name} shuffled"]
        samples[name] = Sample(tally[name], {EVEN: tally[even_of(name)], SHUFFLED: shuffled})
    if "copying" in tally:
        samples["copying"] = Sample(tally["copying"], {CHANCE: torch.full((len(tally["copying"]), 1), 0.5).double()})
    return samples, heads, missing


def offsets_of(lm: LanguageModel) -> list[int]:
    """Return the offsets that are tried: those before the query, and those behind it where a model sees them."""
    return list(range(REACH + 1)) if lm.facts.kind == "decoder" else list(range(-REACH, REACH + 1))


def _read(
    lm: LanguageModel, probes: Sequence[Repeat], output: bool, progress: Progress | None
) -> Iterator[tuple[Repeat, Capture]]:
    total, done = sum(len(probe.ids) for probe in probes), 0
    for probe in probes:
        for batch in read_batches(lm, probe.ids, len(probe.ids), output=output):
            yield probe, batch.capture
        done += len(probe.ids)
        if progress is not None:
            progress(done, total, "reading repeats")


def _groups(probe: Repeat, probes: Sequence[Repeat], offsets: Sequence[int]) -> Iterator[Pairs]:
    length, second = len(probe), probe.second
    yield from lines(length, 1, offsets)
    query = torch.arange(1, length)
    yield Pairs("first_token", query, query * 0, None, _count(len(query)))
    # The first token is local to the first queries, and would be counted for what it is not.
    query = torch.arange(REACH, length)
    near = [d for d in range(1 - REACH, REACH) if min(offsets) <= d]
    reached = [(query[query - d < length], d) for d in near]
    yield Pairs(
        "local", torch.cat([q for q, _ in reached]), torch.cat([q - d for q, d in reached]), None, _count(len(query))
    )
    others = [p.distance for p in probes if p.distance != probe.distance]
    for name, behind in (("duplicate_token", 0), ("induction", 1)):
        yield Pairs(name, second, second - probe.distance + behind, None, _count(len(second)))
        query = second.repeat(len(others))
        key = query - torch.tensor(others).repeat_interleave(len(second)) + behind
        there = key >= probe.first
        yield Pairs(f"{name} shuffled", query[there], key[there], None, _count(int(there.sum())))


def _count(queries: int) -> Tensor:
    return torch.tensor([float(queries)])


def _ends(lm: LanguageModel, projections: Projections | None) -> tuple[Vocabulary | None, dict[str, str]]:
    """Return the model's output layer, or why "copying" cannot be measured."""
    if lm.facts.kind != "decoder":
        return None, {"copying": "this model predicts no next token"}
    if projections is None:
        return None, {"copying": "the model's projections cannot be viewed"}
    from attlas.projections.token_states import vocabulary_of

    try:
        ends = vocabulary_of(projections)
    except (ArgumentError, UnsupportedModelError) as error:
        return None, {"copying": str(error)}
    gated = [number for number in projections.layers if _view(projections, number).gate is not None]
    return (None, {"copying": f"layer {gated[0]} has a gate behind its attention"}) if gated else (ends, {})


def _view(projections: Projections, number: int) -> Any:
    return projections[number]


def _speaks(cap: Capture, number: int, probe: Repeat, projections: Projections, ends: Vocabulary) -> Tensor:
    """Return how often a head's own part of the logits is larger for the next token than for another one.

    Returns
    -------
    Tensor, (sequence, head), float64
        The share of pairs (query, other token of the sequence); ties count half.
    """
    # The last token's next one is not in the sequence.
    given = cap.output(number)[:, :, probe.second[:-1]].to(ends.unembedding.device, ends.dtype)
    output = ends.writer(_view(projections, number))
    answers = []
    for sequence, part in zip(given, probe.parts.to(given.device), strict=True):
        heard = ends.folded(ends.unembedding[part])
        logits = sequence @ (output @ heard.mT)
        right = logits.diagonal(1, dim1=-2, dim2=-1).unsqueeze(-1)
        won = (right > logits).sum((1, 2)) + 0.5 * ((right == logits).sum((1, 2)) - right.shape[1])
        answers.append(won.double() / (right.shape[1] * (logits.shape[2] - 1)))
    return torch.stack(answers).cpu()
