"""Planted sentences: the probe of heads that fetch, from far back, the one thing that is needed now.

Each document is plain sentences with two planted ones among them, of the same form about two people; it ends by asking
for one of them. The answer stands behind the question, so that one forward pass shows every step of giving it. What a
head gives to the other person's sentence is the baseline: it has the same words at similar places.

The documents are ordinary text besides, and show what heads give to delimiters and to keys that are far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from attlas.capture import Capture, LanguageModel
from attlas.capture.batches import read_batches
from attlas.errors import ArgumentError, complaint
from attlas.heads.detectors import EVEN, Evens, Pairs, Tally, even_of, sums_of_sets
from attlas.heads.repeats import Frame
from attlas.heads.role_table import Sample
from attlas.heads.texts import delimiters, others_near, samples_of_sets, sets_of_text
from attlas.matrix import AttentionMatrix
from attlas.models import Document
from attlas.models.progress import Progress

DOCUMENTS = 32

TOKENS = 160
"""Tokens of a document."""

SPARE = 6
"""Tokens that are written beyond that, and cut off at the front, because pieces may join."""

STEP = 16
"""The first query that is asked about sets of keys: earlier ones see next to nothing."""

ROWS = 16
"""Queries of each document that are asked about delimiters and far keys."""

BATCH = 4

DECOY = "the other sentence"

PEOPLE = (
    *("Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Henry", "Irene", "Jacob", "Karen", "Lucas"),
    *("Maria", "Oscar", "Paula", "Simon"),
)
THINGS = ("garden", "kitchen", "boat", "door", "coat", "cart", "shed", "piano", "window", "bicycle", "tent", "kite")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "brown", "grey", "orange", "purple")
METALS = ("gold", "silver", "iron", "copper", "wooden", "glass", "stone", "paper", "leather", "velvet")
OBJECTS = ("ring", "lamp", "clock", "horn", "bell", "cup", "mask", "drum", "spoon", "crown")
PLACES = ("river", "market", "harbour", "station", "school", "forest", "bridge", "tower", "mill", "library")
SUBJECTS = ("The old teacher", "A young farmer", "My neighbour", "The captain", "Her cousin", "The new doctor")
DEEDS = ("walked slowly to", "often talked about", "never went back to", "painted a picture of", "lived not far from")
TIMES = ("in the morning", "after the rain", "last summer", "before the war", "on quiet evenings", "for many years")


@dataclass(frozen=True, eq=False)
class Needle:
    """One document.

    Parameters
    ----------
    ids : tuple of int
        All tokens, the answer at the end.
    query : Tensor, (step,), int64
        Positions at which the model is about to need the next token of the answer.
    key : Tensor, (step,), int64
        Where that token stands in the planted sentence.
    decoy : Tensor, (step,), int64
        Where the other sentence has its own at the same step.
    delimiters : Tensor, (n,), bool
    """

    ids: tuple[int, ...]
    query: Tensor
    key: Tensor
    decoy: Tensor
    delimiters: Tensor


def needles(lm: LanguageModel, frame: Frame, documents: int = DOCUMENTS, seed: int = 0) -> tuple[Needle, ...]:
    """Make documents with planted sentences.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokenizer cuts them.
    frame : Frame
        Of the model.
    documents : int
    seed : int
        What they are drawn from.

    Raises
    ------
    ArgumentError
        The model has too few positions, or no tokenizer that tells which characters a token covers.
    """
    if not getattr(lm.tokenizer, "is_fast", False):
        wanted, got = "a tokenizer that tells which characters a token covers", "one that does not"
        raise ArgumentError(complaint("model", wanted=wanted, got=got if lm.tokenizer else "none"))
    random = Random(seed)  # noqa: S311 - a probe has to be the same again, not secret
    made = tuple(_needle(lm, frame, random) for _ in range(documents))
    longest = max(len(needle.ids) for needle in made)
    if longest > frame.positions:
        raise ArgumentError(complaint("model", wanted=f"at least {longest} positions", got=frame.positions))
    return made


def _needle(lm: LanguageModel, frame: Frame, random: Random) -> Needle:
    one, other = random.sample(PEOPLE, 2)
    form = " The thing that {} hid in the " + random.choice(THINGS) + " was the"
    kinds = zip(random.sample(COLOURS, 2), random.sample(METALS, 2), random.sample(OBJECTS, 2), strict=True)
    ours, theirs = (" " + " ".join(words) for words in kinds)
    planted = [(form.format(one), ""), (ours, "key"), (".", "")]
    decoy = [(form.format(other), ""), (theirs, "decoy"), (".", "")]
    question = [(form.format(one), ""), (ours, "answer")]
    filler: list[list[tuple[str, str]]] = []
    room = TOKENS - frame.added - len(lm.tokenize("".join(text for text, _ in planted + decoy + question)))
    while room > -SPARE:
        filler.append([(_sentence(random), "")])
        room -= len(lm.tokenize(filler[-1][0][0]))
    for sentence in random.sample([planted, decoy], 2):
        # The last sentences stay plain, so that what is fetched is never near.
        filler.insert(random.randint(1, max(1, len(filler) - 3)), sentence)
    pieces = [piece for sentence in [*filler, question] for piece in sentence]
    spans, start = {}, 0
    for piece, kind in pieces:
        spans[kind] = (start, start + len(piece))
        start += len(piece)
    document = _tail(lm.tokenize("".join(piece for piece, _ in pieces)), TOKENS - len(frame.front))
    key, decoys, answer = (_within(document, spans[kind]) + len(frame.front) for kind in ("key", "decoy", "answer"))
    # Steps at which both sentences have a token of their own.
    steps = min(len(key), len(decoys), len(answer))
    marks = torch.cat([torch.zeros(len(frame.front), dtype=torch.bool), delimiters(document)])
    return Needle((*frame.front, *document.ids), answer[:steps] - 1, key[:steps], decoys[:steps], marks)


def _tail(document: Document, length: int) -> Document:
    """Return a text's last tokens, without any that the tokenizer puts around it: documents are equally long."""
    end = len(document) - document.added[1]
    kept = slice(max(document.added[0], end - length), end)
    offsets = None if document.offsets is None else document.offsets[kept]
    return replace(document, ids=document.ids[kept], tokens=document.tokens[kept], offsets=offsets, added=(0, 0))


