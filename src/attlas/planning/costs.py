"""What running a pattern costs on this machine: seconds a head, predicted from the work that it counts.

The coefficients are measured: a few quick runs of the patterns themselves, in turn, so that a machine that slows down
meanwhile slows all of them, and a fit that makes no coefficient negative. What the fit does not explain is kept beside
it, kind by kind.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix
from attlas.patterns import Pattern, Work

LENGTHS = (512, 2048)
"""Tokens of the texts that runs are timed on."""

HEADS = 4
"""Heads that run together in a timed run: about as many as share a pattern in a layer."""

ROUNDS = 5

TERMS = ("fixed", "pair", "moved", "feature")
"""What a head's time is made of: something for each run, and for each unit of `Work`."""


@dataclass(frozen=True)
class Timed:
    """One pattern, run and timed.

    Parameters
    ----------
    pattern : str
        What it is.
    n : int
        Tokens.
    work : Work
        What it counts for one head.
    seconds : float
        What one head took: the median over rounds.
    """

    pattern: str
    n: int
    work: Work
    seconds: float


@dataclass(frozen=True)
class CostModel:
    """Seconds a head = fixed + pair · pairs + moved · keys moved + feature · features.

    Parameters
    ----------
    fixed, pair, moved, feature : float
        Seconds, none negative.
    machine : str
        Where they were measured.
    threads : int
        How many.
    torch : str
        The version of PyTorch.
    dtype : str
        Of queries, keys and values.
    dim : int
        The heads' width.
    causal : bool
        Whether the heads were causal.
    runs : tuple of Timed
        What they were fitted to.
    """

    fixed: float
    pair: float
    moved: float
    feature: float
    machine: str
    threads: int
    torch: str
    dtype: str
    dim: int
    causal: bool
    runs: tuple[Timed, ...]

    def seconds(self, work: Work) -> float:
        """Return what one head is predicted to take."""
        return self.fixed + self.pair * work.pairs + self.moved * work.moved + self.feature * work.features

    @property
    def residual(self) -> float:
        """By what share predictions of the timed runs are off: the median."""
        return median(abs(self.seconds(run.work) / run.seconds - 1) for run in self.runs)

    def rows(self) -> list[dict[str, Any]]:
        """Return predicted and measured seconds of every timed run."""
        return [
            {"pattern": run.pattern, "n": run.n, "measured": run.seconds, "predicted": self.seconds(run.work)}
            for run in self.runs
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain types that JSON can hold."""
        return {
            **{name: getattr(self, name) for name in (*TERMS, "machine", "threads", "torch", "dtype", "dim", "causal")},
            "runs": [
                {
                    "pattern": run.pattern,
                    "n": run.n,
                    "pairs": run.work.pairs,
                    "moved": run.work.moved,
                    "features": run.work.features,
                    "seconds": run.seconds,
                }
                for run in self.runs
            ],
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> CostModel:
        """Make it again of what `as_dict` gave."""
        fields = dict(given)
        runs = tuple(
            Timed(run["pattern"], run["n"], Work(run["pairs"], run["moved"], run["features"]), run["seconds"])
            for run in fields.pop("runs")
        )
        return cls(**fields, runs=runs)


def measure_costs(
    patterns: Sequence[Pattern],
    dim: int,
    *,
    causal: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    lengths: Sequence[int] = LENGTHS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> CostModel:
    """Time patterns on random heads, and fit what their work costs.

    Parameters
    ----------
    patterns : sequence of Pattern
        What to time; those that cannot stand in for such heads are left out.
    dim : int
        The heads' width.
    causal : bool
        Whether they see no later keys.
    dtype : torch.dtype
        Of queries, keys and values.
    device : torch.device or str
        Where.
    lengths : sequence of int
        Tokens of the texts.
    rounds : int
        How often each is timed, after one run that is not.
    seed : int
        What heads are drawn from.

    Returns
    -------
    CostModel

    Raises
    ------
    ArgumentError
        No pattern can be timed.

    Notes
    -----
    The fit minimises squared relative errors, so that short runs count as much as long ones.
    """
    random = torch.Generator().manual_seed(seed)
    tasks = []
    for n in lengths:
        query, key, value = (torch.randn(1, HEADS, n, dim, generator=random).to(device, dtype) for _ in range(3))
        heads = AttentionMatrix(query, key, causal=causal)
        tasks += [(pattern, heads, value) for pattern in patterns if _fits(pattern, heads)]
    if not tasks:
        raise ArgumentError(complaint("patterns", wanted="at least one that can be timed", got="none"))
    taken: list[list[float]] = [[] for _ in tasks]
    for turn in range(rounds + 1):
        for (pattern, heads, value), seconds in zip(tasks, taken, strict=True):
            spent = _time(pattern, heads, value)
            if turn:
                seconds.append(spent / HEADS)
    runs = tuple(
        Timed(label(pattern), heads.shape[3], pattern.work(*heads.shape[2:], causal=causal), median(seconds))
        for (pattern, heads, _), seconds in zip(tasks, taken, strict=True)
    )
    return CostModel(
        *_fit(runs),
        machine=_machine(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        dtype=str(dtype).removeprefix("torch."),
        dim=dim,
        causal=causal,
        runs=runs,
    )


def label(pattern: Pattern) -> str:
    """Return what people call a pattern: its kind and its settings, on one line."""
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in pattern.settings().items())
    kind = pattern.kind.replace("_", " ")
    return f"{kind}: {settings}" if settings else kind


def _fits(pattern: Pattern, heads: AttentionMatrix) -> bool:
    try:
        pattern.check(heads)
    except ArgumentError:
        return False
    return True


@torch.no_grad()
def _time(pattern: Pattern, heads: AttentionMatrix, value: Tensor) -> float:
    # Moving a number waits for a device to finish.
    start = perf_counter()
    float(pattern.attend(heads, value)[0, 0, -1, -1])
    return perf_counter() - start


def _fit(runs: Sequence[Timed]) -> list[float]:
    """Return the coefficients, none negative, that explain the runs best in proportion.

    So few unknowns need no algorithm: the best of all subsets of which least squares makes none negative is the
    solution of non-negative least squares (Lawson and Hanson 1974, "Solving least squares problems", chapter 23).
    """
    parts = torch.tensor([[1, r.work.pairs, r.work.moved, r.work.features] for r in runs], dtype=torch.float64)
    weighted = parts / torch.tensor([run.seconds for run in runs], dtype=torch.float64).unsqueeze(1)
    size = weighted.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    wanted = torch.ones(len(runs), dtype=torch.float64)
    best, least = torch.zeros(len(TERMS), dtype=torch.float64), float("inf")
    for chosen in _subsets([i for i in range(len(TERMS)) if bool(parts[:, i].any())]):
        columns = (weighted / size)[:, chosen]
        found = torch.linalg.lstsq(columns, wanted.unsqueeze(1), driver="gelsd").solution[:, 0]
        off = float((columns @ found - wanted).square().sum())
        if bool((found >= 0).all()) and off < least:
            best, least = torch.zeros_like(best), off
            best[chosen] = found / size[chosen]
    return best.tolist()


def _subsets(items: Sequence[int]) -> Iterator[list[int]]:
    return map(list, chain.from_iterable(combinations(items, count) for count in range(1, len(items) + 1)))


def _machine(device: torch.device | str) -> str:
    where = torch.device(device)
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
