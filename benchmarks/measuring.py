"""Measuring in turn, so that what slows down the machine slows both: ours, theirs, ours …; and writing it down."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    against: str
    reached: str
    target: str
    detail: str

    def markdown(self) -> str:
        """Return the line as Markdown."""
        return f"| {self.what} | {self.against} | **{self.reached}** | {self.target} | {self.detail} |"


@dataclass(frozen=True)
class Sheet:
    """A table of a form of its own.

    Parameters
    ----------
    name : str
        The marks between which a page shows it.
    text : str
        The table, in Markdown.
    pictures : mapping
        Where each picture of it goes -> its bytes.
    """

    name: str
    text: str
    pictures: Mapping[Path, bytes] = field(default_factory=dict)


HEADER = "| what | against, in the same run | reached | aim | detail |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Ratio:
    """Seconds of two things that were run in turn."""

    ours: list[float]
    theirs: list[float]

    @property
    def values(self) -> list[float]:
        """The ratio of each round."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    def reached(self, digits: int = 2) -> str:
        """Return the median ratio."""
        return f"{median(self.values):.{digits}f}"

    def detail(self) -> str:
        """Return the spread of the ratios, and the median times."""
        low, high = min(self.values), max(self.values)
        return (
            f"{low:.2f}–{high:.2f} in {len(self.values)} rounds; {seconds(median(self.ours))} against "
            f"{seconds(median(self.theirs))}"
        )


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, warm_up: int = 1) -> Ratio:
    """Time two things in turn; which one goes first changes from round to round."""
    for _ in range(warm_up):
        ours()
        theirs()
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(rounds):
        pair = [("ours", ours), ("theirs", theirs)]
        for name, run in pair if turn % 2 == 0 else pair[::-1]:
            begun = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - begun)
    return Ratio(taken["ours"], taken["theirs"])


def seconds(value: float) -> str:
    """Return a time for people."""
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def megabytes(count: float) -> str:
    """Return a size for people."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:.2g} MB"


def in_fresh_process(task: str, *arguments: str) -> list[str]:
    """Run ``python -m benchmarks.tasks TASK …`` and return the words of its last line."""
    command = [sys.executable, "-m", "benchmarks.tasks", task, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[2:])} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1].split()


def put(page: Path, name: str, text: str) -> None:
    """Put a text between the marks on a page that bear its name, ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = page.read_text(encoding="utf-8")
    if begin not in old or end not in old:
        raise ValueError(f"{page}: wanted the marks {begin} and {end}, got a page without them")
    new = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", old, flags=re.DOTALL)
    page.write_text(new, encoding="utf-8")


def machine() -> str:
    """Describe the machine in one line."""
    import os

    import torch
    import transformers

    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return (
        f"{model}, {os.cpu_count()} cores ({torch.get_num_threads()} threads), {platform.system()}, float32, "
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    )
