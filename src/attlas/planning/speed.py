"""How fast a model reads and writes under a plan, beside the exact model and beside what no plan could beat.

Three runs take turns, so that whatever slows the machine down slows all of them: the exact model, the plan, and the
model with attention that costs next to nothing (every query attends to the first key alone). The third says how much of
the time is attention's, and with it what a plan could gain at most: with a share s of the time, ``1 / (1 - s)`` for the
whole model (Amdahl 1967), and ``1 / f`` for the attention part where a share f of the heads stays full.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture import LanguageModel
from attlas.capture.asked import Asking, Replaced
from attlas.capture.interface import Scoring, changing
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError, complaint
from attlas.models.progress import Progress
from attlas.planning.continuing import Stepper

STEPS = 16
"""Tokens that are read one by one, as a model does when it writes."""


@dataclass(frozen=True)
class Timed:
    """Seconds of the same work, done three ways in turn; one entry a round.

    Parameters
    ----------
    exact : tuple of float
        By the model as it is.
    planned : tuple of float
        Under the plan.
    without : tuple of float
        With attention that costs next to nothing.
    """

    exact: tuple[float, ...]
    planned: tuple[float, ...]
    without: tuple[float, ...]

    @property
    def gains(self) -> tuple[float, ...]:
        """In each round, how many times as fast the plan is as the exact model."""
        return tuple(a / b for a, b in zip(self.exact, self.planned, strict=True))

    @property
    def gain(self) -> float:
        """The median of `gains`."""
        return median(self.gains)

    @property
    def attention(self) -> float:
        """The share of the exact model's time that attention takes; the median over rounds."""
        return min(1.0, max(0.0, median(1 - b / a for a, b in zip(self.exact, self.without, strict=True))))

    @property
    def ceiling(self) -> float:
        """How many times as fast the model would be if attention cost nothing."""
        return 1 / (1 - self.attention) if self.attention < 1 else math.inf

    @property
    def attention_gain(self) -> float:
        """How many times as fast the attention part is under the plan; NaN where it is too short to be measured."""
        before = median(a - c for a, c in zip(self.exact, self.without, strict=True))
        after = median(b - c for b, c in zip(self.planned, self.without, strict=True))
        return before / after if before > 0 and after > 0 else math.nan

    def ceiling_with(self, full: float) -> float:
        """Return how many times as fast the model would be if only a share `full` of its attention were left."""
        left = 1 - self.attention * (1 - full)
        return 1 / left if left > 0 else math.inf


@dataclass(frozen=True)
class Speed:
    """How fast a model is under a plan.

    Parameters
    ----------
    tokens : int
        Tokens of the text that was read at once.
    prefill : Timed
        Reading it.
    decode : Timed
        Reading one more token, with all before in a cache.
    full : float
        The share of heads that the plan leaves full.
    threads : int
        Threads that PyTorch used.
    """

    tokens: int
    prefill: Timed
    decode: Timed
    full: float
    threads: int

    @property
    def part_ceiling(self) -> float:
        """How many times as fast the attention part could be at most, with the heads that the plan leaves full."""
        return 1 / self.full if self.full else math.inf

    def rows(self) -> list[dict[str, Any]]:
        """Return what was measured as plain types: a row for reading and one for writing."""
        return [
            {
                "work": name,
                "exact_seconds": median(timed.exact),
                "plan_seconds": median(timed.planned),
                "gain": timed.gain,
                "gain_low": min(timed.gains),
                "gain_high": max(timed.gains),
                "attention_share": timed.attention,
                "ceiling": timed.ceiling,
                "ceiling_with_full_heads": timed.ceiling_with(self.full),
                "attention_gain": timed.attention_gain,
                "attention_ceiling": self.part_ceiling,
            }
            for name, timed in (("prefill", self.prefill), ("decode", self.decode))
        ]


