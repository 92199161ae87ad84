"""Value norms, GlobEnc and ALTI on tiny models, against dense float64 implementations straight from the formulas.

The reference takes attention from a capture, and everything else from the model's own modules, by their names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import attlas
from attlas.capture.walking import walk_capture
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError
from attlas.explain.layer_vectors import TextVectors
from attlas.explain.reading import Reading
from attlas.explain.targets import Target
from attlas.explain.value_norms import Alti, GlobEnc, ValueNorm
from attlas.explain.walk import Found, Walker, walk
from attlas.matrix import RowNormalised
from attlas.models import Document
from attlas.models.facts import gather_facts
from attlas.testing.tiny_models import TINY_MODELS, VOCABULARY

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
IDS = torch.randint(5, VOCABULARY - 5, (17,), generator=torch.Generator().manual_seed(5)).tolist()
N = len(IDS)
POSITIONS = (-1, 3, None)
POST_NORM, PRE_NORM = ["BERT", "DistilBERT"], ["Llama", "GPT-2", "OLMo 2"]
FAMILIES = [*POST_NORM, *PRE_NORM]


@cache
def reading_of(family: str, dtype: torch.dtype = torch.float64) -> Reading:
    """Return a text before a model; the same one each time, so that its projections are proved once."""
    return new_reading(family, dtype)


def new_reading(family: str, dtype: torch.dtype = torch.float64, ids: list[int] = IDS) -> Reading:
    model: Any = BY_FAMILY[family].build().to(dtype).requires_grad_(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                # Biases that are zero would hide whether they are treated rightly.
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    lm = attlas.LanguageModel(model, None, gather_facts(family, model, "0" * 16))
    targets = tuple(Target(None if p is None else p % len(ids)) for p in POSITIONS)
    return Reading(lm, Document("", ids, [str(i) for i in ids], None), targets)


def captured(reading: Reading, **options: Any) -> Any:
    options = {"values": True, "output": True, **options}
    with attlas.capture(reading.lm.model, **options) as cap, torch.no_grad():
        reading.lm.model(**reading.inputs)
    return cap


def found(walker: Walker, reading: Reading, **options: Any) -> Found:
    return walk(reading, [walker], walk_capture(captured(reading, **options)))[0]


# ---- the reference


@dataclass
class Dense:
    """A layer's parts: attention (head, n, n), what heads write (head, n, width), the stream, what it becomes."""

    attention: Tensor
    written: Tensor
    stream: Tensor
    bias: Any
    inner: Any = None
    outer: Any = None
    second: Any = None
    end: Any = None

    @property
    def part(self) -> Tensor:
        made = torch.einsum("hij,hjw->iw", self.attention, self.written)
        return made if self.bias is None else made + self.bias

    @property
    def state(self) -> Tensor:
        joined: Tensor = self.stream + (self.part if self.inner is None else self.inner(self.part))
        return joined if self.outer is None else self.outer(joined)

    def vectors(self, *, residual: bool = True, outer: bool = True, second: bool = False) -> Tensor:
        """Return T, (n, n, width)."""
        made = torch.einsum("hij,hjw->ijw", self.attention, self.written)
        if not residual:
            return made
        if self.inner is not None:
            made = linear(made, self.inner) / sigma(self.part, self.inner)[:, None, None]
        made = made + torch.eye(len(made), dtype=made.dtype)[:, :, None] * self.stream
        if self.outer is not None and outer:
            made = linear(made, self.outer) / sigma(self.stream + self.part, self.outer)[:, None, None]
        if second and self.second is not None and self.end is not None:
            made = linear(made, self.second) / sigma(self.end, self.second)[:, None, None]
        return made


def linear(x: Tensor, norm: Any) -> Tensor:
    return (x - x.mean(-1, keepdim=True) if centred(norm) else x) * norm.weight


def sigma(x: Tensor, norm: Any) -> Tensor:
    x = x - x.mean(-1, keepdim=True) if centred(norm) else x
    eps: float = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return (x.square().mean(-1) + eps).sqrt()


