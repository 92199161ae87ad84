"""What it costs to explain an answer on a long document, against the model's own passes and against dense matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

import torch

import attlas
from attlas.capture.walking import walk_capture
from attlas.explain.attention_walks import Rollout
from attlas.explain.reading import Reading, reading_of
from attlas.explain.walk import walk
from benchmarks.measuring import Ratio, Row, in_fresh_process, in_turn, megabytes, seconds
from benchmarks.model import LONGEST, MODEL, open_demo, plain_forward

if TYPE_CHECKING:
    from torch import Tensor

    from attlas import LanguageModel

DENSE = 2048
"""Tokens at which dense rollout still runs: 270 matrices of float32 are 4.5 GB there."""

FAR = 32_768

METHODS = {"rollout": 1, "chefer": 2}
"""Whose memory is measured, and from which layer on each further one takes the same."""


def rows(rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Measure explanations of the demo document's next token."""
    yield from whole_document(rounds, 40 if tiny else LONGEST)
    # Each figure of memory is a process of its own: at tiny sizes, one method shows that all of it runs.
    methods = [*METHODS][: 1 if tiny else None]
    yield from extra_memory(40 if tiny else LONGEST, methods)
    yield from against_dense(rounds, 40 if tiny else DENSE, runs=1 if tiny else 3)
    yield from far(300 if tiny else FAR, methods, most=2 if tiny else 4)


# ---- the demo document


def whole_document(rounds: int, length: int) -> Iterator[Row]:
    """Rollout against a forward pass, and gradient-weighted attention against a forward and a backward pass."""
    lm, text = open_demo(length)
    tokens = len(lm.tokenize(text))
    forward = f"the model's plain forward pass ({MODEL}, {tokens:,} tokens)"
    walked = walking(lm, text, rounds)
    yield Row("rollout for one target, the text being read", forward, walked.reached(), "≤ 1.00", walked.detail())
    whole = in_turn(lambda: explained(lm, text, "rollout"), lambda: plain_forward(lm, text), rounds, warm_up=0)
    yield Row("`attlas.explain`, rollout, reading included", "the same", whole.reached(), "–", whole.detail())
    both = in_turn(lambda: explained(lm, text, "chefer"), lambda: plain_backward(lm, text), rounds, warm_up=0)
    backward = "the model's plain forward and backward pass, without checkpoints"
    yield Row(
        "`attlas.explain`, gradient-weighted attention, all included", backward, both.reached(), "≤ 2.50", both.detail()
    )


def walking(lm: LanguageModel, text: str, rounds: int) -> Ratio:
    """Rollout of a capture, against the plain forward pass."""
    captured, reading = lm.read(text), reading_of(lm, text, -1)
    return in_turn(lambda: rolled_out(reading, captured), lambda: plain_forward(lm, text), rounds, warm_up=0)


def explained(lm: LanguageModel, text: str, method: str) -> attlas.Attribution:
    """Explain the model's own prediction of what comes next."""
    return attlas.explain(lm, text, method=method, target=-1, budget=0)


def rolled_out(reading: Reading, captured: attlas.Capture) -> Tensor:
    """Roll the last token's attention out, on matrices that were captured."""
    return walk(reading, [Rollout()], walk_capture(captured))[0].scores[0]


def plain_backward(lm: LanguageModel, text: str) -> Tensor:
    """Take the gradient of the top prediction with respect to the embeddings, as PyTorch does by itself."""
    ids = torch.tensor([lm.tokenize(text).ids])
    embeddings = lm.model.get_input_embeddings()(ids).detach().requires_grad_()
    output = lm.model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1)
    return torch.autograd.grad(output.logits[0, -1].log_softmax(-1).max(), embeddings)[0]


def extra_memory(length: int, methods: Sequence[str]) -> Iterator[Row]:
    """Peak memory of explaining, beyond that of the forward pass alone."""
    tokens, plain = in_fresh_process("explaining", "none", str(length))
    dense = 270 * int(tokens) ** 2 * 4
    for method in methods:
        _, whole = in_fresh_process("explaining", method, str(length))
        extra = float(whole) - float(plain)
        yield Row(
            f"extra memory of `{method}`, {int(tokens):,} tokens",
            f"270 dense float32 matrices: {dense / 1e9:.1f} GB (arithmetic)",
            megabytes(extra),
            "≤ 1,500 MB",
            f"beyond the forward pass alone (peak of the whole process {megabytes(float(whole))})",
        )


# ---- against dense rollout


