"""What running a pattern costs on this machine: seconds a head, predicted from the work that it counts.

The coefficients are measured: a few quick runs of the patterns themselves, in turn, so that a machine that slows down
meanwhile slows all of them, and a fit that makes no coefficient negative. A pair costs what the kernel of its kind
takes for it. What was measured stays beside the fit, run by run.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix
from attlas.patterns import Full, Pattern, Work

LENGTHS = (1024, 4096)
"""Tokens of the texts that runs are timed on: where plans begin to pay, and where attention outweighs all overhead."""

HEADS = 4
"""Heads that run together in a timed run: about as many as share a pattern in a layer."""

ROUNDS = 5

FAR = 2**30
"""Tokens after which a pattern that forgets has forgotten."""


@dataclass(frozen=True)
class Timed:
    """One pattern, run and timed.

    Parameters
    ----------
    pattern : str
        What it is.
    kind : str
        Its kind.
    n : int
        Tokens.
    work : Work
        What it counts for one head.
    seconds : float
        What one head took: the median over rounds.
    """

    pattern: str
    kind: str
    n: int
    work: Work
    seconds: float


@dataclass(frozen=True)
class CostModel:
    """Seconds a head = fixed + row · queries + pair[kind] · pairs + moved · keys moved + feature · features.

    Parameters
    ----------
    fixed : float
        Seconds of any run; none of these is negative.
    row : float
        Seconds a query.
    pair : mapping
        Kind of pattern -> seconds a pair.
    moved, feature : float
        Seconds a key that is moved, and a token's feature.
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
    row: float
    pair: Mapping[str, float]
    moved: float
    feature: float
    machine: str
    threads: int
    torch: str
    dtype: str
    dim: int
    causal: bool
    runs: tuple[Timed, ...]

    def seconds(self, kind: str, n: int, work: Work) -> float:
        """Return what one head is predicted to take for `n` queries; with the dearest pairs, if its kind is unknown."""
        pair = self.pair.get(kind, max(self.pair.values()))
        counted = pair * work.pairs + self.moved * work.moved + self.feature * work.features
        return self.fixed + self.row * n + counted

    def of(self, pattern: Pattern, n: int, *, causal: bool) -> float:
        """Return what one head is predicted to take by a pattern, for a text of `n` tokens."""
        pattern = Full() if sees_all(pattern, n) else pattern
        return self.seconds(pattern.kind, n, pattern.work(n, n, causal=causal))

    @property
    def residual(self) -> float:
        """By what share predictions of the timed runs are off: the median."""
        return median(abs(self.seconds(run.kind, run.n, run.work) / run.seconds - 1) for run in self.runs)

    def rows(self) -> list[dict[str, Any]]:
        """Return predicted and measured seconds of every timed run."""
        return [
            {
                "pattern": run.pattern,
                "n": run.n,
                "measured": run.seconds,
                "predicted": self.seconds(run.kind, run.n, run.work),
            }
            for run in self.runs
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain types that JSON can hold."""
        return {**asdict(self), "pair": dict(self.pair), "runs": [asdict(run) for run in self.runs]}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> CostModel:
        """Make it again of what `as_dict` gave."""
        runs = tuple(Timed(**{**run, "work": Work(**run["work"])}) for run in given["runs"])
        return cls(**{**given, "pair": dict(given["pair"]), "runs": runs})


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
        tasks += [(pattern, heads, value) for pattern in patterns if not sees_all(pattern, n) and pattern.fits(heads)]
    if not tasks:
        raise ArgumentError(complaint("patterns", wanted="at least one that can be timed", got="none"))
    taken: list[list[float]] = [[] for _ in tasks]
    for turn in range(rounds + 1):
        for (pattern, heads, value), seconds in zip(tasks, taken, strict=True):
            spent = _time(pattern, heads, value)
            if turn:
                seconds.append(spent / HEADS)
    runs = tuple(
        Timed(
            str(pattern), pattern.kind, heads.shape[3], pattern.work(*heads.shape[2:], causal=causal), median(seconds)
        )
        for (pattern, heads, _), seconds in zip(tasks, taken, strict=True)
    )
    fixed, row, pair, moved, feature = _fit(runs)
    return CostModel(
        fixed,
        row,
        pair,
        moved,
        feature,
        machine=_machine(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        dtype=str(dtype).removeprefix("torch."),
        dim=dim,
        causal=causal,
        runs=runs,
    )


def sees_all(pattern: Pattern, n: int) -> bool:
    """Tell whether a pattern that forgets what is far away has forgotten nothing of `n` tokens, and is exact."""
    return pattern.held(n) >= n and pattern.held(FAR) < FAR


@torch.no_grad()
def _time(pattern: Pattern, heads: AttentionMatrix, value: Tensor) -> float:
    # Moving a number waits for a device to finish.
    start = perf_counter()
    float(pattern.attend(heads, value)[0, 0, -1, -1])
    return perf_counter() - start


def _fit(runs: Sequence[Timed]) -> tuple[float, float, dict[str, float], float, float]:
    """Return the coefficients, none negative, that explain the runs best in proportion.

    So few unknowns need no algorithm: the best of all subsets of which least squares makes none negative is the
    solution of non-negative least squares (Lawson and Hanson 1974, "Solving least squares problems", chapter 23).
    """
    kinds = list(dict.fromkeys(run.kind for run in runs))
    parts = torch.tensor(
        [
            [1, run.n, *(run.work.pairs * (run.kind == kind) for kind in kinds), run.work.moved, run.work.features]
            for run in runs
        ],
        dtype=torch.float64,
    )
    weighted = parts / torch.tensor([run.seconds for run in runs], dtype=torch.float64).unsqueeze(1)
    size = weighted.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    wanted = torch.ones(len(runs), 1, dtype=torch.float64)
    best, least = parts.new_zeros(parts.shape[1]), float("inf")
    for chosen in _subsets([i for i in range(parts.shape[1]) if bool(parts[:, i].any())]):
        columns = (weighted / size)[:, chosen]
        found = torch.linalg.lstsq(columns, wanted, driver="gelsd").solution
        off = float((columns @ found - wanted).square().sum())
        if bool((found >= 0).all()) and off < least:
            best, least = torch.zeros_like(best), off
            best[chosen] = found[:, 0] / size[chosen]
    fixed, row, *pairs, moved, feature = best.tolist()
    return fixed, row, dict(zip(kinds, pairs, strict=True)), moved, feature


def _subsets(items: Sequence[int]) -> Iterator[list[int]]:
    return map(list, chain.from_iterable(combinations(items, count) for count in range(1, len(items) + 1)))


def _machine(device: torch.device | str) -> str:
    where = torch.device(device)
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
