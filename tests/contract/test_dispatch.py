"""Every family runs by a plan: exactly where the plan says so, by the patterns' definition elsewhere, cached or not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attlas.patterns import Full, SlidingWindow
from attlas.planning import Applied, Plan
from attlas.testing import no_dense
from attlas.testing.tiny_models import TINY_MODELS, TinyModel
from attlas.testing.tolerances import assert_as_exact_as
from contract import families

ROUTED = [tiny.family for tiny in TINY_MODELS if tiny.named]
# Mamba continues from a state, not from keys.
DECODERS = [tiny.family for tiny in TINY_MODELS if tiny.kind == "decoder" and tiny.family != "Mamba"]
# Their caches let go of tokens that are out of the model's own window.
OWN_WINDOWS = ["Mistral", "Gemma 2", "gpt-oss"]
WIDTH, SINKS = 5, 2

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def everywhere(model: nn.Module, pattern: Any, heads: int = 4, layers: int = 8) -> Plan:
    """Give every head of a tiny model the same pattern."""
    return Plan.of(model, {(layer, head): pattern for layer in range(layers) for head in range(heads)})


def in_float64(model: nn.Module) -> nn.Module:
    """Return the model in float64; experts whose grouped kernel has none are run one by one."""
    exact: Any = copy.deepcopy(model).double()
    if any("experts" in name for name, _ in exact.named_modules()):
        exact.set_experts_implementation("eager")
    return exact


def seen(inputs: dict[str, Tensor]) -> Tensor:
    """Return which tokens are no padding, (batch, n)."""
    return inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()


def run(model: nn.Module, inputs: dict[str, Tensor], plan: Plan | None = None) -> tuple[list[Tensor], Applied | None]:
    with torch.no_grad():
        if plan is None:
            return families.numbers(model(**inputs)), None
        with plan.applied(model) as applied:
            return families.numbers(model(**inputs)), applied


def assert_same(planned: list[Tensor], plain: list[Tensor], exact: list[Tensor], inputs: dict[str, Tensor]) -> None:
    assert planned
    for number, (answer, ours, truth) in enumerate(zip(planned, plain, exact, strict=True)):
        if not truth.is_floating_point():
            continue
        if answer.dim() == 3 and "attention_mask" in inputs and answer.shape[:2] == inputs["input_ids"].shape:
            # Rows of padding attend to nothing here, and to everything evenly in an eager kernel; nobody reads them.
            where = seen(inputs)
            answer, ours, truth = answer[where], ours[where], truth[where]
        size = float(truth.abs().max())
        assert_as_exact_as(answer, ours, truth, magnitude=4 * size, what=f"output {number}")


@pytest.mark.parametrize("family", [tiny.family for tiny in TINY_MODELS])
def test_an_exact_plan_is_the_plain_model(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    model = tiny.build()
    # XGLM writes float32's lowest number into its masks.
    exact = model if family == "XGLM" else in_float64(model)
    runs = [tiny.inputs(), tiny.inputs(batch=2)]
    if tiny.reads_text:
        runs += [families.padded(tiny.inputs(batch=2), side) for side in ("left", "right")]
    for inputs in runs:
        wide = next(exact.parameters()).dtype
        precise = {name: value.to(wide) if value.is_floating_point() else value for name, value in inputs.items()}
        plan = Plan.exact(model)
        planned, applied = run(model, inputs, plan)
        assert_same(planned, run(model, inputs)[0], run(exact, precise)[0], inputs)
        assert applied is not None
        assert not applied.exact
        if tiny.named:
            assert applied.calls
            assert not applied.left, applied


@pytest.mark.parametrize("family", ["gpt-oss", "Gemma 2", "Mistral", "Llama", "Qwen2"])
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_no_mask_is_made(family: str, padding: str) -> None:
    tiny = families.BY_FAMILY[family]
    length = 700
    options = {**tiny.options, "max_position_embeddings": 1024}
    model = TinyModel(family, tiny.model, tiny.config, options).build()
    inputs = tiny.inputs(batch=2, length=length)
    if padding != "none":
        inputs = families.padded(inputs, padding)
    plans = [Plan.exact(model), everywhere(model, SlidingWindow(WIDTH, sinks=SINKS))]
    for plan in plans:
        with no_dense(length * length), torch.no_grad(), plan.applied(model) as applied:
            model(**inputs)
        assert applied.calls
        assert not applied.left


def kept(n_query: int, n_key: int, starts: list[int], *, causal: bool) -> Tensor:
    """Write a sliding window with sinks down from its definition, counted from each text's first token."""
    rows = torch.arange(n_key - n_query, n_key)[:, None]
    cols = torch.arange(n_key)[None]
    ahead = rows - cols
    near = (ahead >= 0) & (ahead < WIDTH) if causal else ahead.abs() < WIDTH
    return torch.stack([(near | ((cols >= start) & (cols < start + SINKS)))[None] for start in starts])


