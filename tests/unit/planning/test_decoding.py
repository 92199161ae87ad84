"""A cache that holds only what a plan needs reads on as the whole cache does, and fits nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
from attlas.capture import LanguageModel
from attlas.capture.holding import HeldLayer, Span, gap_of
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError
from attlas.models.facts import gather_facts
from attlas.patterns import Pattern, SlidingWindow
from attlas.planning import Plan
from attlas.testing.tiny_models import TINY_MODELS
from contract.families import padded

TINY = {tiny.family: tiny for tiny in TINY_MODELS}
NARROW, WIDE = SlidingWindow(3, sinks=2), SlidingWindow(5, sinks=1)


def opened(family: str = "Llama") -> Any:
    model: Any = TINY[family].build()
    return LanguageModel(model, None, gather_facts(f"tiny {family}", model, "0123456789abcdef"))


def plan_of(lm: LanguageModel, layers: tuple[int, ...] = (0, 1)) -> Plan:
    def pattern(layer: int, head: int) -> Pattern | None:
        return (NARROW if head % 2 else WIDE) if layer in layers else None

    return Plan.of(lm, pattern)


def read(lm: Any, ids: Tensor, steps: list[int], past: Any, **more: Any) -> Tensor:
    found, start = [], 0
    with torch.no_grad():
        for step in steps:
            output = lm.model(input_ids=ids[:, start : start + step], past_key_values=past, use_cache=True, **more)
            past, start = output.past_key_values, start + step
            found.append(output.logits)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("layers", [(0, 1), (0,), (1,)], ids=str)
@pytest.mark.parametrize("steps", [[19], [10, *[1] * 9], [1] * 19, [3, 9, 7], [2, 2, 1, 1, 13]], ids=str)
@pytest.mark.parametrize("family", ["Llama", "GPT-2", "Qwen3"])
def test_it_reads_on_as_the_whole_cache_does(family: str, steps: list[int], layers: tuple[int, ...]) -> None:
    lm = opened(family)
    ids = TINY[family].inputs(batch=2)["input_ids"]
    plan = plan_of(lm, layers)
    with plan.applied(lm):
        whole = read(lm, ids, steps, None)
    with plan.applied(lm) as applied:
        cache = applied.cache()
        held = read(lm, ids, steps, cache)
    torch.testing.assert_close(held, whole, atol=1e-5 * float(whole.abs().max()), rtol=1e-5)
    assert not applied.left
    for index, layer in enumerate(cache.layers):
        wanted = 2 + 5 - 1 if index in layers else 19
        assert (layer.keys.shape[2], layer.values.shape[2]) == (wanted, wanted)
        assert layer.get_seq_length() == 19


@pytest.mark.parametrize("family", ["Llama", "Mistral", "gpt-oss"])
def test_it_writes_what_the_whole_cache_writes(family: str) -> None:
    lm = opened(family)
    ids = TINY[family].inputs(batch=2)["input_ids"]
    plan = plan_of(lm)
    options: dict[str, Any] = {"max_new_tokens": 15, "min_new_tokens": 15, "do_sample": False}
    with torch.no_grad(), plan.applied(lm):
        whole = lm.model.generate(ids, **options)
    with torch.no_grad(), plan.applied(lm) as applied:
        held = lm.model.generate(ids, past_key_values=applied.cache(), **options)
    assert torch.equal(whole, held)


def test_layers_with_an_exact_head_hold_everything() -> None:
    lm = opened()
    plan = Plan.of(lm, lambda layer, head: NARROW if layer or head else None)
    ids = TINY["Llama"].inputs()["input_ids"]
    with plan.applied(lm) as applied:
        cache = applied.cache()
        read(lm, ids, [18, 1], cache)
    assert [layer.keys.shape[2] for layer in cache.layers] == [19, 2 + 3 - 1]


def test_padded_texts_are_refused_aloud() -> None:
    lm = opened()
    inputs = padded(TINY["Llama"].inputs(batch=2), "left")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with plan_of(lm).applied(lm) as applied, torch.no_grad():
        cache = applied.cache()
        lm.model(input_ids=ids[:, :15], attention_mask=mask[:, :15], past_key_values=cache)
        with pytest.raises(CaptureError, match="without padding"):
            lm.model(input_ids=ids[:, 15:16], attention_mask=mask[:, :16], past_key_values=cache)


def test_it_is_of_no_use_outside_of_the_plan() -> None:
    lm = opened()
    ids = TINY["Llama"].inputs()["input_ids"]
    with plan_of(lm).applied(lm) as applied:
        cache = applied.cache()
        read(lm, ids, [9], cache)
    with pytest.raises(CaptureError, match="outside of the plan's `with` block"):
        read(lm, ids, [9], cache)
    with Plan.exact(lm).applied(lm), pytest.raises(CaptureError, match="outside"):
        read(lm, ids, [9], cache)


def test_nobody_else_may_change_what_attends() -> None:
    lm = opened()
    ids = TINY["Llama"].inputs()["input_ids"]
    with plan_of(lm).applied(lm) as applied, attlas.ablate(lm, [(0, 0)]):
        read(lm, ids, [9], None)
        with pytest.raises(CaptureError, match="beside another change"):
            read(lm, ids, [9], applied.cache())


@pytest.mark.parametrize(
    ("family", "error", "complaint"),
    [("T5", UnsupportedModelError, "wanted a decoder"), ("BERT", UnsupportedModelError, "wanted a decoder")],
)
def test_models_that_do_not_read_on_are_refused(family: str, error: type[Exception], complaint: str) -> None:
    lm = opened(family)
    with Plan.exact(lm).applied(lm) as applied, pytest.raises(error, match=complaint):
        applied.cache()


def test_a_plan_that_does_not_know_the_layers_is_refused() -> None:
    model = TINY["Llama"].build()
    with Plan.of(model, {(0, 0): NARROW}).applied(model) as applied:
        with pytest.raises(ArgumentError, match="one that knows the model's layers by name"):
            applied.cache()


def test_a_guard_needs_all_keys() -> None:
    lm = opened()
    with plan_of(lm).applied(lm, guard=0.5) as applied, pytest.raises(ArgumentError, match="guard: wanted none"):
        applied.cache()


class TestOneLayer:
    def test_what_is_held_is_first_and_nearest(self) -> None:
        layer: Any = HeldLayer(Span(2, 4), lambda: True)
        numbers = torch.arange(20.0).view(1, 1, 20, 1)
        keys, values = layer.update(numbers[..., :9, :], numbers[..., :9, :])
        assert keys.shape[2] == 9
        assert gap_of(keys) == 0
        assert layer.keys.flatten().tolist() == [0, 1, 6, 7, 8]
        keys, values = layer.update(numbers[..., 9:11, :], numbers[..., 9:11, :])
        assert keys.flatten().tolist() == values.flatten().tolist() == [0, 1, 6, 7, 8, 9, 10]
        assert gap_of(keys) == 4
        assert gap_of(keys.clone()) == 0
        assert layer.get_mask_sizes(3) == (14, 0)

    def test_nothing_is_remembered_of_keys_that_are_gone(self) -> None:
        from attlas.capture import holding

        layer = HeldLayer(Span(0, 1), lambda: True)
        for _ in range(5):
            layer.update(torch.ones(1, 1, 2, 1), torch.ones(1, 1, 2, 1))
        assert len(holding._gaps) <= 1

    def test_it_cannot_go_back(self) -> None:
        layer = HeldLayer(Span(2, 4), lambda: True)
        layer.update(torch.ones(1, 1, 9, 1), torch.ones(1, 1, 9, 1))
        with pytest.raises(ArgumentError, match="one that holds only what a plan needs; use the model's own cache"):
            layer.crop(-1)
        layer.crop(0)
        layer.reset()
        assert layer.get_seq_length() == 0
