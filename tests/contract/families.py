"""Runs a family through everything that a capture promises, and says in a row of a table how it went."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import attlas
from attlas.projections import LayerProjections, projections
from attlas.testing.tiny_models import LENGTH, TINY_MODELS, TinyModel

PADDED = 4
PROVED = 1e-6
BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}


HEAD = f"""\
# Families

Which model families attlas captures exactly. `tests/contract/test_families.py` writes this page, and fails when it is
out of date.

Each family is a tiny model with random weights, run on {LENGTH} tokens, alone and in a batch of two, padded left and
right where it reads text. *Verified* means: the model's numbers are equal to the last bit with and without a capture;
every matrix, applied to the layer's values, equals the layer's output on every entry; and for a model that decodes, a
run through a cache, token by token and in pieces, gives the same matrix as one run. **Bold** families are promised; the
others show how far the mechanism reaches.

The last column is about `attlas.projections`: the views of W_Q, W_K, W_V and W_O. Each of them is proved: hidden states
of the run, projected through the views in float64, give the queries, keys and values that the capture recorded, and
what each head gathered gives the layer's output, within {PROVED:.0e} of their norm.

"""
FOOT = """
A refused family raises `UnsupportedModelError` and names the modules, because they compute attention in code of their
own, which no hook can read without knowing it. `attlas.capture(model, unrouted="report")` captures the rest, and lists
what is missing in `cap.unrouted`. Modules without a softmax (Mamba, linear attention) have no attention matrix, and are
passed over.