def speed(
    lm: LanguageModel,
    applied: Callable[[], AbstractContextManager[Any]],
    ids: Sequence[int],
    *,
    full: float,
    rounds: int = 3,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Speed:
    """Time reading and writing, exact and under a plan, in turn.

    Parameters
    ----------
    lm : LanguageModel
        A model that predicts next tokens.
    applied : callable
        Returns a context inside of which the model runs by the plan.
    ids : sequence of int
        The text; its last `steps` tokens are read one by one.
    full : float
        The share of heads that the plan leaves full.
    rounds : int
        How often each way has its turn, after one that does not count; from 1.
    steps : int
        Tokens that are read one by one; from 1.
    progress : callable, optional
        Called as ``progress(done, total, "timing")``.

    Returns
    -------
    Speed

    Raises
    ------
    ArgumentError
        `rounds` or `steps` is no whole number from 1.
    DocumentError
        The text is not longer than `steps`.
    UnsupportedModelError
        The model does not attend through transformers' attention interface.

    Notes
    -----
    Times are those of this machine as it is now: on a busy one they say little, and the spread over rounds shows it.
    """
    for name, value in (("rounds", rounds), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(complaint(name, wanted="a whole number from 1", got=repr(value)))
    if len(ids) <= steps + 1:
        raise DocumentError(f"text: wanted more than {steps + 1} tokens to time reading and writing, got {len(ids)}")
    given = torch.tensor([list(ids)], device=next(lm.model.parameters()).device)
    ways: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "exact": nullcontext,
        "planned": applied,
        "without": lambda: without_attention(lm),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        # Whoever comes first may find the machine in another state than whoever follows.
        order = [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]
        for done, name in enumerate(order):
            with ways[name]():
                times = _one_turn(lm, given, steps)
            if turn:
                taken[name].append(times)
            if progress is not None:
                progress(turn * len(ways) + done + 1, (rounds + 1) * len(ways), "timing")
    prefill, decode = (
        Timed(**{name: tuple(time[i] for time in times) for name, times in taken.items()}) for i in (0, 1)
    )
    return Speed(len(ids) - steps, prefill, decode, full, torch.get_num_threads())


def _one_turn(lm: LanguageModel, ids: Tensor, steps: int) -> tuple[float, float]:
    """Read all but the last tokens at once, and these one by one; return the seconds of each."""
    stepper = Stepper(lm)
    begun = _now(ids)
    stepper.read(ids[:, :-steps])
    read = _now(ids)
    for place in range(ids.shape[1] - steps, ids.shape[1]):
        stepper.read(ids[:, place : place + 1])
    return read - begun, (_now(ids) - read) / steps


def _now(ids: Tensor) -> float:
    """Return the time when all work that was asked for is done."""
    if ids.device.type == "cuda":
        torch.cuda.synchronize(ids.device)
    return time.perf_counter()


class FirstKeyOnly:
    """Lets every query of a model attend to the first key alone, which costs next to nothing and changes no shape.

    It is told of calls by transformers' attention interface alone, without hooks on modules, whose own time would count
    as that of the model's other parts.
    """

    replaces = True  # no mask is needed

    def __init__(self, model: nn.Module) -> None:
        self.calls = 0
        self._modules = {id(module) for module in model.modules()}
        self._deaf = False

    def hears(self, module: nn.Module) -> bool:
        """Whether the call is one of the model's."""
        return not self._deaf and id(module) in self._modules

    def inside(self) -> bool:
        """Leave calls outside of the interface alone."""
        return False

    def change(self, module: nn.Module | None) -> FirstKeyOnly:
        """Change every call in the same way."""
        del module
        self.calls += 1
        return self

    def given(self, scoring: Scoring) -> Scoring:
        """Leave one key and one value."""
        value = scoring.value
        return Scoring(scoring.query, scoring.key[:, :, :1], None, None, None if value is None else value[:, :, :1])

    def instead(self, asking: Asking) -> Replaced | None:
        """Leave the call to the kernel, which has little to do."""
        del asking

    def gave(self, output: Tensor) -> Tensor:
        """Change nothing of what the kernel gave."""
        return output

    def saw_softmax(self) -> None:
        """Leave what attends outside of the interface alone."""

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Do not hear what happens inside."""
        before, self._deaf = self._deaf, True
        try:
            yield
        finally:
            self._deaf = before

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Take what happens inside like all else."""
        yield


@contextmanager
def without_attention(lm: LanguageModel) -> Iterator[None]:
    """Let the model attend at next to no cost; what it says is then worth nothing.

    Raises
    ------
    UnsupportedModelError
        On leaving: the model does not attend through transformers' attention interface.
    """
    changer = FirstKeyOnly(lm.model)
    with changing(changer):
        yield
    if not changer.calls:
        raise UnsupportedModelError(f"{lm.name}: attends without transformers' attention interface, so the share of "
                                    "time that attention takes cannot be measured; leave the speed out")  # fmt: skip
