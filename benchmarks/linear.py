"""Linear attention on a real model: what fitted feature maps are worth, what it costs as texts grow, and perplexity."""

from __future__ import annotations

import io
import math
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import attlas
from attlas import LanguageModel
from attlas.capture.asking import next_token_losses
from attlas.patterns import Favor, Fitted, Linear, Pattern, fit_features
from attlas.patterns.fitting_rows import FittedText
from attlas.planning import Plan
from benchmarks.measuring import Row, Sheet, in_turn, seconds
from benchmarks.model import MODEL

PICTURE = Path("docs/images/linear_cost.png")

TRAINED = ("argparse.py", "statistics.py")
TESTED = ("typing.py", "tarfile.py")
"""Modules of Python's standard library; none is both."""

NEAR = ((0, 0), (64, 4))
"""Windows and sinks beside the maps."""

HEADS, KV_HEADS, DIM = 9, 3, 64
LENGTHS = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
FUSED = 32_768
"""Up to here the exact kernel runs beside: it takes four times as long for each doubling."""

NAMES = {"elu": "elu + 1", "favor": "FAVOR+", "start": "learned, before fitting", "fitted": "learned, fitted"}


def rows(rounds: int, *, tiny: bool) -> Iterator[Row | Sheet]:
    """Measure errors and perplexity on the real model, and time on random heads."""
    lm = attlas.load(MODEL)
    yield from errors(lm, Sizes(tokens=96, steps=2, tested=4, features=8, layers=2) if tiny else Sizes())
    points = costs((64, 128) if tiny else LENGTHS, rounds)
    yield growth(points)
    yield Sheet("linear:cost", cost_table(points), {PICTURE: drawn(points)})


# ---- errors, and perplexity


@dataclass(frozen=True)
class Sizes:
    """How much is read and fitted."""

    tokens: int = 2048
    steps: int = 100
    tested: int = 64
    features: int = 128
    layers: int | None = None


@dataclass(frozen=True)
class Head:
    """One head's maps, its errors on texts that they were not fitted to, and its error on those that they were."""

    layer: int
    head: int
    fitted: float
    patterns: dict[str, Pattern]
    variation: dict[str, float]
    output: dict[str, float]


def errors(lm: LanguageModel, sizes: Sizes) -> Iterator[Row | Sheet]:
    """Fit maps to all heads, and measure their errors, and the perplexity that they leave."""
    trained, tested = ([ids_of(lm, name, sizes.tokens) for name in names] for names in (TRAINED, TESTED))
    found, taken = {}, {}
    for window, sinks in NEAR:
        begun = time.perf_counter()
        found[window, sinks] = fitted_heads(lm, trained, tested, window, sinks, sizes)
        taken[window, sinks] = time.perf_counter() - begun
        yield error_row(found[window, sinks], beside(window, sinks))
    yield Sheet("linear:errors", error_table(found, taken, sizes))
    exact = loss_of(lm, Plan.exact(lm), tested)
    losses = {near: best_third(lm, heads, tested) for near, heads in found.items()}
    for near, those in losses.items():
        yield Row(
            f"perplexity, best third of heads linear with fitted maps, {beside(*near)}",
            f"the same with elu + 1: {rise(those['elu'], exact)}; FAVOR+: {rise(those['favor'], exact)}",
            rise(those["fitted"], exact),
            "–",
            f"{math.exp(those['fitted']):.3f} against {math.exp(exact):.3f} exact, on {' and '.join(TESTED)}",
        )
    yield Sheet("linear:perplexity", perplexity_table(losses, exact))


def beside(window: int, sinks: int) -> str:
    """Say what is exact beside the maps."""
    return f"window {window} and {sinks} sinks beside them" if window else "nothing beside them"


def rise(loss: float, exact: float) -> str:
    """Return by how much perplexity rises."""
    return f"{100 * (math.exp(loss - exact) - 1):+.1f} %"


def ids_of(lm: LanguageModel, module: str, tokens: int) -> list[int]:
    """Return the first tokens of a module of the standard library."""
    text = (Path(sysconfig.get_path("stdlib")) / module).read_text(encoding="utf-8")
    return lm.tokenize(text).ids[:tokens]


def captured(lm: LanguageModel, ids: list[int]) -> attlas.Capture:
    """Read tokens with their values."""
    with attlas.capture(lm.model, values=True) as capture, torch.no_grad():
        lm.model(torch.tensor([ids]), use_cache=False, logits_to_keep=1)
    return capture


