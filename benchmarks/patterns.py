"""What patterns cost: windows against causal fused attention, and every kind's time over the length of a text."""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

from attlas import AttentionMatrix
from attlas.patterns import BigBird, BlockSparse, Dilated, Full, GlobalTokens, Pattern, SlidingWindow, VerticalSlash
from attlas.testing import no_dense
from benchmarks.measuring import HEADER, Row, in_turn, machine, megabytes, seconds

HEADS, KV_HEADS, DIM = 9, 3, 64
WINDOW = SlidingWindow(256, sinks=4)

KINDS: dict[str, Pattern] = {
    "full": Full(),
    "window 256 + 4 sinks": WINDOW,
    "256 keys, every 4th": Dilated(256, 4, sinks=4),
    "16 global tokens + window 256": GlobalTokens(tuple(range(16)), 256),
    "local + strided blocks of 64": BlockSparse(64, local=4, stride=16),
    "top 8 blocks of 64": BlockSparse(64, top=8),
    "BigBird, blocks of 64": BigBird(64, window=3, global_=1, random=3),
    "128 columns + 128 diagonals": VerticalSlash(128, 128),
}


def heads(length: int) -> tuple[AttentionMatrix, torch.Tensor]:
    """Return random heads that share keys in groups, and their values."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, length, DIM, generator=generator) for count in (HEADS, KV_HEADS, KV_HEADS)
    )
    return AttentionMatrix(query, key, causal=True), value


def windows(rounds: int, lengths: tuple[int, ...] = (4096, 8192)) -> list[Row]:
    """A sliding window with sinks against the fused kernel over everything, the keys given to it un-repeated."""
    rows = []
    for length in lengths:
        matrix, value = heads(length)

        def kernel(matrix: AttentionMatrix = matrix, value: torch.Tensor = value) -> None:
            with torch.no_grad():
                scaled_dot_product_attention(matrix.query, matrix.key, value, is_causal=True, enable_gqa=True)

        def window(matrix: AttentionMatrix = matrix, value: torch.Tensor = value) -> None:
            WINDOW.attend(matrix, value)

        ratio = in_turn(kernel, window, rounds)
        computed = [p.work(length, length, causal=True).pairs for p in (Full(), WINDOW)]
        rows.append(
            Row(
                f"times faster, window 256 + 4 sinks: {HEADS} heads, {KV_HEADS} with keys, n = {length:,}, dim {DIM}",
                "`scaled_dot_product_attention`, causal",
                ratio.reached(),
                "≥ 3.2 at 4,096, growing with n",
                f"{ratio.detail()}; {computed[0] / computed[1]:.1f} times fewer scores",
            )
        )
    return rows


def memory(length: int = 32_768) -> Row:
    """The largest tensor that a window makes on its way."""
    matrix, value = heads(length)
    answer = length * HEADS * DIM
    with no_dense(answer + 1):
        WINDOW.attend(matrix, value)
    return Row(
        f"largest tensor of the same at n = {length:,}",
        f"dense float32: {HEADS * length**2 * 4 / 1e9:.1f} GB (arithmetic)",
        megabytes(answer * 4),
        "the answer itself",
        "checked tensor by tensor",
    )


def curve(rounds: int, lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16_384, 32_768)) -> list[dict[str, object]]:
    """Time every kind at every length, kinds in turn: a record each, with what it computes.

    Returns
    -------
    list of dict
        pattern, n, seconds (the median), fastest, slowest, pairs (of one head).
    """
    records: list[dict[str, object]] = []
    for length in lengths:
        matrix, value = heads(length)
        taken: dict[str, list[float]] = {name: [] for name in KINDS}
        for turn in range(rounds + 1):
            for name, pattern in KINDS.items():
                begun = time.perf_counter()
                pattern.attend(matrix, value)
                if turn:  # the first warms up
                    taken[name].append(time.perf_counter() - begun)
        for name, pattern in KINDS.items():
            times = taken[name]
            records.append(
                {
                    "pattern": name,
                    "n": length,
                    "seconds": median(times),
                    "fastest": min(times),
                    "slowest": max(times),
                    "pairs": pattern.work(length, length, causal=True).pairs,
                }
            )
    return records


def table(records: list[dict[str, object]]) -> str:
    """Return the curve as Markdown: a row a pattern, a column a length."""
    lengths = list(dict.fromkeys(record["n"] for record in records))
    lines = ["| pattern | " + " | ".join(f"n = {n:,}" for n in lengths) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name in dict.fromkeys(record["pattern"] for record in records):
        times = [float(str(r["seconds"])) for r in records if r["pattern"] == name]
        lines.append(f"| {name} | " + " | ".join(map(seconds, times)) + " |")
    return "\n".join(lines)


def rows(rounds: int, *, tiny: bool = False) -> list[Row]:
    """Return every line of the table of benchmarks."""
    return [*windows(rounds, (300, 600) if tiny else (4096, 8192)), memory(1200 if tiny else 32_768)]


def main() -> None:
    """Print the table, and the curve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patterns", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that it runs; the figures mean nothing")
    arguments = parser.parse_args()
    print("\n".join([HEADER, *(row.markdown() for row in rows(arguments.rounds, tiny=arguments.tiny))]))
    lengths = (128, 256) if arguments.tiny else (1024, 2048, 4096, 8192, 16_384, 32_768)
    print(f"\n{table(curve(max(2, arguments.rounds // 3), lengths))}\n\nMeasured on {machine()}.")


if __name__ == "__main__":
    main()
