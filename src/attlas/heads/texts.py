"""What heads do on a text: detectors for tokens that nobody has planted.

Of a long text only a sample of queries is asked, spread evenly over it. Stretches of the text are the examples: queries
within one look at much the same keys, and intervals that took them for independent would be far too narrow. They tell
how sure the scores are for this text, not for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from attlas.capture import Capture
from attlas.errors import DocumentError
from attlas.heads.detectors import (
    EVEN,
    Evens,
    Pairs,
    Sets,
    Tally,
    even_of,
    offset_of,
    offset_samples,
    sums_of_pairs,
    sums_of_sets,
)
from attlas.heads.role_table import Sample
from attlas.heads.roles import FAR, REACH
from attlas.models import Document
from attlas.models.progress import Progress

STRETCHES = 48
"""Examples that a text is cut into, where it is long enough."""

STRETCH = 16
"""Tokens of the shortest stretch."""

LINE_QUERIES = 40
"""Queries of a stretch that are asked about single keys."""

SET_QUERIES = 10
"""Queries of a stretch that are asked about sets of keys, which costs a row of the matrix each."""

TOGETHER = 6
"""Stretches whose sets of keys are made at once."""

OTHERS = "other tokens"
ANOTHER = "another token's places"
MEDIAN = "median head"


@dataclass(frozen=True, eq=False)
class Stretches:
    """Which queries of a text are asked, and the stretch that each belongs to.

    Parameters
    ----------
    examples : int
        How many stretches.
    lines, lines_of : Tensor, (query,), int64
        Queries for single keys, ascending, and their stretches.
    rows, rows_of : Tensor, (row,), int64
        Queries for sets of keys, and their stretches.
    """

    examples: int
    lines: Tensor
    lines_of: Tensor
    rows: Tensor
    rows_of: Tensor


def stretches(length: int) -> Stretches:
    """Cut a text into stretches and choose their queries, evenly spaced.

    Raises
    ------
    DocumentError
        The text is too short to be cut into sixteen.
    """
    examples = min(STRETCHES, (length - REACH) // STRETCH)
    if examples < STRETCH:
        least = STRETCH * STRETCH + REACH
        raise DocumentError(
            f"text: wanted at least {least} tokens, so that there are independent stretches to compare, got {length}; "
            "give a longer text, or none at all to measure roles on the library's own sequences"
        )
    # The first queries see next to nothing but the first token.
    edges = torch.linspace(REACH, length, examples + 1).round().long().tolist()

    def chosen(most: int) -> tuple[Tensor, Tensor]:
        picked = [torch.linspace(a, b - 1, min(most, b - a)).round().long() for a, b in pairwise(edges)]
        return torch.cat(picked), torch.cat([torch.full_like(p, i) for i, p in enumerate(picked)])

    return Stretches(examples, *chosen(LINE_QUERIES), *chosen(SET_QUERIES))


def delimiters(document: Document) -> Tensor:
    """Return which tokens are punctuation, line ends or added by the tokenizer, the first token not; (n,), bool."""
    marks = [not any(c.isalnum() for c in token) and bool(token.strip(" \t")) for token in document.tokens]
    found = torch.tensor(marks)
    front, behind = document.added
    found[:front] = True
    found[len(found) - behind :] = True
    found[0] = False
    return found


def sets_of_text(
    ids: Tensor,
    marks: tuple[Tensor, Tensor],
    rows: Tensor,
    example: Tensor,
    examples: int,
    *,
    causal: bool,
    seed: int,
    matching: bool,
    width: int | None = None,
) -> Sets:
    """Return the sets of keys that a text's queries are asked about.

    Parameters
    ----------
    ids : Tensor, (n,), int64
        The text's tokens.
    marks : (Tensor, Tensor), each (n,), bool
        Its delimiters, and as many other tokens, from `others_near`.
    rows, example : Tensor, (row,), int64
        The queries and the examples that they belong to.
    examples : int
    causal : bool
        Whether a query sees no later key.
    seed : int
        What the shuffled targets are drawn from.
    matching : bool
        Whether to ask about the places where a query's token stood before.
    width : int, optional
        Keys of the matrix, where padding stands behind the text.
    """
    keys = torch.arange(len(ids))
    away = rows.unsqueeze(1) - keys if causal else (rows.unsqueeze(1) - keys).abs()
    all_rows = torch.ones(len(rows), dtype=torch.bool)
    sets = {
        "delimiter": (marks[0].expand_as(away), all_rows),
        "delimiter shuffled": (marks[1].expand_as(away), all_rows),
        "long_range": ((away >= FAR) & (keys > 0), away.amax(1) >= 2 * FAR),
    }
    if matching:
        # Nearer ones are left out, where a head that is merely local would get them too.
        there = (away >= REACH) & (keys > 0)
        shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
        before = torch.cat([ids.new_full((1,), -1), ids[:-1]])
        for name, tokens in (("duplicate_token", ids), ("induction", before)):
            own = (tokens == ids[rows].unsqueeze(1)) & there
            others = (tokens == ids[shuffled].unsqueeze(1)) & there & ~own
            both = own.any(1) & others.any(1)
            sets |= {name: (own, both), f"{name} shuffled": (others, both)}
    stacked = torch.stack([keys_of for keys_of, _ in sets.values()], dim=1)
    padded = torch.nn.functional.pad(stacked, (0, (width or len(ids)) - len(ids)))
    counts = torch.stack([counted for _, counted in sets.values()], dim=1)
    return Sets(tuple(sets), rows, padded, counts, example, examples)


def others_near(marks: Tensor, seed: int) -> Tensor:
    """Choose for each marked token another one near it, so that both sets lie equally far from any query.

    Parameters
    ----------
    marks : Tensor, (n,), bool
    seed : int

    Returns
    -------
    Tensor, (n,), bool
        As many as are marked, or a few less where no other is near; the first token is never chosen.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros_like(marks)
    near = torch.arange(-REACH, REACH + 1)
    for place in marks.nonzero().flatten().tolist():
        candidates = (near + place)[((near + place) > 0) & ((near + place) < len(marks))]
        free = candidates[~(marks | chosen)[candidates]]
        if len(free):
            chosen[free[torch.randint(len(free), (1,), generator=generator)]] = True
    return chosen