def fitted_heads(
    lm: LanguageModel, trained: list[list[int]], tested: list[list[int]], window: int, sinks: int, sizes: Sizes
) -> list[Head]:
    """Fit maps to every layer on some texts, and measure them on others."""
    learning, testing = ([captured(lm, ids) for ids in texts] for texts in (trained, tested))
    heads = []
    for layer in range(len(learning[0]) if sizes.layers is None else sizes.layers):
        matrices, values = ([one[layer] for one in learning], [one.values(layer) for one in learning])
        options = {"features": sizes.features, "window": window, "sinks": sinks, "tested": sizes.tested}
        fitted = fit_features(matrices, values, steps=sizes.steps, **options)
        start = fit_features(matrices, values, steps=0, **options)
        texts = [
            FittedText(one[layer], one.values(layer), fitted.pattern, sizes.tested, torch.Generator().manual_seed(1))
            for one in testing
        ]
        heads += measured_heads(layer, fitted, start, texts, sizes)
    return heads


def measured_heads(
    layer: int, fitted: Fitted, start: Fitted, texts: Sequence[FittedText], sizes: Sizes
) -> Iterator[Head]:
    """Measure a layer's maps on texts."""
    window, sinks = fitted.window, fitted.sinks
    patterns = {
        "elu": Linear("elu", window, sinks),
        "favor": Linear(Favor(sizes.features), window, sinks),
        "start": start.pattern,
        "fitted": fitted.pattern,
    }
    variation, output = {}, {}
    for name, pattern in patterns.items():
        found = [text.errors(pattern) for text in texts]
        variation[name] = torch.cat([one.variation for one in found], 1).mean(1)
        missed, size = (sum_of([getattr(one, part) for one in found]) for part in ("missed", "size"))
        output[name] = (missed / size).sqrt()
    for head in range(fitted.map.heads):
        yield Head(
            layer,
            head,
            float(fitted.output["fitted"][head]),
            {name: pattern.narrow(slice(head, head + 1)) for name, pattern in patterns.items()},
            {name: float(one[head]) for name, one in variation.items()},
            {name: float(one[head]) for name, one in output.items()},
        )


def sum_of(parts: list[Tensor]) -> Tensor:
    """Add up tensors."""
    return torch.stack(parts).sum(0)


def error_row(heads: list[Head], near: str) -> Row:
    """Return what fitting is worth, in a line."""
    mean = {name: sum(head.variation[name] for head in heads) / len(heads) for name in NAMES}
    better = sum(head.variation["fitted"] < min(head.variation[name] for name in ("elu", "favor")) for head in heads)
    return Row(
        f"total variation of a row, fitted maps, {near}: mean over {len(heads)} heads",
        "; ".join(f"{NAMES[name]}: {mean[name]:.3f}" for name in ("elu", "favor", "start")),
        f"{mean['fitted']:.3f}",
        "below all of them",
        f"{better} of {len(heads)} heads better than by both elu + 1 and FAVOR+",
    )


