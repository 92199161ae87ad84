"""The whole loop on a real model: profile and plan, what the plan loses on other texts, and how fast it is."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import attlas
from attlas import Evaluation, LanguageModel, Plan
from attlas.planning.evaluation import percent
from attlas.planning.haystacks import Grid
from attlas.planning.retrieval import Cell, Retrieval
from attlas.planning.speed import STEPS, Speed, Timed, speed
from benchmarks.explaining import random_model
from benchmarks.measuring import Row, seconds
from benchmarks.model import LONGEST, MODEL, open_demo

TRAINED = ("statistics.py", "GPL-3", "Apache-2.0")
"""What a plan is made from, beside the demo document."""

TESTED = ("typing.py", "tarfile.py", "argparse.py", "optparse.py", "MPL-2.0", "GFDL-1.3", "CC0-1.0", "Artistic")
"""What it is tested on: eight texts, so that an interval speaks of other texts like them too."""

LONG = ("typing.py", "tarfile.py")

LICENSES = Path("/usr/share/common-licenses")
INSTEAD = {
    "GPL-3": "inspect.py",
    "Apache-2.0": "subprocess.py",
    "MPL-2.0": "doctest.py",
    "GFDL-1.3": "turtle.py",
    "CC0-1.0": "unittest/mock.py",
    "Artistic": "imaplib.py",
}
"""Modules of the standard library for machines without Debian's licenses."""

NEEDLES = Grid(lengths=(1024,), depths=(0.0, 0.25, 0.5, 0.75))


@dataclass(frozen=True)
class Sizes:
    """How much is read.

    Parameters
    ----------
    trained, tested : int or None
        How many of the texts are taken; None for all.
    read : int
        Tokens of each text that a plan is made from, and that it is tested on.
    long : int
        Tokens of longer texts that it is tested on too.
    timed : tuple of int
        Tokens of the texts that are timed.
    needles : Grid
        Planted facts.
    generated : int
        Tokens that are written after each text.
    """

    trained: int | None = None
    tested: int | None = None
    read: int = 2048
    long: int = LONGEST
    timed: tuple[int, ...] = (4096, 8192)
    needles: Grid = NEEDLES
    generated: int = 64


TINY = Sizes(
    trained=0, tested=1, read=80, long=80, timed=(48,), needles=Grid(lengths=(160,), depths=(0.5,), each=1), generated=2
)
ERROR = 0.005
RECKONED = 4096
"""Of how many tokens the plan's costs are reckoned."""


def rows(rounds: int, *, tiny: bool, needles: int) -> Iterator[Row]:
    """Make a plan from some texts, and judge it by others."""
    sizes = TINY if tiny else Sizes(needles=replace(NEEDLES, each=needles))
    lm, demo = open_demo(sizes.read)
    lm = random_model(2, LONGEST) if tiny else lm
    row, plan = planned(lm, demo, sizes)
    yield row
    # What is timed comes first, while nothing else has made the machine warm.
    taken = [read_in_turn(lm, plan, length, rounds) for length in sizes.timed]
    tested = {name: ids_of(lm, name, sizes.read) for name in TESTED[: sizes.tested]}
    found = attlas.evaluate(
        lm, plan, list(tested.values()), needles=sizes.needles, generate=sizes.generated, timing=0, flips=True
    )
    yield from quality(plan, found, tuple(tested))
    longer = [ids_of(lm, name, sizes.long) for name in LONG[: sizes.tested]]
    long = attlas.evaluate(lm, plan, longer, needles=False, generate=0, timing=0, flips=False)
    yield Row(
        f"perplexity of {len(longer)} held-out texts of {sizes.long:,} tokens under the plan",
        "the exact model",
        change(long),
        "–",
        f"{percent(long.ratio)}; KL {long.texts[0].divergence:.4f} nats on the first",
    )
    for one in taken:
        yield from timed(one)


# ---- making


