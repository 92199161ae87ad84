"""How the cost of patterns grows with the length of a text: counted, and measured on this machine.

Full attention is the wall: twice the text, four times the work. All patterns take turns at each length, on the same
random heads, so that a machine that slows down meanwhile slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from attlas import __version__
from attlas._tables import Table
from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix
from attlas.models.progress import Progress
from attlas.patterns import (
    BigBird,
    BlockSparse,
    Dilated,
    Full,
    GlobalTokens,
    Linear,
    Pattern,
    SlidingWindow,
    VerticalSlash,
)
from attlas.results import Provenance

LENGTHS = (1024, 2048, 4096, 8192, 16384)
HEADS, KV_HEADS, DIM = 4, 2, 64


@dataclass(frozen=True)
class Point:
    """One pattern at one length.

    Parameters
    ----------
    pattern : str
        What it is.
    tokens : int
    pairs : int
        Pairs of a query and a key that one head computes.
    share : float
        The same as a share of what full attention computes.
    seconds : tuple of float
        What one head took, in each round; empty where it cannot be run at this length.
    gains : tuple of float
        How many times as fast as full attention that was, in each round.
    """

    pattern: str
    tokens: int
    pairs: int
    share: float
    seconds: tuple[float, ...]
    gains: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Scaling(Table):
    """How the cost of patterns grows with the length of a text.

    Parameters
    ----------
    points : tuple of Point
        By length, and at each by pattern; full attention is the first.
    provenance : Provenance
        How it was made.
    """

    points: tuple[Point, ...]
    provenance: Provenance

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns, full attention first."""
        return tuple(dict.fromkeys(point.pattern for point in self.points))

    def of(self, pattern: str) -> tuple[Point, ...]:
        """Return the points of one pattern at which it was run, by length."""
        return tuple(point for point in self.points if point.pattern == pattern and point.seconds)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each pattern and length, as plain types."""
        return [
            {
                "pattern": point.pattern,
                "tokens": point.tokens,
                "pairs": point.pairs,
                "share": point.share,
                "seconds": median(point.seconds) if point.seconds else None,
                "gain": median(point.gains) if point.gains else None,
                "gain_low": min(point.gains) if point.gains else None,
                "gain_high": max(point.gains) if point.gains else None,
                "ceiling": 1 / point.share,
            }
            for point in self.points
        ]


def scaling(
    patterns: Sequence[Pattern] | None = None,
    lengths: Sequence[int] = LENGTHS,
    *,
    rounds: int = 3,
    heads: int = HEADS,
    kv_heads: int = KV_HEADS,
    dim: int = DIM,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scaling:
    """Count and time patterns on causal heads of texts of several lengths.

    Parameters
    ----------
    patterns : sequence of Pattern, optional
        Which ones beside full attention; by default some of every kind.
    lengths : sequence of int
        Tokens of the texts.
    rounds : int
        How often each is timed, after one run that is not; from 1.
    heads, kv_heads, dim : int
        What the heads are: as many, sharing so many keys, so wide. Times are those of one.
    seed : int
        What they are drawn from.
    progress : callable, optional
        Called as ``progress(done, total, "timing")``.

    Returns
    -------
    Scaling

    Raises
    ------
    ArgumentError
        A length, or another argument, is no whole number from 1.

    Notes
    -----
    Full attention of 32,768 tokens takes about a second a head on two cores; memory is O(n · dim).
    """
    chosen = [one for one in patterns if not isinstance(one, Full)] if patterns is not None else variants()
    given = {"rounds": rounds, "heads": heads, "kv_heads": kv_heads, "dim": dim}
    for name, value in [*given.items(), *(("lengths", length) for length in lengths)]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(complaint(name, wanted="whole numbers from 1", got=repr(value)))
    if not lengths:
        raise ArgumentError(complaint("lengths", wanted="at least one", got="none"))
    random = torch.Generator().manual_seed(seed)
    points: list[Point] = []
    ordered = sorted(set(lengths))
    # Twice the length is up to four times the time.
    weights = [length * length for length in ordered]
    for number, length in enumerate(ordered):
        query = torch.randn(1, heads, length, dim, generator=random)
        key, value = (torch.randn(1, kv_heads, length, dim, generator=random) for _ in range(2))
        exact = AttentionMatrix(query, key, causal=True)
        runnable = [one for one in (Full(), *chosen) if one.fits(exact)]
        taken: dict[Pattern, list[float]] = {one: [] for one in runnable}
        for turn in range(rounds + 1):
            for one in runnable:
                begun = time.perf_counter()
                with torch.no_grad():
                    one.attend(exact, value)
                if turn:
                    taken[one].append((time.perf_counter() - begun) / heads)
            if progress is not None:
                done = sum(weights[:number]) + weights[number] * (turn + 1) // (rounds + 1)
                progress(done, sum(weights), "timing")
        wall, pairs = taken[Full()], Full().work(length, length, causal=True).pairs
        for one in (Full(), *chosen):
            seconds = tuple(taken.get(one, ()))
            own = one.work(length, length, causal=True).pairs
            gains = tuple(a / b for a, b in zip(wall, seconds, strict=False))
            points.append(Point(str(one), length, own, own / pairs, seconds, gains))
    settings = {
        **given, "lengths": ordered, "seed": seed, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "dtype": "float32",
    }  # fmt: skip
    return Scaling(tuple(points), Provenance(__version__, settings=settings))


def variants() -> list[Pattern]:
    """Return one or two patterns of every kind that causal heads can have, each keeping a few hundred keys a row."""
    return [
        SlidingWindow(256, sinks=4),
        SlidingWindow(1024, sinks=4),
        Dilated(256, 4, sinks=4),
        GlobalTokens((0, 1, 2, 3), 256),
        BlockSparse(64, local=4, stride=16),
        BlockSparse(64, top=8),
        BigBird(64),
        VerticalSlash(64, 64),
        Linear("elu"),
    ]
