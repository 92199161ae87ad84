"""A step of cached decoding is answered from the keys that heads keep, or left to the exact matrix."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attlas.capture.asked import Asked
from attlas.capture.visibility import Rule
from attlas.matrix import ALiBi, AttentionMatrix
from attlas.patterns import BlockSparse, Dilated, Full, GlobalTokens, Linear, Pattern, SlidingWindow, VerticalSlash
from attlas.planning import Plan
from attlas.planning.guarding import STEPS, Guard
from attlas.planning.stepping import Step
from attlas.testing.tiny_models import TINY_MODELS

TINY = {tiny.family: tiny for tiny in TINY_MODELS}
N = 30
HEADS = [0, 2, 3]


def asked(n_query: int = 1, **changed: Any) -> Asked:
    random = torch.Generator().manual_seed(n_query)
    query, key, value = (
        torch.randn(shape, generator=random) for shape in ((3, 4, n_query, 8), (3, 2, N, 8), (3, 2, N, 8))
    )
    given = {"rule": Rule(causal=True), "bias": None, "softcap": None, "sinks": None, "window": None, **changed}
    return Asked(query=query, key=key, value=value, scale=0.3, **given)


def padding(*starts: int) -> Tensor:
    return torch.arange(N).view(1, 1, 1, N) >= torch.tensor(starts).view(-1, 1, 1, 1)


def expected(call: Asked, pattern: Pattern, starts: tuple[int, ...]) -> Tensor:
    """Answer text by text, each cut to its own tokens, with the pattern's own matrix."""
    rows = []
    for text, start in enumerate(starts):
        one = slice(text, text + 1)
        matrix = AttentionMatrix(
            call.query[one], call.key[one, :, start:], call.scale, causal=True, window=call.rule.window
        )
        rows.append((pattern.matrix(matrix) @ call.value[one, :, start:])[:, HEADS])
    return torch.cat(rows)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("starts", [(0, 0, 0), (4, 4, 0), (7, 0, 7), (29, 3, 12)])
@pytest.mark.parametrize("pattern", [Full(), SlidingWindow(5, sinks=2), Dilated(3, 4), GlobalTokens((1, 3), 4)])
def test_each_text_counts_from_its_own_first_token(pattern: Any, starts: Any, window: int | None) -> None:
    mask = padding(*starts) if any(starts) else None
    call = asked(rule=Rule(causal=True, window=window, mask=mask))
    step = Step.of(call)
    assert step is not None
    assert step.covers(pattern)
    found = step.attend(pattern, HEADS)
    assert found is not None
    torch.testing.assert_close(found, expected(call, pattern, starts))


@pytest.mark.parametrize(
    "call",
    [
        asked(2),
        asked(rule=Rule(causal=False)),
        asked(rule=Rule(causal=True, mask=padding(0, 5, 0).flip(-1))),
        asked(rule=Rule(causal=True, mask=padding(0, N, 0))),
        asked(rule=Rule(causal=True, mask=torch.ones(3, 4, 1, N, dtype=torch.bool))),
        asked(bias=torch.zeros(1, 4, 1, N)),
        asked(bias=ALiBi.for_heads(4)),
        asked(aligned=False),
        replace(asked(), value=asked().value.double()),
    ],
    ids=["queries", "both ways", "right padding", "nothing", "mask of heads", "bias", "alibi", "unaligned", "dtypes"],
)
def test_what_takes_more_than_positions_is_left(call: Asked) -> None:
    assert Step.of(call) is None


def test_gradients_are_left_to_what_records_them() -> None:
    call = asked()
    call.value.requires_grad_()
    assert Step.of(call) is None
    with torch.no_grad():
        assert Step.of(call) is not None


def test_what_the_models_own_cache_let_go_of_counts() -> None:
    step = Step.of(asked(dropped=(3, 3, 0)))
    assert step is not None
    assert step.covers(SlidingWindow(4, sinks=5))
    assert not step.covers(GlobalTokens((0,), 4))
    found = step.attend(SlidingWindow(4, sinks=5), HEADS)
    assert found is not None
    torch.testing.assert_close(found[:2], expected(step.asked, SlidingWindow(4, sinks=2), (0, 0, 0))[:2])
    torch.testing.assert_close(found[2:], expected(step.asked, SlidingWindow(4, sinks=5), (0, 0, 0))[2:])


def test_a_gap_is_no_place_for_an_exact_head() -> None:
    step = Step.of(asked(gap=9))
    assert step is not None
    assert not step.covers(Full())
    assert step.covers(SlidingWindow(4))


