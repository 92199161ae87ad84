"""Questions about matrices of random queries and keys."""

from __future__ import annotations

import random
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

from attlas import AttentionMatrix
from benchmarks.measuring import Row, in_fresh_process, in_turn, megabytes, seconds

HEADS, DIM = 9, 64


def questions(rounds: int, length: int = 8192) -> list[Row]:
    """Received mass and log-sum-exp, against the fused kernel on the same numbers."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, HEADS, length, DIM, generator=generator) for _ in range(3))
    known = AttentionMatrix(query, key, causal=True)
    known.prepare()

    def kernel() -> None:
        with torch.no_grad():
            scaled_dot_product_attention(query, key, value, is_causal=True)

    def log_sum_exp() -> None:
        AttentionMatrix(query, key, causal=True).prepare()

    shape = f"{HEADS} heads, n = {length:,}, dim {DIM}, causal"
    received = in_turn(known.received, kernel, rounds)
    lse = in_turn(log_sum_exp, kernel, rounds)
    return [
        Row(
            f"`received()`, lse known: {shape}",
            "`scaled_dot_product_attention`",
            received.reached(),
            "≤ 0.75",
            received.detail(),
        ),
        Row("`lse` of the same", "the same", lse.reached(), "≤ 0.75", lse.detail()),
    ]


def tile(rounds: int, length: int = 32_768) -> Row:
    """One tile anywhere in a long matrix."""
    edge = 256
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, HEADS, length, DIM, generator=generator)
    key = torch.randn(1, 3, length, DIM, generator=generator)
    # Which numbers the log-sum-exp holds does not change what a tile costs.
    matrix = AttentionMatrix(query, key, causal=True).with_lse(torch.full((1, HEADS, length), 10.9))
    places = random.Random(0)  # noqa: S311 - places to look at, not secrets
    taken = []
    for _ in range(40 * rounds):
        top, left = places.randrange(length - edge), places.randrange(length - edge)
        begun = time.perf_counter()
        _ = matrix[0, places.randrange(HEADS), top : top + edge, left : left + edge]
        taken.append(time.perf_counter() - begun)
    taken = sorted(taken[rounds:])
    middle, late = taken[len(taken) // 2], taken[int(len(taken) * 0.95)]
    return Row(
        f"one {edge}² tile anywhere at n = {length:,}, lse known",
        "–",
        seconds(middle),
        "≤ 10 ms",
        f"95 % within {seconds(late)}",
    )


def long_head(length: int = 131_072) -> Row:
    """A single head that is far too long to be dense, in a process of its own."""
    took, peak = in_fresh_process("long_head", str(length))
    return Row(
        f"`received` and top-8 of one head at n = {length:,}, in one pass",
        f"dense float32: {length**2 * 4 / 1e9:.1f} GB (arithmetic)",
        seconds(float(took)),
        "runs, < 4 GB",
        f"peak memory of the whole process {megabytes(float(peak))}",
    )