def centred(norm: Any) -> bool:
    return isinstance(norm, torch.nn.LayerNorm)


@torch.no_grad()
def dense(reading: Reading) -> list[Dense]:
    family: str = reading.lm.name
    model: Any = reading.lm.model
    attention = [matrix.to_dense()[0] for matrix in captured(reading)]
    states = model(**reading.inputs, output_hidden_states=True).hidden_states
    layers: list[Dense] = []
    for number, weights in enumerate(attention):
        x, heads = states[number][0], len(weights)

        def write(values: Tensor, output: Tensor, heads: int = heads) -> Tensor:
            """Values (n, kv_heads · dim) and W_O (heads · dim, width)."""
            per_head = output.unflatten(0, (heads, -1))
            split = values.unflatten(-1, (-1, per_head.shape[1])).transpose(0, 1)
            return split.repeat_interleave(heads // len(split), 0) @ per_head

        if family == "BERT":
            layer: Any = model.encoder.layer[number]
            own, out = layer.attention.self, layer.attention.output
            one = Dense(weights, write(own.value(x), out.dense.weight.T), x, out.dense.bias)
            one.outer, one.second = out.LayerNorm, layer.output.LayerNorm
            one.end = one.state + layer.output.dense(layer.intermediate(one.state))
        elif family == "DistilBERT":
            layer = model.transformer.layer[number]
            out = layer.attention.out_lin
            one = Dense(weights, write(layer.attention.v_lin(x), out.weight.T), x, out.bias)
            one.outer, one.second = layer.sa_layer_norm, layer.output_layer_norm
            one.end = one.state + layer.ffn(one.state)
        elif family == "GPT-2":
            layer = model.transformer.h[number]
            value = layer.attn.c_attn(layer.ln_1(x)).chunk(3, -1)[2]
            one = Dense(weights, write(value, layer.attn.c_proj.weight), x, layer.attn.c_proj.bias)
        else:
            layer = model.model.layers[number]
            normed = x if family == "OLMo 2" else layer.input_layernorm(x)
            out = layer.self_attn.o_proj
            one = Dense(weights, write(layer.self_attn.v_proj(normed), out.weight.T), x, None)
            one.inner = layer.post_attention_layernorm if family == "OLMo 2" else None
        layers.append(one)
    return layers


def shares(matrix: Tensor) -> Tensor:
    return matrix / matrix.sum(-1, keepdim=True)


def starts() -> Tensor:
    rows = torch.zeros(len(POSITIONS), N, dtype=torch.float64)
    rows[0, -1], rows[1, 3], rows[2] = 1, 1, 1 / N
    return rows


def product(matrices: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the targets' rows of the product, and below each layer, lowest first."""
    rows, trail = starts(), []
    for matrix in reversed(matrices):
        rows = rows @ matrix
        trail.append(rows)
    return rows, torch.stack(trail[::-1], dim=1)


def norms_of(layer: Dense, of: str) -> Tensor:
    if of == "heads":
        return torch.einsum("hij,hj->ij", layer.attention, layer.written.norm(dim=-1))
    return layer.vectors(residual=of != "sum", outer=of == "residual-norm").norm(dim=-1)


def close(ours: Tensor | None, wanted: Tensor) -> None:
    assert ours is not None
    # Root-mean-square norms of these models are float32 inside, whatever the model's dtype.
    assert_close(ours, wanted, rtol=2e-5, atol=2e-6)


# ---- the methods


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("of", ["heads", "sum", "residual", "residual-norm"])
def test_value_norm_is_the_mean_of_the_layers_rows(family, of):
    if of == "residual-norm" and family not in POST_NORM:
        with pytest.raises(UnsupportedModelError, match='take preset="residual"'):
            found(ValueNorm("residual-norm"), reading_of(family))
        return
    reading = reading_of(family)
    ours = found(ValueNorm(of), reading)
    layers = torch.stack([starts() @ shares(norms_of(layer, of)) for layer in dense(reading)], dim=1)
    close(ours.layers, layers)
    close(ours.scores, layers.mean(1))
    raw = found(ValueNorm(of, layers=[0, -1], normalise=False), reading)
    close(raw.layers, torch.stack([starts() @ norms_of(layer, of) for layer in dense(reading)], dim=1))
    top = found(ValueNorm(of, layers=-1), reading)
    close(top.scores, layers[:, -1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("of", ["heads", "sum", "residual"])
def test_value_norm_as_rollout(family, of):
    reading = reading_of(family)
    matrices = [shares(norms_of(layer, of)) for layer in dense(reading)]
    if of != "residual":
        matrices = [matrix / 2 + torch.eye(N, dtype=torch.float64) / 2 for matrix in matrices]
    ours = found(ValueNorm(of, rollout=True), reading)
    scores, layers = product(matrices)
    close(ours.scores, scores)
    close(ours.layers, layers)
    assert_close(ours.scores.sum(1), torch.ones(len(POSITIONS), dtype=torch.float64))


@pytest.mark.parametrize("family", POST_NORM)
@pytest.mark.parametrize("normalise", [True, False])
def test_globenc(family, normalise):
    reading = reading_of(family)
    matrices = [layer.vectors(second=True).norm(dim=-1) for layer in dense(reading)]
    scores, layers = product([shares(matrix) for matrix in matrices] if normalise else matrices)
    ours = found(GlobEnc(normalise=normalise), reading)
    close(ours.scores, scores)
    close(ours.layers, layers)


@pytest.mark.parametrize("family", PRE_NORM)
def test_globenc_without_norms_behind(family):
    reading = reading_of(family)
    scores, layers = product([shares(layer.vectors().norm(dim=-1)) for layer in dense(reading)])
    ours = found(GlobEnc(norms=False), reading)
    close(ours.scores, scores)
    close(ours.layers, layers)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", [1, 2])
def test_alti(family, order):
    reading = reading_of(family)
    matrices = []
    for layer in dense(reading):
        near = layer.state.norm(order, dim=-1).unsqueeze(1)
        nearer = near - (layer.state.unsqueeze(1) - layer.vectors()).norm(order, dim=-1)
        matrices.append(shares(nearer.clamp(min=0)))
    scores, layers = product(matrices)
    ours = found(Alti(order), reading)
    close(ours.scores, scores)
    close(ours.layers, layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_mixing_ratio(family):
    reading = reading_of(family)
    ours = found(Alti(), reading).notes["mixing_ratio"]
    for number, layer in enumerate(dense(reading)):
        vectors = layer.vectors()
        own = vectors.diagonal().T.norm(dim=-1)
        mixed = (vectors.sum(1) - vectors.diagonal().T).norm(dim=-1)
        assert ours[str(number)] == pytest.approx(float((mixed / (mixed + own)).mean()), rel=1e-5)


# ---- the vectors are the model's own


EVERY_FAMILY = [
    *("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma 2", "Gemma 3", "gpt-oss", "GPT-2", "GPT-NeoX", "Phi-3"),
    *("BERT", "RoBERTa", "DistilBERT", "ModernBERT", "Falcon", "OPT", "Phi", "Cohere", "OLMo 2", "ALBERT", "ESM"),
]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_vectors_add_up_to_what_the_model_makes(family):
    reading = reading_of(family, dtype=torch.float32)
    texts = TextVectors.of(reading)
    texts.need("state")
    for attended in walk_capture(captured(reading)):
        layer = texts.layer(attended, "state")
        assert layer.error < 1e-4
        around = texts.around(attended.layer)
        assert (around.outer is not None) == (family in ("BERT", "RoBERTa", "DistilBERT", "ALBERT"))
        assert (around.inner is not None) == (family in ("Gemma 2", "Gemma 3", "OLMo 2"))
    ours = found(Alti(2), reading)
    assert_close(ours.scores.sum(1), torch.ones(len(POSITIONS), dtype=torch.float64), rtol=1e-5, atol=0)


def test_without_the_kernels_output():
    reading = reading_of("Llama")
    close(found(Alti(2), reading, output=False).scores, found(Alti(2), reading).scores)


def test_methods_that_walk_together_run_the_model_once_more():
    reading = new_reading("BERT")
    cap = captured(reading)
    TextVectors.of(reading).around(0)
    runs: list[Any] = []
    hook = reading.lm.model.register_forward_pre_hook(lambda module, args: runs.append(module))
    together = walk(reading, [GlobEnc(), Alti(2)], walk_capture(cap))
    hook.remove()
    assert len(runs) == 1
    close(together[1].scores, found(Alti(2), reading).scores)


def test_the_map_of_a_method_is_a_matrix_as_any_other():
    reading = reading_of("BERT")
    walker = GlobEnc()
    walker.start(reading)
    matrices = [walker.map(attended) for attended in walk_capture(captured(reading))]
    for matrix, layer in zip(matrices[::-1], dense(reading), strict=True):
        wanted = layer.vectors(second=True).norm(dim=-1)
        assert matrix.shape == (1, 1, N, N)
        close(matrix.to_dense()[0, 0], wanted)
        close(matrix.received()[0, 0], wanted.sum(0))
        close(RowNormalised(matrix)[0, 0, 5, :], shares(wanted)[5])


# ---- refusals


def test_methods_that_have_no_meaning_for_a_model_say_what_to_take():
    with pytest.raises(UnsupportedModelError, match=r'globenc is for models that normalise behind.*preset="pre-norm"'):
        found(GlobEnc(), reading_of("Llama"))
    with pytest.raises(UnsupportedModelError, match=r'in front of the attention.*take preset="paper"'):
        found(GlobEnc(norms=False), reading_of("BERT"))
    with pytest.raises(UnsupportedModelError, match="gate of the asking token"):
        found(ValueNorm(), reading_of("Qwen3-Next", dtype=torch.float32))


def test_a_model_of_two_stacks_is_refused():
    model: Any = BY_FAMILY["T5"].build()
    lm = attlas.LanguageModel(model, None, gather_facts("T5", model, "0" * 16))
    reading = Reading(lm, Document("", IDS, [""] * N, None), (Target(0),), (0, 1))
    with pytest.raises(UnsupportedModelError, match="models of one stack"):
        ValueNorm().start(reading)


def test_values_are_needed():
    with pytest.raises(CaptureError, match="values=True"):
        found(ValueNorm(), reading_of("Llama"), values=False, output=False)


def test_vectors_that_are_not_the_models_are_refused():
    reading = reading_of("Llama")
    walker = ValueNorm()
    walker.start(reading)
    attended = next(iter(walk_capture(captured(reading))))
    assert attended.value is not None
    other = replace(attended, value=attended.value.flip(2), output=None)
    with pytest.raises(UnsupportedModelError, match="do not add up to what its attention gives"):
        walker.visit(other)


def test_a_residual_stream_that_is_scaled_is_refused():
    reading = new_reading("Granite", torch.float32)
    model: Any = reading.lm.model
    for layer in model.model.layers:
        layer.residual_multiplier = 0.5
    with pytest.raises(UnsupportedModelError, match=r'neither the residual stream plus.*"paper-2020"'):
        found(Alti(2), reading)
    assert bool(found(ValueNorm(), reading).scores.isfinite().all())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"of": "heds"}, "of: wanted"),
        ({"layers": 7}, "layers: wanted layers 0 to 1"),
        ({"layers": [0], "rollout": True}, "layers: wanted all of them for a rollout"),
    ],
)
def test_settings_of_value_norm(settings, match):
    with pytest.raises(ArgumentError, match=match):
        found(ValueNorm(**settings), reading_of("Llama"))


def test_settings_of_alti():
    with pytest.raises(ArgumentError, match="order: wanted 1 or 2"):
        Alti(3)  # type: ignore[arg-type] - what a user may write
