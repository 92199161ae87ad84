"""What patterns cost: a window against causal fused attention, and every kind's time over the length of a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

from attlas import AttentionMatrix
from attlas.patterns import Full, Pattern, SlidingWindow
from attlas.planning.scaling import Point, Scaling, scaling
from attlas.testing import no_dense
from attlas.view.scaling_picture import scaling_picture
from benchmarks.measuring import Row, Sheet, in_turn, megabytes, seconds

HEADS, KV_HEADS, DIM = 9, 3, 64
WINDOW = SlidingWindow(256, sinks=4)
LENGTHS = (1024, 2048, 4096, 8192, 16_384, 32_768)
PICTURE = Path("docs/images/patterns_cost.png")


def rows(rounds: int, *, tiny: bool) -> Iterator[Row | Sheet]:
    """Measure patterns on random heads of SmolLM2-135M's shape."""
    yield from windows(rounds, (300, 600) if tiny else (4096, 8192))
    yield memory(1200 if tiny else 32_768)
    lengths = (128, 512) if tiny else LENGTHS
    found = scaling(None, lengths, rounds=max(2, rounds // 2), heads=HEADS, kv_heads=KV_HEADS, dim=DIM)
    yield growth(found, *((128, 512) if tiny else (4096, 32_768)))
    yield Sheet("patterns:curve", table(found), {PICTURE: scaling_picture(found)})


def heads(length: int) -> tuple[AttentionMatrix, torch.Tensor]:
    """Return random heads that share keys in groups, and their values."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, length, DIM, generator=generator) for count in (HEADS, KV_HEADS, KV_HEADS)
    )
    return AttentionMatrix(query, key, causal=True), value


def windows(rounds: int, lengths: tuple[int, ...]) -> Iterator[Row]:
    """A sliding window with sinks against the fused kernel over everything, the keys given to it un-repeated."""
    for length in lengths:
        matrix, value = heads(length)

        def kernel(matrix: AttentionMatrix = matrix, value: torch.Tensor = value) -> None:
            with torch.no_grad():
                scaled_dot_product_attention(matrix.query, matrix.key, value, is_causal=True, enable_gqa=True)

        def window(matrix: AttentionMatrix = matrix, value: torch.Tensor = value) -> None:
            with torch.no_grad():
                WINDOW.attend(matrix, value)

        ratio = in_turn(kernel, window, rounds)
        computed = [pattern.work(length, length, causal=True).pairs for pattern in (Full(), WINDOW)]
        yield Row(
            f"times faster, window 256 + 4 sinks: {HEADS} heads, {KV_HEADS} with keys, n = {length:,}, dim {DIM}",
            "`scaled_dot_product_attention`, causal",
            ratio.reached(),
            "≥ 3.2 at 4,096, growing with n",
            f"{ratio.detail()}; {computed[0] / computed[1]:.1f} times fewer scores",
        )


def memory(length: int) -> Row:
    """The largest tensor that a window makes on its way."""
    matrix, value = heads(length)
    answer = length * HEADS * DIM
    with no_dense(answer + 1):
        WINDOW.attend(matrix, value)
    return Row(
        f"largest tensor of the same at n = {length:,}",
        f"dense float32: {HEADS * length**2 * 4 / 1e9:.1f} GB (arithmetic)",
        f"≤ {megabytes(answer * 4)}",
        "the answer itself",
        "checked tensor by tensor",
    )


def growth(found: Scaling, first: int, last: int) -> Row:
    """How much longer the window takes on a longer text."""
    (near, far), (near_full, far_full) = (
        [one for one in points(found, pattern) if one.tokens in (first, last)] for pattern in (WINDOW, Full())
    )
    return Row(
        f"the same window's time at n = {last:,} over that at {first:,}",
        f"full attention: {spent(far_full) / spent(near_full):.1f}",
        f"{spent(far) / spent(near):.1f}",
        f"≈ {last / first:g}: linear",
        f"{seconds(spent(far))} against {seconds(spent(near))} a head, medians of {len(far.seconds)} rounds; at "
        f"{last:,} {median(far.gains):.1f} times as fast as full attention",
    )


def points(found: Scaling, pattern: Pattern) -> tuple[Point, ...]:
    """Return a pattern's points, by length."""
    return found.of(str(pattern))


def spent(point: Point) -> float:
    """Return what a head took, in seconds."""
    return median(point.seconds)


def table(found: Scaling) -> str:
    """Return the curve as Markdown: a row a pattern, a column a length."""
    lengths = list(dict.fromkeys(point.tokens for point in found.points))
    lines = [
        "| seconds a head, and times as fast as full attention | " + " | ".join(f"n = {n:,}" for n in lengths) + " |",
        "|---|" + "--:|" * len(lengths),
    ]
    for pattern in found.patterns:
        run = {point.tokens: point for point in found.of(pattern)}
        cells = [f"{seconds(spent(run[n]))}, {median(run[n].gains):.1f}×" if n in run else "–" for n in lengths]
        lines.append(f"| {pattern} | {' | '.join(cells)} |")
    settings = found.provenance.settings
    return "\n".join(lines) + (
        f"\n\n{HEADS} causal heads, {KV_HEADS} with keys, dim {DIM}, all patterns in turn at each length, "
        f"{settings['rounds']} rounds, medians."
    )