def against_dense(rounds: int, length: int, *, runs: int) -> Iterator[Row]:
    """The step from captured attention to a rollout, lazily and with dense matrices."""
    lm, text = open_demo(length)
    ratio, apart = step(lm, text, rounds)
    tokens = len(lm.tokenize(text))
    yield Row(
        f"rollout step, {tokens:,} tokens",
        "dense rollout: head means, ½A + ½I, 29 products of n × n",
        f"1/{1 / float(ratio.reached(4)):.0f}",
        "≤ 1/10",
        f"{ratio.detail()}; largest difference of a score {apart:.0e}",
    )
    taken, peaks = _whole_runs(runs, length)
    beyond = {way: taken[way] - taken["none"] for way in ("lazy", "dense")}
    extra = {way: peaks[way] - peaks["none"] for way in ("lazy", "dense")}
    yield Row(
        f"reading and rollout, {tokens:,} tokens: time beyond the forward pass",
        "the same with `output_attentions=True`",
        f"1/{beyond['dense'] / max(beyond['lazy'], 1e-9):.1f}",
        "≤ 1/10",
        f"{seconds(beyond['lazy'])} against {seconds(beyond['dense'])}; in all {seconds(taken['lazy'])} against "
        f"{seconds(taken['dense'])}; medians of {runs} fresh processes",
    )
    yield Row(
        f"reading and rollout, {tokens:,} tokens: memory beyond the forward pass",
        f"the same with `output_attentions=True`: {megabytes(extra['dense'])}",
        f"1/{extra['dense'] / max(extra['lazy'], 1.0):.0f}",
        "≤ 1/20",
        f"{megabytes(extra['lazy'])}; medians of {runs} fresh processes",
    )


def _whole_runs(runs: int, length: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds and peak memory of reading alone, with lazy and with dense rollout; medians of fresh processes."""
    found: dict[str, list[tuple[float, float]]] = {"none": [], "lazy": [], "dense": []}
    for _ in range(runs):
        for way, those in found.items():
            took, _, peak = in_fresh_process("dense_rollout", way, str(length))
            those.append((float(took), float(peak)))
    medians = {way: [median(column) for column in zip(*those, strict=True)] for way, those in found.items()}
    return {way: took for way, (took, _) in medians.items()}, {way: peak for way, (_, peak) in medians.items()}


def step(lm: LanguageModel, text: str, rounds: int) -> tuple[Ratio, float]:
    """Time the step from attention to rollout both ways, and say how far their scores are apart."""
    captured, reading, dense = lm.read(text), reading_of(lm, text, -1), dense_attention(lm, text)
    apart = float((rolled_out(reading, captured) - dense_rollout(dense)[-1]).abs().max())
    return in_turn(lambda: rolled_out(reading, captured), lambda: dense_rollout(dense), rounds), apart


def dense_attention(lm: LanguageModel, text: str) -> list[Tensor]:
    """Return every layer's dense matrix, (head, n, n), the usual way."""
    lm.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            ids = torch.tensor([lm.tokenize(text).ids])
            output = lm.model(ids, use_cache=False, logits_to_keep=1, output_attentions=True)
            return [layer[0] for layer in output.attentions]
    finally:
        lm.model.set_attn_implementation("sdpa")


def dense_rollout(attention: list[Tensor]) -> Tensor:
    """Return the rollout of every position, (n, n): the product of ½A + ½I over layers (Abnar & Zuidema 2020)."""
    identity = torch.eye(attention[0].shape[-1])
    joint = (attention[0].mean(0) + identity) / 2
    for layer in attention[1:]:
        joint = (layer.mean(0) + identity) / 2 @ joint
    return joint


# ---- very long texts


def random_model(layers: int, positions: int) -> LanguageModel:
    """Return a model of SmolLM2-135M's shape with fewer layers, more positions and random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from attlas.models.facts import gather_facts

    whole = attlas.load(MODEL)
    config = AutoConfig.for_model(**whole.model.config.to_dict())
    config.num_hidden_layers, config.max_position_embeddings = layers, positions
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    return attlas.LanguageModel(model, whole.tokenizer, gather_facts("random weights", model, "random"))


def far(length: int, methods: Sequence[str], *, most: int) -> Iterator[Row]:
    """A text that is four times as long as the model's positions, with random weights of its architecture."""
    for method in methods:
        # The top layer's gradients are special, so what each further layer takes shows from the second one on.
        few, more = METHODS[method], most
        times, peaks = zip(
            *(map(float, in_fresh_process("far", method, str(length), str(layers))) for layers in (few, more)),
            strict=True,
        )
        slope = (peaks[1] - peaks[0]) / (more - few)
        fewer = "1 layer" if few == 1 else f"{few} layers"
        yield Row(
            f"`{method}` on {length:,} tokens, {more} layers of {MODEL}'s shape, random weights",
            "–",
            f"{peaks[1] / 1e9:.2f} GB, {seconds(times[1])}",
            "< 8 GB",
            f"peak of the whole process; {fewer} {peaks[0] / 1e9:.2f} GB in {seconds(times[0])}, so 30 layers about "
            f"{(peaks[1] + (30 - more) * slope) / 1e9:.1f} GB (projected)",
        )