@pytest.mark.parametrize("pattern", [VerticalSlash(2, 16), Linear("elu")], ids=str)
def test_patterns_that_look_at_numbers_are_left(pattern: Pattern) -> None:
    step = Step.of(asked())
    assert step is not None
    assert not step.covers(pattern)
    assert step.attend(pattern, HEADS) is None


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_left(number: float) -> None:
    call = asked()
    call.key[1, 0, 28] = number
    step = Step.of(call)
    assert step is not None
    assert step.attend(Full(), HEADS) is None
    call.key[1, 0, 28], call.key[1, 0, 9] = 0.0, number
    assert step.attend(SlidingWindow(5), HEADS) is not None


# ---- in a model


def decoded(model: Any, plan: Plan, steps: int, before: Any = None, **options: Any) -> tuple[list[Tensor], Any]:
    ids = TINY["Llama"].inputs(batch=2)["input_ids"]
    found = []
    with torch.no_grad(), plan.applied(model, **options) as applied:
        result = model(ids, use_cache=True)
        for _ in range(steps):
            if before is not None:
                before(result.past_key_values)
            token = result.logits[:, -1:].argmax(-1)
            result = model(token, past_key_values=result.past_key_values, use_cache=True)
            found.append(result.logits)
    return found, applied


@pytest.fixture
def llama() -> Any:
    return TINY["Llama"].build()


def test_no_matrix_is_made_of_a_step(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.of(llama, {(0, 1): SlidingWindow(4, sinks=1), (1, 2): GlobalTokens((0, 3), 3)})
    made: list[tuple[int, ...]] = []
    matrix: Any = Asked.matrix

    def counting(self: Asked) -> AttentionMatrix:
        made.append((self.n_query, self.n_key))
        return matrix.fget(self)

    monkeypatch.setattr(Asked, "matrix", property(counting))
    found, applied = decoded(llama, plan, 3)
    assert made == [(19, 19), (19, 19)]
    assert applied.calls == 2 * 4
    assert not applied.left
    monkeypatch.setattr(Step, "of", classmethod(lambda cls, asked: None))
    wanted, _ = decoded(llama, plan, 3)
    assert len(made) == 4 + 2 * 3
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pattern", [BlockSparse(2, top=2), VerticalSlash(2, 2, probe=2, band=2)], ids=str)
def test_what_would_choose_keys_for_one_token_is_exact(llama: Any, pattern: Pattern) -> None:
    plan = Plan.of(llama, {(layer, head): pattern for layer in range(2) for head in range(4)})
    ids = TINY["Llama"].inputs(batch=2)["input_ids"]
    with torch.no_grad():
        whole = llama(ids).logits
        cache = llama(ids[:, :-1], use_cache=True).past_key_values
        with plan.applied(llama) as applied:
            step = llama(ids[:, -1:], past_key_values=cache).logits
            several = llama(ids).logits
    torch.testing.assert_close(step[:, 0], whole[:, -1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(several, whole, atol=1e-3)
    assert not applied.left


def test_keys_that_are_not_finite_are_named(llama: Any) -> None:
    def spoil(cache: Any) -> None:
        cache.layers[1].keys[0, 0, 17] = math.nan

    plan = Plan.of(llama, {(1, 0): SlidingWindow(4)})
    _, applied = decoded(llama, plan, 1, spoil)
    assert list(applied.left) == ["model.layers.1.self_attn"]
    assert "key: wanted finite numbers, got nan at batch 0, head 0, position 17" in applied.left[
        "model.layers.1.self_attn"
    ]  # fmt: skip


def test_the_guard_looks_at_one_step_of_several(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    exceeds: Any = Guard.over.__globals__["exceeds"]

    def counting(exact: AttentionMatrix, *arguments: Any, **options: Any) -> Tensor:
        looks.append(exact.shape[3])
        return exceeds(exact, *arguments, **options)

    monkeypatch.setattr("attlas.planning.guarding.exceeds", counting)
    plan = Plan.of(llama, {(1, 0): SlidingWindow(2), (1, 1): SlidingWindow(2)})
    steps = STEPS + 3
    found, applied = decoded(llama, plan, steps, guard=0.0)
    assert looks == [19, 20, 20 + STEPS]
    assert applied.strayed == {("model.layers.1.self_attn", head): steps + 1 for head in (0, 1)}
    wanted, _ = decoded(llama, Plan.exact(llama), steps)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_text_that_is_read_on_by_several_tokens_is_looked_at_anew() -> None:
    from attlas.planning.guarding import Guard

    guard, looks = Guard(0.5), []

    def parts() -> Any:
        looks.append(len(looks))
        query, key = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 9, 4)
        return [(AttentionMatrix(query, key, causal=True), SlidingWindow(20))]

    for step in (True, True, False, True, True):
        assert guard.over("layer", SlidingWindow(20), (0, 1), parts, step=step) == [False, False]
    assert len(looks) == 3
    assert guard.over("layer", SlidingWindow(20), (0, 1), lambda: [], step=False) == [False, False]