def error_table(found: dict[tuple[int, int], list[Head]], taken: dict[tuple[int, int], float], sizes: Sizes) -> str:
    """Return the errors on held-out texts as a Markdown table."""
    lines = [
        "| exact beside it | feature map | total variation of a row: mean | median head | best third | worst head "
        "| relative error of the output: median head | best third |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (window, sinks), heads in found.items():
        exactly = f"window {window}, {sinks} sinks" if window else "nothing"
        for name, title in NAMES.items():
            variation = sorted(head.variation[name] for head in heads)
            output = sorted(head.output[name] for head in heads)
            third = max(1, len(heads) // 3)
            lines.append(
                f"| {exactly} | {title} | {sum(variation) / len(heads):.3f} | {median(variation):.3f} "
                f"| {sum(variation[:third]) / third:.3f} | {variation[-1]:.3f} | {median(output):.3f} "
                f"| {sum(output[:third]) / third:.3f} |"
            )
    layers = len({head.layer for heads in found.values() for head in heads})
    rate = ", ".join(f"{seconds(spent / layers)} with window {window}" for (window, _), spent in taken.items())
    trained, tested = " and ".join(TRAINED), " and ".join(TESTED)
    return "\n".join(lines) + (
        f"\n\n{MODEL}, {sizes.features} features, fitted in at most {sizes.steps} steps to {sizes.tokens:,} tokens "
        f"each of {trained}, measured on {tested}; fitting and measuring took, for each layer of {HEADS} heads, {rate}."
    )


def best_third(lm: LanguageModel, heads: list[Head], tested: list[list[int]]) -> dict[str, float]:
    """Return the loss with those heads made linear that could be fitted best, by each kind of map."""
    best = sorted(heads, key=lambda head: head.fitted)[: max(1, len(heads) // 3)]
    return {
        name: loss_of(lm, Plan.of(lm, {(head.layer, head.head): head.patterns[name] for head in best}), tested)
        for name in ("elu", "favor", "fitted")
    }


def perplexity_table(losses: dict[tuple[int, int], dict[str, float]], exact: float) -> str:
    """Return the perplexity of held-out texts with the best third of heads made linear, as a Markdown table."""
    lines = [
        "| the third of heads that could be fitted best, as | perplexity | against exact |",
        "|---|--:|--:|",
        f"| exact attention | {math.exp(exact):.3f} | – |",
    ]
    lines += [
        f"| {NAMES[name]}, {beside(*near)} | {math.exp(loss):.3f} | {rise(loss, exact)} |"
        for near, those in losses.items()
        for name, loss in those.items()
    ]
    return "\n".join(lines)


def loss_of(lm: LanguageModel, plan: Plan, texts: list[list[int]]) -> float:
    """Return the mean next-token loss under a plan, in nats."""
    losses = []
    for ids in texts:
        tokens = torch.tensor(ids)
        with plan.applied(lm) as applied, torch.no_grad():
            losses.append(next_token_losses(lm.model(tokens[None], use_cache=False).logits[0], tokens))
        if applied.exact or applied.left:
            raise RuntimeError(f"not all heads were routed: {applied}")
    return float(torch.cat(losses).mean())


# ---- cost


@dataclass(frozen=True)
class Point:
    """What attention of nine heads costs at one length, in seconds; None where it does not run."""

    tokens: int
    alone: float
    beside: float
    exact: float | None


def costs(lengths: tuple[int, ...], rounds: int) -> list[Point]:
    """Time linear attention, alone and with a window, beside PyTorch's causal fused attention."""
    generator = torch.Generator().manual_seed(0)
    points = []
    for length in lengths:
        query = torch.randn(1, HEADS, length, DIM, generator=generator)
        key, value = (torch.randn(1, KV_HEADS, length, DIM, generator=generator) for _ in range(2))
        matrix = attlas.AttentionMatrix(query, key, causal=True)
        alone, beside = Linear(Favor(128)), Linear(Favor(128), window=64, sinks=4)

        def run(pattern: Linear, matrix: attlas.AttentionMatrix = matrix, value: Tensor = value) -> None:
            with torch.no_grad():
                pattern.attend(matrix, value)

        def fused(query: Tensor = query, key: Tensor = key, value: Tensor = value) -> None:
            with torch.no_grad():
                scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

        both = in_turn(lambda run=run, alone=alone: run(alone), lambda run=run, beside=beside: run(beside), rounds)
        exact = None
        if length <= FUSED:
            exact = median(in_turn(lambda run=run, alone=alone: run(alone), fused, rounds).theirs)
        points.append(Point(length, median(both.ours), median(both.theirs), exact))
    return points


def cost_table(points: list[Point]) -> str:
    """Return the costs as a Markdown table."""
    lines = [
        "| tokens | linear | per 1,000 tokens | with window 64 and 4 sinks | causal fused attention | fused / linear |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for point in points:
        exact, ratio = ("–", "–") if point.exact is None else (seconds(point.exact), f"{point.exact / point.alone:.2f}")
        lines.append(
            f"| {point.tokens:,} | {seconds(point.alone)} | {seconds(point.alone / point.tokens * 1000)} "
            f"| {seconds(point.beside)} | {exact} | {ratio} |"
        )
    return "\n".join(lines) + f"\n\n{HEADS} heads, {KV_HEADS} key heads, dim {DIM}, 128 features."


def growth(points: list[Point]) -> Row:
    """How much longer it takes on a longer text."""
    near, far = points[-4 if len(points) > 3 else 0], points[-1]
    with_kernel = [point for point in points if point.exact is not None]
    last, exact = with_kernel[-1], with_kernel[-1].exact or math.nan
    return Row(
        f"linear attention's time at n = {far.tokens:,} over that at {near.tokens:,}",
        f"causal fused attention by its n²: {(far.tokens / near.tokens) ** 2:g} (arithmetic)",
        f"{far.alone / near.alone:.1f}",
        f"≈ {far.tokens / near.tokens:g}: linear",
        f"{seconds(far.alone)} against {seconds(near.alone)}; with a window beside it {far.beside / near.beside:.1f}; "
        f"{exact / last.alone:.1f} times as fast as causal fused attention at {last.tokens:,}",
    )


def drawn(points: list[Point]) -> bytes:
    """Draw the costs over the length of the text, as PNG; both axes are logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=150, layout="constrained")
    tokens = [point.tokens for point in points]
    axes.plot(tokens, [point.alone for point in points], "o-", label="linear, 128 features", color="#3949ab")
    axes.plot(tokens, [point.beside for point in points], "^-", label="with window 64, 4 sinks", color="#00838f")
    exact = [(point.tokens, point.exact) for point in points if point.exact is not None]
    axes.plot(*zip(*exact, strict=True), "s-", label="causal fused attention", color="#c2410c")
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="seconds")
    axes.set_xticks(tokens, [f"{t:,}" for t in tokens])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    pyplot.close(figure)
    return file.getvalue()
