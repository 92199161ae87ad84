"""Inside of a plan's block each head runs by its pattern, or is exact and listed; outside of it nothing has changed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import attlas
from attlas.capture import ablate
from attlas.capture.descent import descend
from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.patterns import Full, SlidingWindow
from attlas.patterns.low_rank import LowRank
from attlas.planning import Plan
from attlas.testing.tiny_models import TINY_MODELS

TINY = {tiny.family: tiny for tiny in TINY_MODELS}
WINDOW = SlidingWindow(4, sinks=1)


@pytest.fixture
def llama() -> Any:
    return TINY["Llama"].build()


def logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def windowed(model: nn.Module, heads: Any = (0, 1, 2, 3), layers: Any = (0, 1)) -> Plan:
    return Plan.of(model, {(layer, head): WINDOW for layer in layers for head in heads})


class TestRouting:
    def test_each_head_runs_by_its_own_pattern(self, llama: Any) -> None:
        plan = Plan.of(llama, {(1, 0): WINDOW, (1, 2): SlidingWindow(2), (1, 3): WINDOW})
        outputs: list[Tensor] = []
        inputs = TINY["Llama"].inputs(batch=2)
        llama.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
        plain = logits(llama, inputs)
        with plan.applied(llama) as applied, attlas.capture(llama, values=True, unrouted="report") as cap:
            logits(llama, inputs)
        assert list(cap.unrouted) == ["model.layers.1.self_attn"]
        with attlas.capture(llama, values=True) as cap:
            logits(llama, inputs)
        A: Any = cap[1]
        values = cap.values(1)
        expected = torch.cat(
            [
                WINDOW.matrix(A[:, 0:1]) @ values[:, 0:1],
                A[:, 1:2] @ values[:, 0:1],
                SlidingWindow(2).matrix(A[:, 2:3]) @ values[:, 1:2],
                WINDOW.matrix(A[:, 3:4]) @ values[:, 1:2],
            ],
            dim=1,
        )
        torch.testing.assert_close(outputs[1], expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-5)
        assert applied.routed == {"model.layers.1.self_attn": {WINDOW: (0, 3), SlidingWindow(2): (2,)}}
        assert applied.calls == 2
        assert "3 heads by patterns other than full" in str(applied)
        assert torch.equal(plain, logits(llama, inputs))

    def test_layers_can_be_named(self, llama: Any) -> None:
        by_name = Plan.of(llama, {("model.layers.1.self_attn", 2): WINDOW})
        by_number = Plan.of(llama, {(1, 2): WINDOW})
        inputs = TINY["Llama"].inputs()
        with by_name.applied(llama):
            named = logits(llama, inputs)
        with by_number.applied(llama):
            assert torch.equal(named, logits(llama, inputs))

    def test_a_layer_that_runs_several_times_has_a_pattern_a_turn(self) -> None:
        model: Any = TINY["ALBERT"].build()
        inputs = TINY["ALBERT"].inputs()
        name = next(name for name, module in model.named_modules() if name.endswith("attention"))
        plan = Plan.of(model, {(1, 0): WINDOW}, layers=[name, f"{name} (turn 2)"])
        with torch.no_grad(), plan.applied(model) as applied:
            model(**inputs)
        assert applied.routed == {f"{name} (turn 2)": {WINDOW: (0,)}}

    def test_numbers_hold_where_only_a_part_runs(self) -> None:
        tiny = TINY["T5"]
        model: Any = tiny.build()
        inputs = tiny.inputs()
        with torch.no_grad(), attlas.capture(model) as cap:
            encoded = model(**inputs).encoder_last_hidden_state
        number = next(i for i, name in enumerate(cap.names) if name.startswith("decoder.block.1.layer.0"))
        plan = Plan.of(model, {(number, 1): WINDOW}, layers=cap.names)
        with torch.no_grad(), plan.applied(model) as applied:
            model(encoder_outputs=(encoded,), decoder_input_ids=inputs["decoder_input_ids"])
        assert list(applied.routed) == [cap.names[number]]

    def test_a_module_of_pytorchs_own_functions(self) -> None:
        class Heads(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.into = nn.Linear(16, 48)

            def forward(self, states: Tensor) -> Tensor:
                q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.into(states).chunk(3, -1))
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        module, states = Heads(), torch.randn(2, 17, 16)
        with attlas.capture(module, values=True) as cap, torch.no_grad():
            plain = module(states)
        with Plan.of(module, {(0, 1): WINDOW}).applied(module) as applied, torch.no_grad():
            found = module(states)
        assert applied.routed == {"Heads": {WINDOW: (1,)}}
        torch.testing.assert_close(found[:, 0], plain[:, 0])
        A: Any = cap[0]
        expected = WINDOW.matrix(A[:, 1:2]) @ cap.values(0)[:, 1:2]
        torch.testing.assert_close(found[:, 1:2], expected)

    def test_gradients_flow(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs(batch=2)
        llama.train()
        with windowed(llama, heads=(0, 1), layers=(1,)).applied(llama) as applied:
            llama(**inputs, labels=inputs["input_ids"]).loss.backward()
        assert not applied.left
        found = {name: parameter.grad.clone() for name, parameter in llama.named_parameters()}
        assert all(bool(gradient.abs().sum()) for gradient in found.values())
        with Plan.exact(llama).applied(llama):
            llama.zero_grad()
            llama(**inputs, labels=inputs["input_ids"]).loss.backward()
        exact = {name: parameter.grad.clone() for name, parameter in llama.named_parameters()}
        llama.zero_grad()
        llama(**inputs, labels=inputs["input_ids"]).loss.backward()
        for name, parameter in llama.named_parameters():
            size = float(parameter.grad.abs().max())
            torch.testing.assert_close(exact[name], parameter.grad, rtol=1e-3, atol=1e-4 * size)
        assert not torch.allclose(found["model.embed_tokens.weight"], exact["model.embed_tokens.weight"], rtol=1e-2)

    def test_checkpoints_run_by_the_plan_again(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs(batch=2)
        llama.train()
        found = {}
        for checkpoints in (False, True):
            if checkpoints:
                llama.activation_checkpointing_enable()
            llama.zero_grad()
            with windowed(llama, heads=(0, 2)).applied(llama):
                llama(**inputs, labels=inputs["input_ids"]).loss.backward()
            found[checkpoints] = llama.model.embed_tokens.weight.grad.clone()
        torch.testing.assert_close(found[True], found[False])

    def test_a_cache_with_free_places(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs(batch=2)
        options: dict[str, Any] = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False}
        with torch.no_grad(), windowed(llama).applied(llama):
            wanted = llama.generate(**inputs, **options)
        with torch.no_grad(), windowed(llama).applied(llama) as applied:
            found = llama.generate(**inputs, **options, cache_implementation="static", disable_compile=True)
        assert not applied.left
        assert not applied.exact
        assert torch.equal(found, wanted)

    def test_what_is_refused_of_a_text_is_refused_of_its_next_token(self, llama: Any) -> None:
        plan = Plan.of(llama, {(0, 1): LowRank(4)})
        with torch.no_grad(), plan.applied(llama) as applied:
            llama.generate(**TINY["Llama"].inputs(), max_new_tokens=4, min_new_tokens=4)
        assert not applied.routed
        assert {kept.heads for kept in applied.exact} == {(1,)}


class TestWhatStaysExact:
    def test_a_pattern_that_cannot_stand_in_is_listed(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs()
        pattern = LowRank(4)
        plain = logits(llama, inputs)
        with Plan.of(llama, {(0, 1): pattern, (0, 2): WINDOW}).applied(llama) as applied:
            found = logits(llama, inputs)
        with Plan.of(llama, {(0, 2): WINDOW}).applied(llama):
            assert torch.equal(found, logits(llama, inputs))
        assert not torch.allclose(found, plain)
        (kept,) = applied.exact
        assert (kept.layer, kept.heads, kept.pattern) == ("model.layers.0.self_attn", (1,), pattern)
        assert kept.reason
        assert "exact: model.layers.0.self_attn, heads 1 (low rank" in str(applied)

    def test_heads_that_cannot_be_told_apart_are_listed(self) -> None:
        module = nn.MultiheadAttention(16, 2, batch_first=True).eval()
        states = torch.randn(1, 9, 16)
        with torch.no_grad(), Plan.of(module, {(0, 0): WINDOW}).applied(module) as applied:
            found, _ = module(states, states, states, need_weights=False)
        torch.testing.assert_close(found, module(states, states, states, need_weights=False)[0])
        assert "projects its heads inside of the call" in applied.left["MultiheadAttention"]
        assert not applied.calls

    def test_code_of_its_own_is_listed(self) -> None:
        model = TINY["DeBERTa-v2"].build()
        with torch.no_grad(), Plan.exact(model).applied(model) as applied:
            model(**TINY["DeBERTa-v2"].inputs())
        assert set(applied.left.values()) == {"it computes its attention in code of its own"}

    def test_dropout_is_left_to_the_model(self, llama: Any) -> None:
        llama.train()
        for layer in llama.model.layers:
            layer.self_attn.attention_dropout = 0.5
        with windowed(llama).applied(llama) as applied:
            llama(**TINY["Llama"].inputs())
        assert all("drops attention weights at random" in reason for reason in applied.left.values())
        assert len(applied.left) == 2

    def test_a_kernel_that_computes_something_else_is_found_out(self, llama: Any) -> None:
        def squared(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
            key, value = (part.repeat_interleave(2, 1) for part in (key, value))
            weights = (query @ key.mT).square().tril()
            return (weights / weights.sum(-1, keepdim=True) @ value).transpose(1, 2), None

        AttentionInterface.register("squared", squared)
        AttentionMaskInterface.register("squared", AttentionMaskInterface._global_mapping["sdpa"])
        try:
            llama.set_attn_implementation("squared")
            plain = logits(llama, TINY["Llama"].inputs())
            with windowed(llama).applied(llama) as applied:
                assert torch.equal(plain, logits(llama, TINY["Llama"].inputs()))
        finally:
            AttentionInterface._global_mapping.pop("squared")
            AttentionMaskInterface._global_mapping.pop("squared")
        assert len(applied.left) == 2
        assert all("not the softmax of the scores" in reason for reason in applied.left.values())

    def test_a_mask_of_the_callers_own_counts(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs()
        hidden = torch.ones(1, 1, 19, 19, dtype=torch.bool).tril()
        hidden[..., 10:, 3:6] = False
        given = {**inputs, "attention_mask": hidden}
        with Plan.exact(llama).applied(llama) as applied:
            found = logits(llama, given)
        assert not applied.left
        torch.testing.assert_close(found, logits(llama, given))

    def test_packed_texts_stay_exact(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs()
        given = {**inputs, "position_ids": torch.cat([torch.arange(9), torch.arange(10)])[None]}
        plain = logits(llama, {**given, "use_cache": False})
        with windowed(llama).applied(llama) as applied:
            found = logits(llama, {**given, "use_cache": False})
        torch.testing.assert_close(found, plain)
        assert {kept.reason for kept in applied.exact} == {
            "its queries and keys are not those of one text in a row, so how far apart they are is not known"
        }


class TestGuard:
    def test_heads_that_lose_too_much_run_exactly(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs()
        plain = logits(llama, inputs)
        with windowed(llama).applied(llama, guard=0.0) as applied:
            found = logits(llama, inputs)
        torch.testing.assert_close(found, plain)
        assert len(applied.strayed) == 8
        assert "8 heads, 8 times" in str(applied)
        with windowed(llama).applied(llama, guard=1.0) as applied:
            assert not torch.allclose(logits(llama, inputs), plain)
        assert not applied.strayed

    def test_a_bound_that_is_none_is_refused(self, llama: Any) -> None:
        with pytest.raises(ArgumentError, match="guard: wanted a number from 0 to 1"):
            with windowed(llama).applied(llama, guard=2.0):
                pass


class TestLeavingNothingBehind:
    def test_everything_is_restored_after_an_error(self, llama: Any) -> None:
        interface, masks = AttentionInterface.get_interface, dict(AttentionMaskInterface._global_mapping)
        inputs = TINY["Llama"].inputs()
        plain = logits(llama, inputs)
        broken = {"input_ids": inputs["input_ids"] + 1_000}
        with pytest.raises(IndexError), windowed(llama).applied(llama):
            logits(llama, broken)
        assert AttentionInterface.get_interface is interface
        assert AttentionMaskInterface._global_mapping == masks
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.modules())
        assert torch.equal(plain, logits(llama, inputs))

    def test_a_second_plan_is_refused(self, llama: Any) -> None:
        plan = windowed(llama)
        with plan.applied(llama):
            with pytest.raises(ArgumentError, match="inside of another plan's `with` block; leave that block first"):
                with plan.applied(llama):
                    pass
            with pytest.raises(ArgumentError, match="another plan"), Plan.exact(llama.model).applied(llama.model):
                pass
        other: Any = TINY["Llama"].build(seed=1)
        with plan.applied(llama), plan.applied(other) as applied:
            logits(llama, TINY["Llama"].inputs())
            assert applied.calls == 0

    def test_other_threads_run_as_always(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs()
        plain = logits(llama, inputs)
        found: list[Tensor] = []
        with windowed(llama).applied(llama) as applied:
            thread = threading.Thread(target=lambda: found.append(logits(llama, inputs)))
            thread.start()
            thread.join()
        assert torch.equal(found[0], plain)
        assert applied.calls == 0

    def test_a_head_that_is_not_there_is_named(self, llama: Any) -> None:
        plan = Plan.of(llama, {(1, 4): WINDOW})
        with pytest.raises(ArgumentError, match=r"head numbers from 0 to 3 in layer 1 \(model.layers.1.self_attn\)"):
            with plan.applied(llama):
                logits(llama, TINY["Llama"].inputs())

    def test_a_compiled_model_is_refused(self, llama: Any) -> None:
        compiled: Any = torch.compile(llama, backend="eager")
        with pytest.raises(UnsupportedModelError, match="compiled"), Plan.of(compiled, {}).applied(compiled):
            pass


class TestBesideOthers:
    def test_a_capture_hears_what_was_computed_exactly(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs(batch=2)
        with attlas.capture(llama) as plain:
            logits(llama, inputs)
        with Plan.exact(llama).applied(llama), attlas.capture(llama, output=True) as inner:
            logits(llama, inputs)
        with attlas.capture(llama) as outer, Plan.exact(llama).applied(llama):
            logits(llama, inputs)
        for cap in (inner, outer):
            assert max(cap.verify(rows=None).values()) < 1e-5
            torch.testing.assert_close(cap[1].to_dense(), plain[1].to_dense(), atol=1e-5, rtol=1e-4)

    def test_a_capture_refuses_what_was_not(self, llama: Any) -> None:
        with pytest.raises(UnsupportedModelError, match="a plan computes it by patterns of its own"):
            with windowed(llama).applied(llama), attlas.capture(llama):
                logits(llama, TINY["Llama"].inputs())

    def test_an_ablation_acts_on_what_was_computed(self, llama: Any) -> None:
        inputs = TINY["Llama"].inputs()
        with ablate(llama, [(0, 1)]):
            wanted = logits(llama, inputs)
        with Plan.exact(llama).applied(llama), ablate(llama, [(0, 1)]):
            torch.testing.assert_close(logits(llama, inputs), wanted)
        with ablate(llama, [(0, 1)], kind="pattern"), Plan.exact(llama).applied(llama):
            found = logits(llama, inputs)
        with ablate(llama, [(0, 1)], kind="pattern"):
            torch.testing.assert_close(found, logits(llama, inputs))

    def test_a_descent_is_refused(self, llama: Any) -> None:
        with Plan.exact(llama).applied(llama), pytest.raises(ArgumentError, match=r"attlas\.ablate"):
            descend(llama, TINY["Llama"].inputs(), lambda output: output.logits[0, -1, [5]])


def test_an_exact_plan_has_only_full() -> None:
    plan = Plan.exact(TINY["Llama"].build())
    assert plan.pattern(0, 0) == Full()
    assert not plan.patterns