def _within(document: Document, span: tuple[int, int]) -> Tensor:
    """Return the tokens of a span of characters, int64."""
    found = [
        i
        for i, (begin, end) in enumerate(document.offsets or ())
        if begin < end and span[0] <= begin and end <= span[1]
    ]
    return torch.tensor(found, dtype=torch.int64)


def _sentence(random: Random) -> str:
    who, did, when = random.choice(SUBJECTS), random.choice(DEEDS), random.choice(TIMES)
    place = f"the {random.choice(COLOURS)} {random.choice(PLACES)}"
    if random.random() < 0.5:
        return f" {who} {did} {place} {when}."
    return f" {when.capitalize()}, {who[0].lower()}{who[1:]} {did} {place}."


def measure_needles(
    lm: LanguageModel, probes: Sequence[Needle], *, seed: int = 0, progress: Progress | None = None
) -> tuple[dict[str, Sample], list[tuple[int, int]]]:
    """Measure the roles that planted sentences, and plain text, show.

    Parameters
    ----------
    lm : LanguageModel
    probes : sequence of Needle
    seed : int
        Which queries are asked about sets of keys.
    progress : callable, optional
        Called as ``progress(documents read, all of them, "reading planted sentences")``.

    Returns
    -------
    samples : dict
        Name of a role -> Sample, an example a document. "retrieval" and "needle" only for a decoder: others predict no
        next token.
    heads : list of (layer, head)
    """
    causal = lm.facts.kind == "decoder"
    ordered = sorted(probes, key=lambda needle: len(needle.ids))
    tally, heads, done = Tally(), [], 0
    for batch in read_batches(lm, [needle.ids for needle in ordered], BATCH):
        here = ordered[done : done + len(batch.lengths)]
        heads = _measure(batch.capture, here, tally, causal=causal, seed=seed + done)
        done += len(here)
        if progress is not None:
            progress(done, len(ordered), "reading planted sentences")
    samples = samples_of_sets(tally)
    if not causal:
        return samples, heads
    samples["retrieval"] = Sample(tally["retrieval"], {DECOY: tally["retrieval decoy"]})
    samples["needle"] = Sample(tally["needle"], {EVEN: tally[even_of("needle")], DECOY: tally["needle decoy"]})
    return samples, heads


def _measure(cap: Capture, probes: Sequence[Needle], tally: Tally, *, causal: bool, seed: int) -> list[tuple[int, int]]:
    """Measure the documents of one batch, each an example."""
    heads = []
    for b, needle in enumerate(probes):
        length = len(needle.ids)
        rows = torch.linspace(STEP, length - 1, ROWS).round().long()
        sets = sets_of_text(
            torch.tensor(needle.ids),
            (needle.delimiters, others_near(needle.delimiters, seed + b)),
            rows,
            torch.zeros_like(rows),
            1,
            causal=causal,
            seed=seed + b,
            matching=False,
            width=cap[cap.layers[0]].shape[3],
        )
        step = torch.zeros_like(needle.query)
        steps = [Pairs("needle", needle.query, needle.key, step, torch.tensor([float(len(step))]))]
        heads, evens = [], Evens()
        for number in cap.layers:
            matrix = cap[number].narrow(slice(b, b + 1), slice(0, cap[number].shape[1]))
            count = matrix.shape[1]
            heads += [(number, h) for h in range(count)]
            even = {**evens.sets(matrix, sets), **evens.pairs(matrix, steps)}
            tally.layer({**sums_of_sets(matrix, sets), **_fetched(matrix, needle), **even}, count)
        tally.close()
    return heads


def _fetched(matrix: AttentionMatrix, needle: Needle) -> dict[str, Tensor]:
    """Return what each head gives to the token that is needed, and whether it is what it looks at most; (1, head)."""
    rows = matrix[:, :, needle.query, :][0].double().cpu()
    steps = torch.arange(len(needle.query))
    most = rows.argmax(-1)
    found = {
        "needle": rows[:, steps, needle.key],
        "needle decoy": rows[:, steps, needle.decoy],
        "retrieval": (most == needle.key).double(),
        "retrieval decoy": (most == needle.decoy).double(),
    }
    return {name: values.mean(-1).unsqueeze(0) for name, values in found.items()}
