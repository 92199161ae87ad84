"""Made-up explanations of a made-up text, for tests of pages, terminals and notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from attlas.explain.attribution import Attribution, Span
from attlas.explain.faithfulness.record import Curve, Faithfulness, Measured, Verdict
from attlas.explain.targets import Target
from attlas.results import Provenance

WORDS = "Paris is the capital of France and Berlin that of Germany.\nThe capital of France is".split(" ")
TOKENS = tuple(word if i == 0 else f" {word}" for i, word in enumerate(WORDS))
LAYERS = 4
PROVENANCE = Provenance("0", "tiny", "f00d", {"dtype": "float32"})
FRACTIONS = tuple(i / 10 for i in range(11))


def explained(
    method: str = "rollout",
    tokens: Sequence[str] = TOKENS,
    *,
    preset: str = "",
    signed: bool = False,
    verdict: Verdict | None = "more faithful than chance",
    advantage: float = 0.8,
    target: Target | None = None,
    seed: int = 0,
    by: int = 1,
    text: str | None = None,
) -> Attribution:
    """Return an explanation whose scores are drawn at random; `by` tokens make a span, `verdict` None is unmeasured."""
    generator = torch.Generator().manual_seed(seed)
    n = len(tokens)
    scores = torch.rand(n, generator=generator, dtype=torch.float64) ** 3
    if signed:
        scores = scores * (torch.rand(n, generator=generator) - 0.4).sign()
    layers = torch.rand(LAYERS, n, generator=generator, dtype=torch.float64) * scores
    spans = tuple(
        Span(start, min(start + by, n), "".join(tokens[start : start + by]).strip()) for start in range(0, n, by)
    )
    return Attribution(
        tokens=tuple(tokens),
        scores=scores,
        method=method,
        preset=preset,
        target=target or Target(n - 1, 7, name="' Paris'"),
        value=-0.7,
        spans=spans,
        span_scores=torch.stack([scores[span.start : span.stop].sum() for span in spans]),
        signed=signed,
        text="".join(tokens) if text is None else text,
        provenance=PROVENANCE,
        layers=layers,
        faithfulness=None if verdict is None else trusted(method, verdict, advantage),
        settings={"residual": 0.5, "heads": "mean"},
        notes={"first_token_share": 0.25},
    )


def trusted(
    method: str = "rollout", verdict: Verdict = "more faithful than chance", advantage: float = 0.8
) -> Faithfulness:
    """Return made-up measurements."""
    orders = {method: 1.0 + advantage, "random": 1.0, "recency": 0.7, "first_token": 0.2, "null_attention": 1.1}
    curves = tuple(
        Curve(
            kind,
            order,
            FRACTIONS,
            *(
                tuple(_falling(kind, x, speed * by) for x in FRACTIONS)
                for by in ((1.0, 1.4, 0.6) if order == "random" else (1.0,))
            ),
        )
        for kind in ("deletion", "insertion")
        for order, speed in orders.items()
    )
    measures = tuple(
        Measured(
            name,
            advantage + 1,
            {order: 1.0 for order in list(orders)[1:]},
            advantage,
            advantage - 0.3,
            advantage + 0.3,
            unit,
            p=0.025,
            chances=39,
        )
        for name, unit in (("aopc", "nats"), ("comprehensiveness", "nats"), ("lds", "correlation"))
    )
    summary = f"{verdict[:1].upper()}{verdict[1:]}: removing what it marks first costs {advantage:.2f} nats more."
    return Faithfulness(
        method, verdict, summary, measures, curves, -0.7, -9.0, 64, {"removal": "mask", "seed": 0}, PROVENANCE
    )


def _falling(kind: str, x: float, speed: float) -> float:
    at = x if kind == "deletion" else 1 - x
    return -0.7 - 8.3 * (1 - math.exp(-3 * max(speed, 0.05) * at))


def several(tokens: Sequence[str] = TOKENS, *, by: int = 1) -> list[Attribution]:
    """Return explanations of one target by four methods, of which one is more faithful than chance."""
    common = {"tokens": tokens, "by": by}
    return [
        explained("rollout", verdict="less faithful than chance", advantage=-0.6, seed=1, **common),
        explained("chefer", preset="paper", advantage=0.8, seed=2, **common),
        explained("attention_gradient", signed=True, verdict="cannot tell", advantage=0.05, seed=3, **common),
        explained("random", verdict=None, seed=4, **common),
    ]
