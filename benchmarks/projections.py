"""What the analysis of the projection matrices costs."""

from __future__ import annotations

import copy
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

import attlas
from attlas.projections import projections
from attlas.projections.composing import KINDS, composition
from attlas.projections.copy_scores import eigen_positivity, moments
from attlas.projections.singular_spectra import spectra
from attlas.projections.token_states import vocabulary_of
from benchmarks.measuring import Row, in_fresh_process, in_turn, megabytes, seconds
from benchmarks.model import MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from attlas.projections import Projections

SMALL = {"layers": 6, "heads": 12, "width": 768}
"""GPT-2 small, with half of its layers."""
LARGE = {"heads": 32, "kv_heads": 8, "width": 4096}
"""The attention of an 8-billion-parameter Llama."""
LARGE_LAYERS = 32


def rows(rounds: int, *, tiny: bool) -> list[Row]:
    """Measure everything."""
    small = {"layers": 2, "heads": 2, "width": 32} if tiny else SMALL
    large = {"heads": 4, "kv_heads": 2, "width": 64} if tiny else LARGE
    return [*against_transformer_lens(rounds, small), *at_scale(large), spectra_of_all_heads(rounds)]


def small_model(layers: int, heads: int, width: int) -> PreTrainedModel:
    """Return a GPT-2 with random weights that are not as even as fresh ones."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers, n_head=heads, n_embd=width, vocab_size=500, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return model


def bridged(model: PreTrainedModel) -> Any:
    """Return a copy of the model as TransformerLens holds it."""
    from transformer_lens.model_bridge import TransformerBridge

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, hf_model=copy.deepcopy(model), tokenizer=None, device="cpu")


def ours(views: Projections) -> dict[str, torch.Tensor]:
    """Return all three kinds of composition."""
    return {kind: composition(views, kind).scores for kind in KINDS}


def theirs(bridge: Any) -> dict[str, torch.Tensor]:
    """Return the same from TransformerLens."""
    with torch.no_grad():
        return {kind: bridge.all_composition_scores(kind.upper()).scores for kind in KINDS}


def against_transformer_lens(rounds: int, shape: dict[str, int]) -> list[Row]:
    """Q-, K- and V-composition of all heads, against TransformerLens where it is installed."""
    what = f"Q-, K- and V-composition of all heads (random GPT-2, {shape['layers']} layers, width {shape['width']})"
    arguments = [str(number) for number in shape.values()]
    model = small_model(**shape)
    views = projections(model)
    extra = _extra_memory("ours", arguments)
    if importlib.util.find_spec("transformer_lens") is None or os.environ.get("ATTLAS_BENCH_TRANSFORMER_LENS") == "0":
        against = "TransformerLens 4.3.0 (`pip install transformer-lens==4.3.0` to compare)"
        taken = _fastest(lambda: ours(views), rounds)
        return [
            Row(what, against, seconds(taken), "≤ 0.20 of its time", f"fastest of {rounds}"),
            Row("extra memory of the same", against, megabytes(extra), "≤ 1/10 of its", "beyond the model"),
        ]
    bridge = bridged(model)
    mine, their = ours(views), theirs(bridge)
    apart = max(float((mine[kind] - their[kind]).abs().max()) for kind in KINDS)
    ratio = in_turn(lambda: ours(views), lambda: theirs(bridge), rounds, warm_up=0)
    their_extra = _extra_memory("theirs", arguments)
    name = "TransformerLens `all_composition_scores`"
    return [
        Row(what, name, ratio.reached(), "≤ 0.20", f"{ratio.detail()}; largest difference of a score {apart:.1g}"),
        Row(
            "extra memory of the same",
            f"{name}: {megabytes(their_extra)}",
            f"1/{their_extra / max(extra, 1.0):.0f}",
            "≤ 1/10",
            f"{megabytes(extra)} beyond the model, peak of a fresh process",
        ),
    ]


def large_model(layers: int, heads: int, kv_heads: int, width: int) -> PreTrainedModel:
    """Return a Llama with random weights, whose MLP and vocabulary are next to nothing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        hidden_size=width,
        intermediate_size=16,
        vocab_size=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def at_scale(shape: dict[str, int]) -> list[Row]:
    """Composition at the shapes of a large model: a few layers are measured, and all of them projected."""
    # One layer has no pairs, so it tells the cost of a layer; five have ten. Three are for checking what that predicts.
    taken = {layers: _composing(layers, shape) for layers in (1, 3, 5)}
    layer = taken[1]
    pair = max(0.0, (taken[5] - 5 * layer) / 10)
    projected = LARGE_LAYERS * layer + LARGE_LAYERS * (LARGE_LAYERS - 1) / 2 * pair
    narrower = {times: _composing(3, _narrower(shape, times)) for times in (4, 2)}
    curve = ", ".join(f"width {shape['width'] // times:,} {seconds(value)}" for times, value in narrower.items())
    extra = _extra_memory("large", ["3", *(str(number) for number in shape.values())])
    what = f"width {shape['width']:,}, {shape['heads']} heads, {shape['kv_heads']} kv heads"
    return [
        Row(
            f"the same at the attention of an 8B model ({what}), {LARGE_LAYERS} layers, projected",
            "–",
            f"{projected / 60:.1f} min",
            "–",
            f"{seconds(layer)} a layer and {seconds(pair)} a pair of layers, from 1 and 5 layers; 3 layers: "
            f"{seconds(3 * layer + 3 * pair)} predicted, {seconds(taken[3])} measured, {curve}; "
            f"{megabytes(extra)} beyond the weights",
        )
    ]


def spectra_of_all_heads(rounds: int) -> Row:
    """Both spectra, the eigenvalue scores in the stream and those in the vocabulary, of every head of a real model."""
    views = projections(attlas.load(MODEL))
    ends = vocabulary_of(views)

    def run() -> None:
        spectra(views)
        gram = moments(ends)[2]
        for view in views:
            shared = torch.arange(view.heads) // view.group
            eigen_positivity(view.value.detach()[shared], ends.writer(view), gram)

    return Row(
        f"QK and OV spectra and three eigenvalue scores of all {len(views.heads)} heads ({MODEL})",
        "–",
        seconds(_fastest(run, rounds)),
        "≤ 3 s",
        f"fastest of {rounds}, with the weights in place",
    )


def _narrower(shape: dict[str, int], times: int) -> dict[str, int]:
    """Return a narrower model of the same width per head, with as many query heads to a key head where it can."""
    kv_heads = max(1, shape["kv_heads"] // times)
    return {"heads": max(1, shape["heads"] // times), "kv_heads": kv_heads, "width": shape["width"] // times}


def _composing(layers: int, shape: dict[str, int]) -> float:
    views = projections(large_model(layers, **shape))
    return _fastest(lambda: ours(views), 2)


def _fastest(run: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _extra_memory(which: str, arguments: list[str]) -> float:
    """Return what a composition needs beyond what its process held before, in bytes."""
    before, after = in_fresh_process("composing", which, *arguments)
    return float(after) - float(before)