def planned(lm: LanguageModel, demo: str, sizes: Sizes) -> tuple[Row, Plan]:
    """Profile the texts, and choose a plan."""
    names = TRAINED[: sizes.trained]
    texts = [lm.tokenize(demo).ids, *(ids_of(lm, name, sizes.read) for name in names)]
    begun = time.perf_counter()
    profile = attlas.profile(lm, texts, length=sizes.read)
    middle = time.perf_counter()
    plan = profile.plan(error=ERROR, length=RECKONED)
    done = time.perf_counter()
    row = Row(
        f"profile of {MODEL} on {len(texts)} texts, {sum(map(len, texts)):,} tokens in all, and a plan within "
        f"{100 * ERROR:g} % of perplexity",
        "–",
        seconds(done - begun),
        "≤ 2 minutes",
        f"once; choosing the plan {seconds(done - middle)} of it; {', '.join(['the demo document', *used(names)])}",
    )
    return row, plan


def ids_of(lm: LanguageModel, name: str, tokens: int) -> list[int]:
    """Return a text's first tokens."""
    return lm.tokenize(place(name).read_text(encoding="utf-8")).ids[:tokens]


def place(name: str) -> Path:
    """Return where a text is, or what stands in for it on this machine."""
    if name not in INSTEAD:
        return Path(sysconfig.get_path("stdlib")) / name
    license_ = LICENSES / name
    return license_ if license_.exists() else Path(sysconfig.get_path("stdlib")) / INSTEAD[name]


def used(names: tuple[str, ...]) -> list[str]:
    """Return the names of the files that are really read."""
    return [place(name).name for name in names]


# ---- quality


def quality(plan: Plan, found: Evaluation, names: tuple[str, ...]) -> Iterator[Row]:
    """What the plan keeps, and what it loses on texts that it was not made from."""
    kinds = ", ".join(f"{count} × {pattern}" for pattern, count in plan.kinds.items())
    error = plan.expected.get("error")
    yield Row(
        "heads that the plan leaves full",
        f"all {found.heads}",
        f"{100 * found.full / found.heads:.0f} %",
        "≤ 50 %; 25 % is aimed for",
        f"{kinds or 'no other'}; expected by the profile: perplexity "
        f"{'beyond what was measured' if error is None else f'{100 * error.value:+.2f} %'}, "
        f"{100 * plan.expected['cost'].value:.0f} % of attention's time; "
        + (f"not routed: {'; '.join(found.stayed)}" if found.stayed else "all of it routed"),
    )
    sure = "texts like them" if found.units == "texts" else "these texts alone"
    yield Row(
        f"perplexity of {len(found.texts)} held-out texts, {found.tokens:,} tokens, under the plan",
        "the exact model",
        change(found),
        "≤ +1 %",
        f"{percent(found.ratio)}, of {sure}; worst {100 * (found.worst.ratio.value - 1):+.2f} % on "
        f"{used(names)[found.worst.text]}; {', '.join(used(names))}",
    )
    weights = [(text.tokens - 1) / sum(one.tokens - 1 for one in found.texts) for text in found.texts]
    mean, same = (
        sum(weight * getattr(text, what) for weight, text in zip(weights, found.texts, strict=True))
        for what in ("divergence", "same")
    )
    yield Row(
        "KL divergence of its predictions on them",
        "the same",
        f"{mean:.4f} nats",
        "–",
        f"95th percentile at most {max(text.divergence_p95 for text in found.texts):.4f}, worst token "
        f"{max(text.divergence_worst for text in found.texts):.2f}; the same likeliest next token {100 * same:.1f} %",
    )
    if found.retrieval is not None:
        yield needles(found.retrieval)
    written = sum(one.tokens for one in found.continued)
    agreed = sum(one.same * one.tokens for one in found.continued) / written
    parted = sorted(one.parted for one in found.continued)
    yield Row(
        "generated text: the same token at the same place",
        "the same",
        f"{100 * agreed:.0f} %",
        "–",
        f"{written:,} tokens after {len(parted)} texts; first difference after {parted[0]} to {parted[-1]} of "
        f"{found.continued[0].tokens}",
    )
    flips = found.flips
    yield Row(
        "heads that would get another pattern on the held-out texts",
        "the plan's",
        "–" if flips is None else f"{100 * flips.share:.0f} %",
        "–",
        "the plan leaves all heads full" if flips is None else f"{100 * flips.dearer:.0f} % a dearer one",
    )
    held = found.held
    yield Row(
        f"keys and values to hold after {held.tokens:,} tokens",
        f"{held.exact / 1e6:,.0f} MB",
        f"{100 * held.share:.0f} %",
        "–",
        f"{held.planned / 1e6:,.0f} MB; heads that share keys hold what any of them needs",
    )


