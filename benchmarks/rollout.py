"""Rollout on a causal model, for the documentation: its geometry, and what it costs as texts grow.

``python -m benchmarks.rollout`` prints two tables; with ``--write``, it puts them into the documentation and draws the
second.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import attlas
from attlas.explain.reading import Reading, reading_of
from attlas.view.glyphs import visible
from benchmarks.explaining import dense_attention, dense_rollout, rolled_out
from benchmarks.measuring import in_turn, machine, put, seconds
from benchmarks.model import MODEL, open_demo, plain_forward

if TYPE_CHECKING:
    from torch import Tensor

IDEAS = Path("docs/ideas/explanations.md")
PAGE = Path("docs/reference/benchmarks.md")
PICTURE = Path("docs/images/rollout_cost.png")

GEOMETRY = (128, 1024, 8192)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
DENSE = 2048
"""Up to here dense rollout runs: 270 matrices of this size are 4.5 GB."""

SHOWN = 6


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each pair is run in turn (default 3)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes; the figures mean nothing")
    parser.add_argument(
        "--write", action="store_true", help=f"put the tables into {IDEAS} and {PAGE}, and draw {PICTURE}"
    )
    arguments = parser.parse_args()
    if arguments.tiny and arguments.write:
        parser.error("--write: wanted the real sizes, got --tiny")
    shares = geometry((20, 40) if arguments.tiny else GEOMETRY)
    points = costs((20, 40) if arguments.tiny else LENGTHS, arguments.rounds)
    print(shares, table(points), sep="\n\n")
    if arguments.write:
        put(IDEAS, "rollout", shares)
        put(PAGE, "rollout", f"{table(points)}\n\nMeasured with `python -m benchmarks.rollout` on {machine()}.")
        draw(points)


def geometry(lengths: tuple[int, ...]) -> str:
    """Return a table: plain rollout and its null model from the last token of the demo document's beginnings."""
    rows = [
        "| tokens | plain rollout on the first token | even attention would give it "
        "| plain rollout that its null explains | most by plain rollout | most by `rollout_null` |",
        "|--:|--:|--:|--:|---|---|",
    ]
    for length in lengths:
        lm, text = open_demo(length)
        plain, corrected = attlas.explain(lm, text, method=["rollout", "rollout_null"], budget=0)
        even = attlas.explain(lm, text, method="rollout_null", budget=0, sinks=0).notes["null"][0]
        explained = corrected.notes["explained_by_null"]
        rows.append(
            f"| {len(plain.tokens):,} | {percent(float(plain.scores[0]))} | {percent(even)} | {percent(explained)} "
            f"| {most(plain.tokens, plain.scores)} | {most(corrected.tokens, corrected.scores)} |"
        )
    return "\n".join(rows) + f"\n\n{MODEL} on the demo document's beginnings: `python -m benchmarks.rollout`."


def percent(share: float) -> str:
    """Return a share for people."""
    return f"{100 * share:.2f} %"


def most(tokens: tuple[str, ...], scores: Tensor) -> str:
    """Return the tokens with the largest scores, and where they stand."""
    best = scores.topk(SHOWN).indices.tolist()
    # Neither a bar nor a backtick can stand inside of code in a table.
    shown = [visible(tokens[i]).replace("|", "¦").replace("`", "'") for i in best]
    return ", ".join(f"`{token}` {i}" for token, i in zip(shown, best, strict=True))


@dataclass(frozen=True)
class Point:
    """What rollout costs at one length, in seconds, the attention being at hand; dense None where it does not run."""

    tokens: int
    lazy: float
    dense: float | None
    forward: float


def costs(lengths: tuple[int, ...], rounds: int) -> list[Point]:
    """Time the step from attention to rollout, lazily and densely, beside the plain forward pass."""
    points = []
    for length in lengths:
        lm, text = open_demo(length)
        captured, reading = lm.read(text), reading_of(lm, text, -1)

        def lazy(reading: Reading = reading, captured: attlas.Capture = captured) -> object:
            return rolled_out(reading, captured)

        def plain(lm: attlas.LanguageModel = lm, text: str = text) -> object:
            return plain_forward(lm, text)

        forward = in_turn(lazy, plain, rounds)
        ours, dense = forward.ours, None
        if length <= DENSE:
            held = dense_attention(lm, text)
            both = in_turn(lazy, lambda held=held: dense_rollout(held), rounds)
            ours, dense = both.ours, median(both.theirs)
            del held, both
        points.append(Point(captured[0].shape[3], median(ours), dense, median(forward.theirs)))
    return points


def table(points: list[Point]) -> str:
    """Return the costs as a Markdown table."""
    rows = [
        "| tokens | lazy rollout of one target | dense rollout | dense / lazy | lazy / forward pass | dense matrices |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for point in points:
        dense, ratio = ("–", "–") if point.dense is None else (seconds(point.dense), f"{point.dense / point.lazy:.1f}")
        size = 270 * point.tokens**2 * 4 / 1e9
        rows.append(
            f"| {point.tokens:,} | {seconds(point.lazy)} | {dense} | {ratio} | {point.lazy / point.forward:.2f} "
            f"| {size:.2g} GB |"
        )
    return "\n".join(rows)


def draw(points: list[Point]) -> None:
    """Draw the costs over the length of the text; both axes are logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=150, layout="constrained")
    tokens = [point.tokens for point in points]
    axes.plot(tokens, [point.lazy for point in points], "o-", label="lazy, one target", color="#3949ab")
    dense = [(point.tokens, point.dense) for point in points if point.dense is not None]
    axes.plot(*zip(*dense, strict=True), "s-", label="dense: products of n × n", color="#c2410c")
    if len(dense) > 1:
        (n, last), factor = dense[-1], 3
        # Products of matrices grow with n³: where it no longer runs, arithmetic takes over.
        ahead = [t for t in tokens if t >= n]
        axes.plot(
            ahead, [last * (t / n) ** factor for t in ahead], ":", color="#c2410c", label="dense, by n³ (arithmetic)"
        )
    axes.plot(tokens, [point.forward for point in points], "--", color="#6b7280", label="plain forward pass")
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="seconds", xticks=tokens)
    axes.set_xticks(tokens, [f"{t:,}" for t in tokens])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()