Where a mask has no structure (Llama 4's chunks) or a bias is a dense tensor (Falcon with ALiBi), the calls of a run
through a cache stay one matrix each, in `cap.calls(layer)`; each of them verifies.
"""


@dataclass(frozen=True)
class Examined:
    """One family's row.

    Parameters
    ----------
    family : str
    kernel : str
        What computes its attention.
    looks : tuple of str
        What its matrices look like.
    refusal : str
        Why it cannot be captured; empty when it can.
    """

    family: str
    kernel: str
    looks: tuple[str, ...]
    refusal: str


def numbers(output: Any) -> list[Tensor]:
    """Return every tensor of a model's output, those of nested tuples and caches left out."""
    values = output.values() if hasattr(output, "values") else output
    return [value for value in values if isinstance(value, Tensor)]


def padded(inputs: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    """Pad the first element of a batch of two."""
    mask = torch.ones_like(inputs["input_ids"])
    where = slice(0, PADDED) if side == "left" else slice(-PADDED, None)
    mask[0, where] = 0
    return {**inputs, "input_ids": inputs["input_ids"].masked_fill(mask == 0, 0), "attention_mask": mask}


def captured(model: nn.Module, inputs: dict[str, Tensor]) -> attlas.Capture:
    """Run a model with and without a capture, and require equal numbers to the last bit."""
    with torch.no_grad():
        plain = numbers(model(**inputs))
        with attlas.capture(model, values=True, output=True) as capture:
            under = numbers(model(**inputs))
        after = numbers(model(**inputs))
    assert plain
    assert all(torch.equal(a, b) for a, b in zip(plain, under, strict=True)), "a capture changed the model's numbers"
    assert all(torch.equal(a, b) for a, b in zip(plain, after, strict=True)), "a capture left something behind"
    return capture


def prove(capture: attlas.Capture) -> None:
    """Compare every matrix, applied to the layer's own values, with the layer's own output, on every entry."""
    for number in capture.layers:
        A, values, output = capture[number], capture.values(number), capture.output(number)
        group = A.shape[1] // values.shape[1]
        exact = A.to_dense().double() @ values.double().repeat_interleave(group, 1)
        if output.shape[1] != A.shape[1]:
            continue  # nn.MultiheadAttention shows only the sum of its projected heads; verify compares that
        seen = A.valid_rows.unsqueeze(-1).expand_as(exact)
        difference = (exact - output.double()).abs()[seen]
        assert float(difference.max()) <= tolerance(capture, number) * float(values.abs().max()), capture.names[number]
    errors = capture.verify(rows=None)
    for number, error in errors.items():
        assert error <= tolerance(capture, number), (capture.names[number], error)


def tolerance(capture: attlas.Capture, number: int) -> float:
    """What rounding explains: a score is off by a few rounding units of |q|·|k|·scale, and an entry by as much."""
    A = capture[number]
    largest = float(A.query.norm(dim=-1).max() * A.key.norm(dim=-1).max()) * A.scale
    return torch.finfo(A.dtype).eps * (16 + 8 * largest)


def decoded(model: nn.Module, tiny: TinyModel, inputs: dict[str, Tensor], steps: list[int]) -> attlas.Capture:
    """Run the same tokens piece by piece through a cache."""
    text = "input_ids" if tiny.kind == "decoder" else "decoder_input_ids"
    whole = inputs[text]
    rest = {name: value for name, value in inputs.items() if name not in (text, "attention_mask")}
    encoded, past, start = None, None, 0
    with torch.no_grad(), attlas.capture(model, values=True, output=True) as capture:
        for step in steps:
            piece = {text: whole[:, start : start + step]}
            if "attention_mask" in inputs and tiny.kind == "decoder":
                mask = inputs["attention_mask"][:, : start + step]
                piece |= {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, start:]}
            elif "attention_mask" in inputs:
                piece["attention_mask"] = inputs["attention_mask"]
            given = rest if encoded is None else {"encoder_outputs": encoded}
            result = model(**piece, **given, past_key_values=past, use_cache=True)
            past, start = result.past_key_values, start + step
            encoded = (result.encoder_last_hidden_state,) if tiny.kind != "decoder" else None
    return capture


@cache
def viewed(family: str) -> tuple[str, str]:
    """View a family's projections and prove them on two batches; say what they look like, or why they are refused."""
    tiny = BY_FAMILY[family]
    model = tiny.build()
    try:
        P = projections(model, tiny.inputs())
    except attlas.UnsupportedModelError as error:
        return "", str(error).split(". To view")[0]
    runs = [tiny.inputs(), tiny.inputs(batch=2, length=13, seed=5)]
    runs += [padded(tiny.inputs(batch=2), "left")] if tiny.reads_text else []
    for inputs in runs:
        for layer, error in P.verify(inputs).items():
            assert error <= PROVED, (P[layer].name, error)
    return "; ".join(sorted({appearance(view) for view in P})), ""


def appearance(view: LayerProjections) -> str:
    """Say how a layer's weights lie, and what else is between hidden states and its kernel."""
    parts = ["separate" if view.modules["query"] != view.modules["key"] else "fused"]
    if view.rotation is not None:
        parts.append("rotary" if view.rotation.dims == view.dim else f"rotary on {view.rotation.dims} of {view.dim}")
    named = {"query-key norms": view.query_norm, "biases": view.query_bias, "gate": view.gate}
    return " + ".join([*parts, *(name for name, part in named.items() if part is not None)])


@cache
def examine(family: str) -> Examined:
    """Run everything once."""
    tiny = BY_FAMILY[family]
    model = tiny.build()
    kernel = str(getattr(model.config, "_attn_implementation", "none"))
    try:
        capture = captured(model, tiny.inputs())
    except (attlas.UnsupportedModelError, attlas.CaptureError) as error:
        return Examined(family, kernel, (), str(error))
    prove(capture)
    looks = {describe(capture[number]) for number in capture.layers}
    runs = [tiny.inputs(batch=2)]
    if tiny.reads_text:
        runs += [padded(tiny.inputs(batch=2), side) for side in ("left", "right")]
    for inputs in runs:
        capture = captured(model, inputs)
        prove(capture)
    return Examined(family, kernel, tuple(sorted(looks)), "")


def describe(A: attlas.AttentionMatrix) -> str:
    """Say what a matrix is made of."""
    rule = A.visibility
    parts = ["causal" if rule.causal else "all to all" if A.shape[2] == A.shape[3] else "cross"]
    if rule.mask is not None:
        parts = ["predicate"]
    if rule.window is not None:
        parts.append("window")
    if A.bias is not None:
        parts.append("bias" if isinstance(A.bias, Tensor) else "relative bias")
    if A.softcap is not None:
        parts.append("soft cap")
    if A.sinks is not None:
        parts.append("sinks")
    if A.key.shape[1] < A.shape[1]:
        parts.append("grouped heads")
    return " + ".join(parts)


def table() -> str:
    """Return the page of the documentation."""
    rows = [examine(tiny.family) for tiny in TINY_MODELS]
    named = {tiny.family for tiny in TINY_MODELS if tiny.named}
    lines = [
        *HEAD.splitlines(),
        "| family | kernel | result | its matrices | its projections |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"**{row.family}**" if row.family in named else row.family
        if row.refusal:
            kind = "no attention" if "got none" in row.refusal else "refused"
            why = "it has none" if kind == "no attention" else row.refusal.split(". To capture")[0].replace("|", "\\|")
            lines.append(f"| {name} | {row.kernel} | {kind} | {why} | |")
        else:
            looks, why = viewed(row.family)
            proof = f"proved: {looks}" if looks else f"refused: {why}"
            lines.append(f"| {name} | {row.kernel} | verified | {'; '.join(row.looks)} | {proof} |")
    return "\n".join([*lines, *FOOT.splitlines(), ""])