def change(found: Evaluation) -> str:
    """Return by how much perplexity rises."""
    return f"{100 * (found.ratio.value - 1):+.2f} %"


def needles(found: Retrieval) -> Row:
    """The cell in which the plan loses most."""
    worst: Cell = max(found.cells, key=lambda cell: (cell.lost, cell.exact > 0, -cell.exact))
    counts = "; ".join(f"{cell.task}, depth {cell.depth:g}: {cell.kept} of {cell.exact}" for cell in found.cells)
    return Row(
        f"planted facts found, worst cell: {worst.task}, {worst.length:,} tokens, depth {worst.depth:g}",
        f"the exact model: {worst.exact} of {worst.asked}",
        f"{worst.kept} of them, {worst.lost:.0f} points fewer",
        "at most 2 points fewer",
        f"{counts}; those that only the plan would find are not counted",
    )


# ---- speed


def read_in_turn(lm: LanguageModel, plan: Plan, length: int, rounds: int) -> Speed:
    """Read a text by the exact model and under the plan, in turn."""
    # What is read one by one, too, has to fit into the model's positions.
    positions = lm.facts.positions or length + STEPS
    ids = ids_of(lm, LONG[0], min(length + STEPS, positions))
    return speed(lm, lambda: plan.applied(lm), ids, full=plan.expected["full"].value, rounds=rounds)


def timed(taken: Speed) -> Iterator[Row]:
    """The attention part against the ceiling that full heads leave, and what a person waits for."""
    reading = taken.prefill
    ceiling, alone = taken.part_ceiling, reading.attention_gain
    rounds = gains(reading)
    spread = f"{min(rounds):.2f}–{max(rounds):.2f} in {len(rounds)} rounds; " if rounds else ""
    left = f"{100 * taken.full:.0f} % of heads are left full"
    limit = f"{left}: a ceiling of {ceiling:.2f}, of which {100 * alone / ceiling:.0f} % is reached"
    yield Row(
        f"times as fast, attention part of reading {taken.tokens:,} tokens under the plan",
        "causal fused attention, all heads full",
        f"{alone:.2f}",
        f"≥ {0.75 * ceiling:.2f}, 75 % of the ceiling" if taken.full else "–",
        f"{spread}{limit if taken.full else left}; attention is {100 * reading.attention:.0f} % of the exact model's "
        "time",
    )
    for what, one in ((f"reading {taken.tokens:,} tokens", reading), ("the same, writing a token", taken.decode)):
        exact, plan = (sorted(times)[len(times) // 2] for times in (one.exact, one.planned))
        yield Row(
            f"times as fast, {what}, whole model",
            "the exact model",
            f"{one.gain:.2f}",
            f"≤ {one.ceiling_with(taken.full):.2f} by Amdahl's law",
            f"{min(one.gains):.2f}–{max(one.gains):.2f} in {len(one.gains)} rounds; {seconds(exact)} against "
            f"{seconds(plan)}",
        )


def gains(times: Timed) -> list[float]:
    """Return how many times as fast the attention part was in each round in which it took any time."""
    parts = zip(times.exact, times.planned, times.without, strict=True)
    return [(exact - without) / (plan - without) for exact, plan, without in parts if plan > without]