def samples_of_sets(tally: Tally) -> dict[str, Sample]:
    """Return the samples of the roles that sets of keys show."""
    far = tally["long_range"]
    samples = {"long_range": Sample(far, {MEDIAN: far.median(1, keepdim=True).values})}
    for name, shuffled in (("delimiter", OTHERS), ("duplicate_token", ANOTHER), ("induction", ANOTHER)):
        if name in tally:
            baselines = {EVEN: tally[even_of(name)], shuffled: tally[f"{name} shuffled"]}
            samples[name] = Sample(tally[name], baselines)
    return samples


def measure_text(
    cap: Capture,
    document: Document,
    offsets: Sequence[int],
    *,
    causal: bool,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Sample], list[tuple[int, int]]]:
    """Measure the roles that a text shows.

    Parameters
    ----------
    cap : Capture
        Of the text, read whole.
    document : Document
        Its tokens.
    offsets : sequence of int
        The fixed offsets that are tried.
    causal : bool
        Whether a query sees no later key.
    seed : int
        What shuffled targets and halves are drawn from.
    progress : callable, optional
        Called as ``progress(done, total, "measuring roles")``.

    Returns
    -------
    samples : dict
        Name of a role -> Sample, an example a stretch of the text.
    heads : list of (layer, head)

    Raises
    ------
    DocumentError
        The text is too short.

    Notes
    -----
    At most 480 rows of each matrix are computed, whatever the text's length; memory is O(n).
    """
    length = len(document)
    asked = stretches(length)
    groups = list(_groups(asked, offsets, length))
    ids, marks = torch.tensor(document.ids), delimiters(document)
    both = marks, others_near(marks, seed)
    lines, sums, evens, heads = Tally(), Tally(), Evens(), []
    parts = range(0, asked.examples, TOGETHER)
    total = len(cap) * (1 + len(parts))

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, total, "measuring roles")

    for done, number in enumerate(cap.layers, 1):
        matrix = cap[number]
        count = matrix.shape[1]
        heads += [(number, h) for h in range(count)]
        lines.layer({**sums_of_pairs(matrix, groups), **evens.pairs(matrix, groups)}, count)
        tell(done)
    lines.close()
    for part, first in enumerate(parts, 1):
        # Sets of keys are made for a few stretches at a time: for all of them they would be large.
        here = (asked.rows_of >= first) & (asked.rows_of < first + TOGETHER)
        example, examples = asked.rows_of[here] - first, min(TOGETHER, asked.examples - first)
        sets = sets_of_text(
            ids, both, asked.rows[here], example, examples, causal=causal, seed=seed + first, matching=True
        )
        alike = Evens()
        for done, number in enumerate(cap.layers, 1):
            matrix = cap[number]
            sums.layer({**sums_of_sets(matrix, sets), **alike.sets(matrix, sets)}, matrix.shape[1])
            tell(len(cap) * part + done)
        sums.close()
    samples = {**offset_samples(lines, offsets, seed), **samples_of_sets(sums)}
    for name in ("first_token", "local"):
        samples[name] = Sample(lines[name], {EVEN: lines[even_of(name)]})
    return samples, heads


def _groups(asked: Stretches, offsets: Sequence[int], length: int) -> list[Pairs]:
    query, example = asked.lines, asked.lines_of

    def counted(kept: Tensor) -> Tensor:
        return torch.bincount(example[kept], minlength=asked.examples).double().clamp(min=1)

    groups = []
    for offset in offsets:
        kept = query - offset < length
        groups.append(Pairs(offset_of(offset), query[kept], query[kept] - offset, example[kept], counted(kept)))
    everything = torch.ones_like(query, dtype=torch.bool)
    groups.append(Pairs("first_token", query, query * 0, example, counted(everything)))
    near = [d for d in range(1 - REACH, REACH) if min(offsets) <= d]
    kept = [query - d < length for d in near]
    local_query = torch.cat([query[k] for k in kept])
    local_key = torch.cat([query[k] - d for k, d in zip(kept, near, strict=True)])
    groups.append(Pairs("local", local_query, local_key, torch.cat([example[k] for k in kept]), counted(everything)))
    return groups