def dense(model: nn.Module, inputs: dict[str, Tensor], heads: list[int], *, causal: bool) -> Tensor:
    """Run the model in float64 with an explicit mask of every query, key and head."""
    exact: Any = in_float64(model)
    exact.set_attn_implementation("sdpa")
    present = seen(inputs)
    batch, length = present.shape
    visible = present[:, None, None, :].expand(batch, 4, length, length)
    if causal:
        visible = visible & torch.ones(length, length, dtype=torch.bool).tril()
    window = visible & kept(length, length, present.int().argmax(-1).tolist(), causal=causal)
    chosen = torch.tensor([head in heads for head in range(4)]).view(1, 4, 1, 1)
    mask = torch.where(chosen, window, visible)
    given = {**inputs, "attention_mask": mask}
    if causal:
        given["position_ids"] = (present.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        return families.numbers(exact(**given))[0]


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("heads", [[0, 1, 2, 3], [0, 1], [1, 2], [3]], ids=str)
@pytest.mark.parametrize(("family", "causal"), [("Llama", True), ("BERT", False), ("Qwen2", True)])
def test_a_window_is_what_a_dense_mask_gives(family: str, causal: bool, heads: list[int], padding: str) -> None:
    tiny = families.BY_FAMILY[family]
    model = tiny.build()
    inputs = tiny.inputs(batch=2)
    if padding != "none":
        inputs = families.padded(inputs, padding)
    truth = dense(model, inputs, heads, causal=causal)
    given = dict(inputs)
    if causal and "attention_mask" in inputs:
        given["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    pattern = SlidingWindow(WIDTH, sinks=SINKS)
    plan = Plan.of(model, {(layer, head): pattern for layer in range(2) for head in heads})
    answer, applied = run(model, given, plan)
    assert applied is not None
    assert not applied.exact
    assert not applied.left
    assert {tuple(groups[pattern]) for groups in applied.routed.values()} == {tuple(heads)}
    where = seen(inputs)
    plain = run(model, given)[0][0]
    assert not torch.allclose(plain[where].double(), truth[where], atol=1e-2), "the window changes nothing"
    size = float(truth[where].abs().max())
    torch.testing.assert_close(answer[0][where].double(), truth[where], rtol=0, atol=2e-5 * size)


def pieces(model: nn.Module, inputs: dict[str, Tensor], steps: list[int], plan: Plan) -> tuple[Tensor, Applied]:
    """Run a text piece by piece through a cache under a plan."""
    whole, past, start, found = inputs["input_ids"], None, 0, []
    with torch.no_grad(), plan.applied(model) as applied:
        for step in steps:
            given: dict[str, Any] = {"input_ids": whole[:, start : start + step]}
            if "attention_mask" in inputs:
                mask = inputs["attention_mask"][:, : start + step]
                given |= {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, start:]}
            result = model(**given, past_key_values=past, use_cache=True)
            past, start = result.past_key_values, start + step
            found.append(result.logits)
    return torch.cat(found, dim=1), applied


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize(
    ("family", "pattern"),
    [
        *((family, SlidingWindow(WIDTH, sinks=SINKS)) for family in DECODERS),
        *((family, pattern) for family in OWN_WINDOWS for pattern in (SlidingWindow(WIDTH), Full())),
    ],
    ids=str,
)
def test_a_run_through_a_cache_is_the_run_at_once(family: str, padding: str, pattern: Any) -> None:
    tiny = families.BY_FAMILY[family]
    model, inputs = tiny.build(), tiny.inputs(batch=2)
    if padding == "left":
        inputs = families.padded(inputs, "left")
    plan = everywhere(model, pattern)
    whole, applied = pieces(model, inputs, [19], plan)
    if applied.left or applied.exact:
        assert not tiny.named, applied
        return
    where = seen(inputs)
    for steps in ([10, *[1] * 9], [6, 7, 6]):
        parts, _ = pieces(model, inputs, steps, plan)
        size = float(whole[where].abs().max())
        torch.testing.assert_close(parts[where], whole[where], rtol=0, atol=1e-4 * size)


@pytest.mark.parametrize("family", ["Llama", "gpt-oss", "Gemma 2", "Mistral"])
def test_generated_text_is_that_of_uncached_runs(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    model: Any = tiny.build()
    inputs = tiny.inputs(batch=2)
    plan = everywhere(model, SlidingWindow(WIDTH, sinks=SINKS))
    with torch.no_grad(), plan.applied(model):
        written = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False)
    with torch.no_grad(), plan.applied(model):
        again = inputs["input_ids"]
        for _ in range(12):
            logits = model(input_ids=again, use_cache=False).logits[:, -1]
            logits[:, model.generation_config.eos_token_id or 0] = -torch.inf
            again = torch.cat([again, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(written, again)
